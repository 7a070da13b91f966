# SPDX-License-Identifier: MIT
"""Image files and compressed images, opened with format and size checks. No ROS."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import IO, TYPE_CHECKING

from PIL import Image

from xmem_ros import atomic
from xmem_ros.errors import FrameError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PIXELS = 64_000_000  # above any camera's resolution, and within a robot's memory
# Pillow detects a format by content and starts other programs for some (EPS: Ghostscript).
FORMATS = ('JPEG', 'PNG', 'BMP', 'DIB', 'TIFF', 'WEBP', 'GIF', 'PPM')


class PictureError(FrameError):
    """An image cannot be opened or decoded; the text has the reason, but not the name."""


def check_pixels(width: int, height: int) -> None:
    """Raise `PictureError` for an image of more than `MAX_PIXELS`."""
    if width * height > MAX_PIXELS:
        raise PictureError(f'{width}×{height}; at most {MAX_PIXELS} pixels are decoded')


@contextlib.contextmanager
def opened(source: Path | bytes | memoryview, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """Open an image after a check of its header; pixels are decoded inside the context.

    Raises:
        FileNotFoundError, PermissionError: of the file.
        PictureError: another format, too large, damaged or truncated, also found while decoding.
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
            yield image
    except (FileNotFoundError, PermissionError, FrameError):
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(f'more than the {MAX_PIXELS} pixels that are decoded') from error
    except Exception as error:  # Pillow's decoders have no common base for damaged files
        raise PictureError(f'{error}' or type(error).__name__) from error
