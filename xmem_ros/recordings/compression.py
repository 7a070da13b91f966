# SPDX-License-Identifier: MIT
"""Files, chunks and messages that a recorder compressed.

Files and messages are told by name and first bytes, whatever metadata says or lacks. Nothing becomes larger than
`limits` allows, since a few bytes can stand for gigabytes.
"""

from __future__ import annotations

import errno
import shutil
import sys
from typing import TYPE_CHECKING, Any

from xmem_ros.errors import BagError
from xmem_ros.recordings.limits import MOST_MESSAGE, check_message

if TYPE_CHECKING:
    from pathlib import Path

ENDINGS = ('.zstd', '.zst')  # rosbag2 gives its files the first one
_MAGIC = b'\x28\xb5\x2f\xfd'  # of zstd; a message that is not compressed begins with 0
_AT_ONCE = 1 << 20  # bytes
_FREE_SHARE = 0.1  # of the disk, which a file that is unpacked leaves free
_MOST_FREE = 2 * 2**30  # bytes, the most of that
_MOST_TIMES = 1000  # a larger file may become this many times as large: even black images rarely shrink further
_ALWAYS = 1 << 30  # bytes that every file may become
_MOST_FRAMES = 1000  # parts of zstd that follow each other in one message or chunk


def unpack(path: Path, target: Path) -> str:
    """Write what a compressed file holds to another; returns why that is not all, '' where it is.

    Raises:
        OSError: the file cannot be read, or there is no room.
        BagError: it would become implausibly large.
    """
    zstd = _zstd()
    room = room_in(target.parent)
    packed = path.stat().st_size
    most = max(_ALWAYS, _MOST_TIMES * packed)
    written = 0
    with zstd.open(path, 'rb') as source, target.open('wb') as file:
        try:
            while data := source.read1(_AT_ONCE):
                written += len(data)
                if written > most:
                    raise BagError(
                        f'{path}: its {packed} bytes become more than {most}, so that it is no recording; if you trust '
                        'it, unpack it yourself (zstd -d)'
                    )
                if written > room:
                    raise OSError(errno.ENOSPC, f'only {room} bytes may be used')
                file.write(data)
        except (EOFError, zstd.ZstdError) as error:
            return f'{path} was cut off or is damaged: {target.stat().st_size} bytes of it can be unpacked ({error})'
    return ''


def room_in(folder: Path) -> int:
    """Bytes that may be written there: some of the disk is left to others."""
    usage = shutil.disk_usage(folder)
    return max(usage.free - min(int(usage.total * _FREE_SHARE), _MOST_FREE), 0)


def unpacked(raw: bytes) -> bytes:
    """A message without its compression, if it has one; one that is damaged stays as it is, and is no message then."""
    if not is_compressed(raw):
        return raw
    try:
        return inflated(raw, 'zstd', MOST_MESSAGE)
    except BagError:
        return raw


def is_compressed(raw: bytes) -> bool:
    """Whether a message is compressed."""
    return raw[: len(_MAGIC)] == _MAGIC


def inflated(data: Any, kind: str, most: int) -> bytes:
    """Undo the compression '', zstd or lz4 of a message or chunk.

    Raises:
        BagError: an unknown compression, damaged data, or more than `most` bytes, of which no more are made.
    """
    check_message(most)
    if kind == '':
        return bytes(data)
    try:
        made = _from_zstd(data, most) if kind == 'zstd' else _from_lz4(data, most) if kind == 'lz4' else None
    except BagError:
        raise
    except Exception as error:  # the libraries have no common base
        raise BagError(f'damaged {kind} data ({error})') from error
    if made is None:
        raise BagError(f'the compression {kind!r} is not known; zstd and lz4 are')
    return made


def _from_zstd(data: Any, most: int) -> bytes:
    zstd = _zstd()
    parts: list[bytes] = []
    size = 0
    for _ in range(_MOST_FRAMES):
        one = zstd.ZstdDecompressor()
        parts.append(one.decompress(data, most - size + 1))
        size += len(parts[-1])
        if size > most:
            raise BagError(f'compressed data becomes more than the {most} bytes that it may be')
        if not one.eof:
            raise BagError('compressed data is cut off')
        data = one.unused_data
        if not data:
            return b''.join(parts)
    raise BagError(f'compressed data has more than {_MOST_FRAMES} parts')


def _from_lz4(data: Any, most: int) -> bytes:
    import lz4.frame

    one = lz4.frame.LZ4FrameDecompressor()
    made = bytes(one.decompress(data, most + 1))
    if len(made) > most:
        raise BagError(f'compressed data becomes more than the {most} bytes that it may be')
    if not one.eof:
        raise BagError('compressed data is cut off')
    return made


def _zstd() -> Any:
    """The module that rosbags needs, too."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
