# SPDX-License-Identifier: MIT
"""Files and messages that a recorder compressed, told by name and first bytes, whatever metadata says or lacks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

ENDINGS = ('.zstd', '.zst')  # rosbag2 gives its files the first one
_MAGIC = b'\x28\xb5\x2f\xfd'  # of zstd; a message that is not compressed begins with 0
_AT_ONCE = 1 << 20  # bytes


def unpack(path: Path, target: Path) -> str:
    """Write what a compressed file holds to another; returns why that is not all, '' where it is.

    Raises:
        OSError: the file cannot be read, or there is no room.
    """
    zstd = _zstd()
    with zstd.open(path, 'rb') as source, target.open('wb') as file:
        try:
            while data := source.read1(_AT_ONCE):
                file.write(data)
        except (EOFError, zstd.ZstdError) as error:
            return f'{path} was cut off or is damaged: {target.stat().st_size} bytes of it can be unpacked ({error})'
    return ''


def unpacked(raw: bytes) -> bytes:
    """A message without its compression, if it has one; one that is damaged stays as it is, and is no message then."""
    if raw[: len(_MAGIC)] != _MAGIC:
        return raw
    zstd = _zstd()
    try:
        return bytes(zstd.decompress(raw))
    except zstd.ZstdError:
        return raw


def _zstd() -> Any:
    """The module that rosbags needs, too."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
