# SPDX-License-Identifier: MIT
"""Picture files and compressed images opened with care: their head is looked at before anything is decoded. No ROS."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image

from xmem_ros.errors import FrameError

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_PIXELS = 64_000_000  # of an image that is decoded; more than any camera's, and within reach of a robot's memory
# Pillow tells a format by content, whatever the name says, and for some it starts other programs (EPS: Ghostscript).
FORMATS = ('JPEG', 'PNG', 'BMP', 'DIB', 'TIFF', 'WEBP', 'GIF', 'PPM')


class PictureError(FrameError):
    """A picture that cannot be opened or decoded; the text says why, and not which one."""


def check_pixels(width: int, height: int) -> None:
    """Raise `PictureError` for a picture of more pixels than are decoded."""
    if width * height > MOST_PIXELS:
        raise PictureError(f'{width}×{height}; at most {MOST_PIXELS} pixels are decoded')


@contextlib.contextmanager
def opened(source: Path | bytes | memoryview, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """Open a picture whose head is sound and not too large; pixels are decoded inside the context.

    Raises:
        FileNotFoundError, PermissionError: of a file.
        PictureError: it is none of these formats, too large, damaged, or cut short, also where decoding shows it.
    """
    given: Path | BinaryIO = source if isinstance(source, Path) else io.BytesIO(source)
    try:
        with Image.open(given, formats=formats) as image:
            check_pixels(*image.size)
            yield image
    except (FileNotFoundError, PermissionError, FrameError):
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(f'larger than the {MOST_PIXELS} pixels that are decoded') from error
    except Exception as error:  # Pillow's decoders have no common base for damaged files
        raise PictureError(f'{error}' or type(error).__name__) from error
