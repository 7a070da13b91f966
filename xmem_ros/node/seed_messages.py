# SPDX-License-Identifier: MIT
"""From xmem_ros/Seed messages to masks. Runs in the service's thread: GrabCut takes longer than a frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xmem_ros import seeding
from xmem_ros.errors import FrameError, SeedError, quoted
from xmem_ros.node.conversions import mask_from_image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MASK, BOX, POINTS, LABELS = range(4)
KINDS = ('MASK', 'BOX', 'POINTS', 'LABELS')
LONGEST_NAME = 255  # characters; every message about the object holds its name


@dataclass(frozen=True)
class ObjectSeed:
    """One object's mask, out of a seed message."""

    mask: np.ndarray  # H×W bool
    name: str
    id: int  # 0: a new object


def read_seeds(seeds: Sequence[Any], image: np.ndarray, most: int) -> list[ObjectSeed]:
    """Turn the seeds of a request into masks.

    Args:
        seeds: xmem_ros/Seed messages.
        image: H×W×3 uint8 RGB that they belong to.
        most: objects that there can be.

    Returns:
        One for each object, in the order of the seeds; a label image gives one for each value, smallest first.

    Raises:
        SeedError: says which seed cannot be used, why, and what to do.
    """
    if not seeds:
        raise SeedError('the request holds no seed: give at least one')
    if len(seeds) > most:  # before any is read: GrabCut for hundreds of boxes takes minutes
        raise SeedError(
            f'the request holds {len(seeds)} seeds, and there can be {most} objects (max_objects): '
            'give one seed for each object'
        )
    found: list[ObjectSeed] = []
    for number, seed in enumerate(seeds):
        kind = KINDS[seed.kind] if seed.kind < len(KINDS) else str(seed.kind)
        name = f' {quoted(seed.name)}' if seed.name else ''
        try:
            _check_name(seed.name)
            found += _READERS.get(seed.kind, _refuse_kind)(seed, image)
        except (SeedError, FrameError) as error:
            raise SeedError(f'seeds[{number}]{name} ({kind}): {error}') from error
    return found


def _check_name(name: str) -> None:
    if len(name) > LONGEST_NAME:
        raise SeedError(f'the name has {len(name)} characters: give one of at most {LONGEST_NAME}')


def _read_mask(seed: Any, image: np.ndarray) -> list[ObjectSeed]:
    mask = seeding.mask_from_mask(mask_from_image(seed.mask), image.shape[:2])
    return [ObjectSeed(mask, seed.name, seed.id)]


def _read_box(seed: Any, image: np.ndarray) -> list[ObjectSeed]:
    box = (seed.box.x_offset, seed.box.y_offset, seed.box.width, seed.box.height)
    return [ObjectSeed(seeding.mask_from_box(image, box), seed.name, seed.id)]


def _read_points(seed: Any, image: np.ndarray) -> list[ObjectSeed]:
    points = np.array([(point.x, point.y) for point in seed.points], np.float64).reshape(-1, 2)
    mask = seeding.mask_from_points(image, points, np.asarray(seed.point_labels, np.int64))
    return [ObjectSeed(mask, seed.name, seed.id)]


def _read_labels(seed: Any, image: np.ndarray) -> list[ObjectSeed]:
    if seed.id:
        raise SeedError(f'id is {seed.id}: a label image starts new objects; set id to 0, or correct with a MASK')
    masks = seeding.masks_from_labels(mask_from_image(seed.mask), image.shape[:2])
    several = len(masks) > 1 and seed.name
    return [ObjectSeed(mask, f'{seed.name}_{value}' if several else seed.name, 0) for value, mask in masks.items()]


def _refuse_kind(seed: Any, image: np.ndarray) -> list[ObjectSeed]:  # noqa: ARG001
    raise SeedError(f'kind is {seed.kind}: set it to 0 (MASK), 1 (BOX), 2 (POINTS) or 3 (LABELS)')


_READERS: dict[int, Callable[[Any, np.ndarray], list[ObjectSeed]]] = {
    MASK: _read_mask,
    BOX: _read_box,
    POINTS: _read_points,
    LABELS: _read_labels,
}
