# SPDX-License-Identifier: MIT
"""Image files and compressed images, opened with format and size checks. No ROS."""

from __future__ import annotations

import contextlib
import io
import re
from binascii import crc32
from pathlib import Path
from typing import IO, TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from xmem_ros import atomic
from xmem_ros.errors import FrameError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PIXELS = 64_000_000  # above any camera's resolution, and within a robot's memory
MAX_JPEG_BYTES = 256 << 20
MAX_SCANS = 100  # of a JPEG; decoders visit all pixels for each, and encoders write up to 20
_MAX_SEGMENTS = 10_000  # of a JPEG
# within a scan, 0xff is followed by 0 or by a restart number
_MARKER = re.compile(rb'\xff+[\x01-\xcf\xd8-\xfe]')
_BLOCK_BYTES = 1 << 20
_EOI, _SOS, _STANDALONE = 0xD9, 0xDA, (0x01, 0xD8)
# Pillow detects the format by content, and starts other programs for some (EPS: Ghostscript).
FORMATS = ('JPEG', 'PNG', 'BMP', 'DIB', 'TIFF', 'WEBP', 'GIF', 'PPM')


class PictureError(FrameError):
    """An image cannot be opened or decoded; the text has the reason, but not the file's name."""


def check_pixels(width: int, height: int) -> None:
    """Raise `PictureError` for an image of more than `MAX_PIXELS`."""
    if width * height > MAX_PIXELS:
        raise PictureError(f'{width}×{height}; at most {MAX_PIXELS} pixels are decoded')


@contextlib.contextmanager
def opened(source: Path | bytes | memoryview, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """Open an image after a check of its header; pixels are decoded inside the context.

    Raises:
        FileNotFoundError, PermissionError: of the file.
        PictureError: another format, too large, damaged or truncated; also raised while the block
            decodes.
    """
    try:
        stream: IO[bytes] = atomic.open_regular(source) if isinstance(source, Path) else io.BytesIO(source)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise PictureError(error.strerror or f'{error}') from error
    try:
        with stream, Image.open(stream, formats=formats) as image:
            check_pixels(*image.size)
            if image.format in ('JPEG', 'MPO'):
                position = stream.tell()
                stream.seek(0)
                _check_scans(stream.read(MAX_JPEG_BYTES + 1))
                stream.seek(position)
            elif image.format == 'PNG' and isinstance(source, Path):
                _check_sums(stream)
            yield image
    except (FileNotFoundError, PermissionError, FrameError):
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(f'more than the {MAX_PIXELS} pixels that are decoded') from error
    except Exception as error:  # Pillow's decoders have no common base for damaged files
        raise PictureError(f'{error}' or type(error).__name__) from error


def bits_of(image: Image.Image) -> int:
    """Return the bits per channel in the file; Pillow's mode hides those of colour images."""
    if image.mode.startswith(('I', 'F')):
        return 32 if image.mode in ('I', 'F') else 16
    if image.format == 'TIFF':
        bits = image.tag_v2.get(258, (8,))  # type: ignore[attr-defined] # BitsPerSample
        return max((bit for bit in bits if isinstance(bit, int)), default=8)
    tiles = getattr(image, 'tile', None) if image.format == 'PNG' else None
    return 16 if tiles and '16' in str(tiles[0]) else 8


def deep_pixels(image: Image.Image) -> np.ndarray:
    """Decode an image of more than 8 bits per channel, which may only have been opened.

    Returns:
        H×W uint16, int32 or float32, or H×W×3 uint16 RGB.

    Raises:
        PictureError: it cannot be decoded.
    """
    if image.mode.startswith(('I', 'F')):
        pixels = np.array(image)
        if image.format in ('PNG', 'PPM') or pixels.dtype.kind == 'u':
            return pixels.astype(np.uint16)
        return pixels
    file: IO[bytes] = image.fp  # type: ignore[attr-defined] # open inside the context of `opened`
    file.seek(0)
    data = np.frombuffer(file.read(), np.uint8)
    try:
        found = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise PictureError(f'{error.err}') from error
    if found is None:
        raise PictureError(f'{bits_of(image)} bits per channel cannot be decoded')
    return cv2.cvtColor(found, cv2.COLOR_BGR2RGB)


def _check_sums(stream: IO[bytes]) -> None:
    """Raise `PictureError` if a checksum of a PNG does not match; Pillow skips those of pixels."""
    position = stream.tell()
    stream.seek(8)
    while len(head := stream.read(8)) == 8 and head[4:] != b'IEND':
        left, found = int.from_bytes(head[:4], 'big'), crc32(head[4:])
        while left > 0 and (data := stream.read(min(left, _BLOCK_BYTES))):
            left, found = left - len(data), crc32(data, found)
        needed = not head[4] & 0x20  # else it may be ignored
        if needed and stream.read(4) != found.to_bytes(4, 'big'):
            raise PictureError('it is damaged or cut off: a checksum does not match')
        if not needed:
            stream.seek(4, 1)
    stream.seek(position)


def _check_scans(data: bytes) -> None:
    """Raise `PictureError` for a JPEG of more scans than any encoder writes.

    A scan of a progressive JPEG can take about ten bytes, but decoders visit all pixels for it.
    """
    if len(data) > MAX_JPEG_BYTES:
        raise PictureError(f'a JPEG of more than {MAX_JPEG_BYTES >> 20} MB')
    position = scans = 0
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, position)
        if found is None or data[found.end() - 1] == _EOI:
            return
        marker, position = data[found.end() - 1], found.end()
        scans += marker == _SOS
        if scans > MAX_SCANS:
            raise PictureError(f'a JPEG of more than {MAX_SCANS} scans')
        if marker not in _STANDALONE:
            position += max(int.from_bytes(data[position : position + 2], 'big'), 2)
    raise PictureError(f'a JPEG of more than {_MAX_SEGMENTS} segments')
