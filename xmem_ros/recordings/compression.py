# SPDX-License-Identifier: MIT
"""Decompression of a recorder's files, chunks and messages, within bounds.

Compressed files are recognised by suffix, compressed messages by their first bytes; metadata is
not trusted. All output is bounded, since a few bytes can expand to gigabytes.
"""

from __future__ import annotations

import errno
import shutil
import sys
from typing import TYPE_CHECKING, Any

from xmem_ros.errors import BagError
from xmem_ros.recordings.limits import MAX_MESSAGE_BYTES, check_message

if TYPE_CHECKING:
    from pathlib import Path

COMPRESSED_SUFFIXES = ('.zstd', '.zst')  # rosbag2 writes the first one
_ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'  # a plain CDR message begins with 0
_BLOCK_BYTES = 1 << 20
_RESERVED_SHARE = 0.1  # share of the disk that stays free
_MAX_RESERVED_BYTES = 2 * 2**30  # upper bound of that share
_ALWAYS_ALLOWED_BYTES = 1 << 30  # decompressed size that is always allowed for all files of a bag together
_MAX_RATIO = 1000  # highest ratio allowed above that; even black images rarely compress better
_MAX_ZSTD_FRAMES = 1000  # concatenated zstd frames of one message or chunk


def decompress_file(path: Path, target: Path, before: int = 0) -> str:
    """Decompress a file into another; return the reason if it is incomplete, '' otherwise.

    before: decompressed bytes of the other files of its bag.

    Raises:
        OSError: the file cannot be read, or the disk has no room.
        BagError: the decompressed size is implausible.
    """
    zstd = _zstd()
    room = writable_bytes(target.parent)
    packed = path.stat().st_size
    most = max(_ALWAYS_ALLOWED_BYTES - before, _MAX_RATIO * packed)
    written = 0
    with zstd.open(path, 'rb') as source, target.open('wb') as file:
        try:
            while data := source.read1(_BLOCK_BYTES):
                written += len(data)
                if written > most:
                    raise BagError(
                        f'{path}: its {packed} bytes expand to more than {most}, which no recording does; if you '
                        'trust it, unpack it yourself (zstd -d)'
                    )
                if written > room:
                    raise OSError(errno.ENOSPC, f'only {room} bytes may be used')
                file.write(data)
        except (EOFError, zstd.ZstdError) as error:
            return f'{path} was cut off or is damaged: {target.stat().st_size} bytes can be unpacked ({error})'
    return ''


def writable_bytes(folder: Path) -> int:
    """Return the free bytes of a folder's disk, less a reserve for other programs."""
    usage = shutil.disk_usage(folder)
    return max(usage.free - min(int(usage.total * _RESERVED_SHARE), _MAX_RESERVED_BYTES), 0)


def decompress_message(raw: bytes) -> bytes:
    """Decompress a message if it is compressed; a damaged one is returned unchanged."""
    if not is_compressed(raw):
        return raw
    try:
        return decompress(raw, 'zstd', MAX_MESSAGE_BYTES)
    except BagError:
        return raw


def is_compressed(raw: bytes) -> bool:
    """Return whether a message is compressed."""
    return raw[: len(_ZSTD_MAGIC)] == _ZSTD_MAGIC


def decompress(data: Any, kind: str, max_bytes: int) -> bytes:
    """Decompress a message or chunk; kind: '' (none), 'zstd' or 'lz4'.

    Raises:
        BagError: unknown compression, damaged data, or more than `max_bytes` of output.
    """
    check_message(max_bytes)
    if kind == '':
        return bytes(data)
    decoder = {'zstd': _decompress_zstd, 'lz4': _decompress_lz4}.get(kind)
    if decoder is None:
        raise BagError(f'unknown compression {kind!r}; supported are zstd and lz4')
    try:
        return decoder(data, max_bytes)
    except BagError:
        raise
    except Exception as error:  # the libraries have no common base
        raise BagError(f'damaged {kind} data ({error})') from error


def _decompress_zstd(data: Any, max_bytes: int) -> bytes:
    zstd = _zstd()
    parts: list[bytes] = []
    size = 0
    for _ in range(_MAX_ZSTD_FRAMES):
        decompressor = zstd.ZstdDecompressor()
        parts.append(decompressor.decompress(data, max_bytes - size + 1))
        size += len(parts[-1])
        if size > max_bytes:
            raise BagError(f'compressed data expands to more than the allowed {max_bytes} bytes')
        if not decompressor.eof:
            raise BagError('compressed data is cut off')
        data = decompressor.unused_data
        if not data:
            return b''.join(parts)
    raise BagError(f'compressed data has more than {_MAX_ZSTD_FRAMES} zstd frames')


def _decompress_lz4(data: Any, max_bytes: int) -> bytes:
    import lz4.frame

    decompressor = lz4.frame.LZ4FrameDecompressor()
    content = bytes(decompressor.decompress(data, max_bytes + 1))
    if len(content) > max_bytes:
        raise BagError(f'compressed data expands to more than the allowed {max_bytes} bytes')
    if not decompressor.eof:
        raise BagError('compressed data is cut off')
    return content


def _zstd() -> Any:
    """Return the zstd module, which rosbags depends on too."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
