# SPDX-License-Identifier: MIT
"""Image files, mask files, and clips: videos and folders of frames. No ROS, no torch."""

from __future__ import annotations

import functools
import re
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageOps

from xmem_ros import atomic, pictures
from xmem_ros.errors import FrameError, SeedError, listed
from xmem_ros.intensity import IntensityScale
from xmem_ros.label_images import REMEDY, hard_labels
from xmem_ros.overlay import PALETTE

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
FOLDER_RATE = 30.0  # frames per second of a folder
VOID = 255
MAX_MASK_BYTES = 1 << 30  # of all masks in memory at once, one byte for each object and pixel


def natural_order(name: str) -> tuple[object, ...]:
    """Sort key by which frame_2 comes before frame_10."""
    parts = re.split('([0-9]+)', name)
    digits = [part.lstrip('0') for part in parts[1::2]]
    numbers = [(len(part), part) for part in digits]  # as numbers; int() refuses very long ones
    pairs = zip_longest(parts[::2], numbers, fillvalue=(0, ''))
    return (*(item for pair in pairs for item in pair), name)


def image_files(folder: Path) -> list[Path]:
    """Return the folder's image files in natural order of names, without hidden files."""
    files = (file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    found = [file for file in files if file.is_file() and not file.name.startswith('.')]
    return sorted(found, key=lambda file: natural_order(file.name))


def other_files_note(folder: Path) -> str:
    """Return a sentence about the folder's files that are not read, else ''."""
    names = (file.name for file in folder.iterdir() if file.suffix.lower() not in IMAGE_SUFFIXES and file.is_file())
    if not (others := sorted(name for name in names if not name.startswith('.'))):
        return ''
    return f'{folder}: not read, since they are not images ({", ".join(IMAGE_SUFFIXES)}): {listed(others, 3)}'


def order_note(files: Sequence[Path]) -> str:
    """Return a sentence if the natural order of files is not that of their characters, else ''."""
    if [file.name for file in files] == sorted(file.name for file in files):
        return ''
    shown = listed([file.name for file in files], 3)
    return f'{files[0].parent}: the numbers in the names give the order, not their characters: {shown}'


def read_image(path: Path, first: Path | None = None) -> np.ndarray:
    """Read an image, H×W×3 uint8 RGB.

    Arguments:
        path: the image.
        first: image of the same sequence whose values give the range of images of more than 8 bits;
            None: the image itself.

    Raises:
        FrameError: missing, damaged, truncated or too large.
    """
    pixels = read_pixels(path)
    if pixels.dtype == np.uint8:
        return pixels
    return grey_to_rgb(_scale_of(first or path).apply(pixels, str(pixels.dtype)))


@functools.lru_cache(maxsize=256)
def _scale_of(first: Path) -> IntensityScale:
    scale = IntensityScale()
    pixels = read_pixels(first)
    scale.apply(pixels, str(pixels.dtype))
    return scale


def grey_to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Return pixels H×W or H×W×3 as H×W×3."""
    return pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)


def read_pixels(path: Path) -> np.ndarray:
    """Read an image without reducing its bits.

    Returns:
        H×W×3 uint8 or uint16 RGB, or H×W uint16, int32 or float32.

    Raises:
        FrameError: missing, damaged, truncated or too large.
    """
    try:
        with pictures.opened(path) as image:
            return pictures.deep_pixels(image) if pictures.bits_of(image) > 8 else _eight_bits(image)
    except FileNotFoundError:
        raise FrameError(f'{path}: no such image file; check the path') from None
    except PermissionError as error:
        raise FrameError(f'{path}: not a readable image ({error}); allow reading it (chmod u+r)') from error
    except pictures.PictureError as error:
        raise FrameError(f'{path}: not a readable image ({error}); replace or remove the file') from error
    except FrameError as error:
        raise FrameError(f'{path}: {error}') from error


def _eight_bits(image: Image.Image) -> np.ndarray:
    return np.array(ImageOps.exif_transpose(image).convert('RGB'))


def read_mask(path: Path, notes: list[str] | None = None) -> np.ndarray:
    """Read a label image, H×W uint8.

    A palette or grey image gives its values, a one-bit image 0 and 255.

    Arguments:
        path: the file.
        notes: accepts masks with soft edges or from a JPEG, which get hard edges, and receives a
            sentence about it; None: they are refused.

    Raises:
        SeedError: missing, damaged, too large, in colour, or not a label image (see
            `label_images.hard_labels`).
    """
    try:
        with pictures.opened(path) as image:
            mask, mode, lossy = _mask_values(image), image.mode, image.format in ('JPEG', 'MPO', 'WEBP')
        if mode in ('P', '1') or not mask.any():
            return mask
        labels, note = hard_labels(mask, lossy=lossy)
    except FileNotFoundError:
        raise SeedError(f'{path}: no such mask file; give a palette, grey or one-bit PNG') from None
    except PermissionError as error:
        raise SeedError(f'{path}: not a readable mask ({error}); allow reading it (chmod u+r)') from error
    except pictures.PictureError as error:
        raise SeedError(f'{path}: not a readable mask ({error}); replace or remove the file') from error
    except (FrameError, SeedError) as error:
        raise SeedError(f'{path}: {error}') from error
    if note and notes is None:
        raise SeedError(f'{path}: {note.partition(",")[0]}; {REMEDY}')
    if note and notes is not None:
        notes.append(f'{path}: {note}')
    return labels


def _mask_values(image: Image.Image) -> np.ndarray:
    if image.mode in ('P', 'L'):
        return np.array(image)
    if image.mode == '1':
        return np.array(image.convert('L'))
    values = np.array(image.convert('RGB')) if image.mode in ('RGB', 'RGBA', 'LA') else np.array(image)
    if values.ndim == 3 and (values == values[..., :1]).all():
        return np.ascontiguousarray(values[..., 0])
    if values.ndim == 2 and values.dtype.kind in 'iu' and values.min() >= 0 and values.max() <= 255:
        return values.astype(np.uint8)
    kind = 'a colour image' if values.ndim == 3 else f'an image with values from {values.min()} to {values.max()}'
    raise FrameError(f'{kind}; a mask is a palette, grey or one-bit PNG whose values, 0 to 255, are the objects')


def objects_of(mask: np.ndarray, *, ignore_void: bool = False) -> dict[int, np.ndarray]:
    """Split a label image H×W uint8 into objects: value → H×W bool, in order of value.

    0 is background. 255 as the only value is one object of value 1.

    Arguments:
        mask: the label image.
        ignore_void: whether 255 beside other values is no object.

    Raises:
        SeedError: the masks would take more than `MAX_MASK_BYTES`.
    """
    values = [value for value in np.unique(mask).tolist() if value]
    if values == [VOID]:
        return {1: mask == VOID}
    check_mask_bytes(len(values) * mask.size)
    return {value: mask == value for value in values if value != VOID or not ignore_void}


def check_mask_bytes(size: int) -> None:
    """Raise `SeedError` for masks of more than `MAX_MASK_BYTES` together."""
    if size > MAX_MASK_BYTES:
        raise SeedError(
            f'the masks take {size / 1e9:.1f} GB (one byte for each object and pixel); at most '
            f'{MAX_MASK_BYTES / 1e9:.1f} GB are allowed: give fewer objects, or smaller images'
        )


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Write labels H×W uint8 atomically as a palette PNG in the overlay's colours."""
    image = Image.fromarray(labels, mode='L')
    image.putpalette(PALETTE.tobytes())
    with atomic.writing(path, sync=False) as part:
        image.save(part, format='PNG')
