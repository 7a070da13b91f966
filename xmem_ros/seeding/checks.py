# SPDX-License-Identifier: MIT
"""Checks of masks, label images, boxes and points against their image. No ROS and no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xmem_ros.errors import SeedError, TooManyObjectsError, listed
from xmem_ros.label_images import hard_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MIN_BOX = 4
MOST_POINTS = 1000  # each costs time


def mask_from_mask(mask: np.ndarray, size: tuple[int, int], say: Callable[[str], None] | None = None) -> np.ndarray:
    """Check a mask against the image it belongs to.

    Args:
        mask: H×W; non-zero pixels belong to the object. Soft edges of uint8 masks become hard.
        size: H, W of the image [px].
        say: receives a sentence if the mask had soft edges.

    Returns:
        H×W bool.

    Raises:
        SeedError: the mask has another size, is empty, or is not a mask (see `hard_labels`).
    """
    _check_size('mask', mask, size)
    if mask.dtype == np.uint8:
        mask, note = hard_labels(mask)
        if note and say:
            say(f'the mask: {note}')
    inside = mask != 0
    if not inside.any():
        raise SeedError('the mask is empty: set the pixels of the object to a value other than 0')
    return inside


def masks_from_labels(
    labels: np.ndarray, size: tuple[int, int], most: int = 255, say: Callable[[str], None] | None = None
) -> dict[int, np.ndarray]:
    """Split a label image.

    Args:
        labels: H×W integers; 0 is the background, every other value an object.
        size: H, W of the image [px].
        most: maximum number of objects.
        say: receives a sentence if a black and white image had soft edges.

    Returns:
        A dictionary value → H×W bool, smallest value first.

    Raises:
        SeedError: the label image has another size or only background.
        TooManyObjectsError: it has more objects; checked before any mask is made.
    """
    _check_size('label image', labels, size)
    if labels.dtype == np.uint8:
        labels, note = hard_labels(labels)
        if note and say:
            say(f'the label image: {note}')
    values = np.unique(labels)
    values = values[values != 0]
    if not values.size:
        raise SeedError('the label image is empty: set the pixels of each object to a different value, 1 to 255')
    if len(values) > most:
        raise TooManyObjectsError(
            f'the label image has {len(values)} objects, and {most} more are allowed (max_objects): keep fewer values'
        )
    return {int(value): labels == value for value in values}


def _check_size(what: str, image: np.ndarray, size: tuple[int, int]) -> None:
    if image.ndim != 2 or image.shape != tuple(size):
        given = f'{image.shape[1]}×{image.shape[0]}' if image.ndim == 2 else f'of shape {image.shape}'
        raise SeedError(
            f'the {what} is {given}, but the image is {size[1]}×{size[0]}: resize the {what} to {size[1]}×{size[0]} '
            '(nearest neighbour)'
        )


def box_text(box: Sequence[int]) -> str:
    """Describe a box for an error."""
    x, y, width, height = (int(value) for value in box)
    return f'x {x}, y {y}, {width}×{height}'


def nothing_in(box: Sequence[int]) -> SeedError:
    """Make the error for a box without an object."""
    return SeedError(
        f'nothing stands out in the box {box_text(box)}: draw it around a whole object, or give points or a mask'
    )


def check_box(box: Sequence[int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Check a box x, y, width, height [px] in an image of H, W, without segmenting.

    Raises:
        SeedError: the box is empty, tiny or not inside the image.
    """
    x, y, width, height = (int(value) for value in box)
    if width < _MIN_BOX or height < _MIN_BOX:
        raise SeedError(f'the box {box_text(box)} is too small: draw it at least {_MIN_BOX}×{_MIN_BOX} px')
    if x < 0 or y < 0 or x + width > size[1] or y + height > size[0]:
        raise SeedError(f'the box {box_text(box)} is not inside the image of {size[1]}×{size[0]}: clip it to the image')
    return x, y, width, height


def check_points(
    points: np.ndarray, point_labels: np.ndarray, size: tuple[int, int], *, correction: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Check points and labels in an image of H, W, without segmenting.

    correction: of a known mask; then no point has to be on the object.

    Returns:
        N×2 int pixels, and N bool: on the object.

    Raises:
        SeedError: no point is on the object, a point is outside the frame or not a number, points
            and labels differ in number, or a pixel has two labels.
    """
    points = np.asarray(points, np.float64).reshape(-1, 2)
    point_labels = np.asarray(point_labels).reshape(-1)
    if max(len(points), len(point_labels)) > MOST_POINTS:
        raise SeedError(
            f'{len(points)} points and {len(point_labels)} point labels given: give at most {MOST_POINTS}, or a mask'
        )
    if len(points) != len(point_labels):
        raise SeedError(
            f'{len(points)} points and {len(point_labels)} point labels given: give one label for each point'
        )
    if not np.isin(point_labels, (0, 1)).all():
        raise SeedError(
            f'point labels {listed(point_labels.tolist())} given; allowed: 1 (on the object) and 0 (not on it)'
        )
    if not correction and not (point_labels == 1).any():
        raise SeedError('no point on the object: give at least one with the label 1')
    outside = ~(np.isfinite(points).all(1) & (points >= 0).all(1) & (points < (size[1], size[0])).all(1))
    if outside.any():
        x, y = points[outside][0]
        raise SeedError(
            f'the point ({x:g}, {y:g}) is not inside the image of {size[1]}×{size[0]}: give x, y in px of that image'
        )
    pixels = points.astype(int)
    on_object = point_labels == 1
    shared = set(map(tuple, pixels[on_object].tolist())) & set(map(tuple, pixels[~on_object].tolist()))
    if shared:
        raise SeedError(f'the pixel {min(shared)} is labelled both on and not on the object: give it one label')
    return pixels, on_object
