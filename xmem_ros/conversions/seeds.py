# SPDX-License-Identifier: MIT
"""From xmem_ros/Seed messages to masks. Runs in the service's thread: GrabCut takes longer than a frame."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xmem_ros import seeding
from xmem_ros.checks import name_fault
from xmem_ros.conversions.images import mask_from_image
from xmem_ros.errors import FrameError, RequestError, SeedError, TooManyObjectsError, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MASK, BOX, POINTS, LABELS = range(4)
KINDS = ('MASK', 'BOX', 'POINTS', 'LABELS')


@dataclass(frozen=True)
class ObjectSeed:
    """One object's mask, out of a seed message."""

    mask: np.ndarray  # H×W bool
    name: str
    id: int  # 0: a new object


@dataclass(frozen=True)
class _Planned:
    """One object's seed, checked; its mask may still take GrabCut to make."""

    name: str
    id: int
    mask: Callable[[], np.ndarray]  # gives H×W bool
    slow: bool = False


def read_seeds(
    seeds: Sequence[Any], image: np.ndarray, most: int, check: Callable[[list[int]], None] = lambda _: None
) -> list[ObjectSeed]:
    """Turn the seeds of a request into masks. What can be refused at once is refused before GrabCut begins.

    Args:
        seeds: xmem_ros/Seed messages.
        image: H×W×3 uint8 RGB that they belong to.
        most: objects that there can be.
        check: gets the ids that are seeded, 0 for each new object, and raises where the tracker would refuse them;
            called only where masks take GrabCut. Nothing holds from then on: others may seed meanwhile.

    Returns:
        One for each object, in the order of the seeds; a label image gives one for each value, smallest first.

    Raises:
        SeedError: says which seed cannot be used, why, and what to do. RequestError: no seed.
    """
    if not seeds:
        raise RequestError('the request holds no seed: give at least one')
    if len(seeds) > most:  # before any is read: GrabCut for hundreds of boxes takes minutes
        raise TooManyObjectsError(
            f'the request holds {len(seeds)} seeds, and there can be {most} objects (max_objects): '
            'give one seed for each object'
        )
    planned: list[tuple[str, _Planned]] = []
    for number, seed in enumerate(seeds):
        kind = KINDS[seed.kind] if seed.kind < len(KINDS) else str(seed.kind)
        name = f' {quoted(seed.name)}' if seed.name else ''
        which = f'seeds[{number}]{name} ({kind})'
        with _named(which):
            _check_name(seed.name)
            planned += [(which, item) for item in _READERS.get(seed.kind, _refuse_kind)(seed, image)]
    if any(item.slow for _, item in planned):
        check([item.id for _, item in planned])
    found: list[ObjectSeed] = []
    for which, item in planned:
        with _named(which):
            found.append(ObjectSeed(item.mask(), item.name, item.id))
    return found


@contextlib.contextmanager
def _named(which: str) -> Iterator[None]:
    try:
        yield
    except (SeedError, FrameError) as error:
        raise SeedError(f'{which}: {error}') from error


def _check_name(name: str) -> None:
    if fault := name_fault(name):
        raise SeedError(fault)


def _ready(name: str, object_id: int, mask: np.ndarray) -> _Planned:
    return _Planned(name, object_id, lambda: mask)


def _read_mask(seed: Any, image: np.ndarray) -> list[_Planned]:
    if seed.id and seed.name and not len(seed.mask.data):
        raise SeedError(
            f'there is no mask: a name comes with a correction; send what object_{seed.id}/mask says of an image, with '
            "that image's stamp, or draw the object again"
        )
    mask = seeding.mask_from_mask(mask_from_image(seed.mask), image.shape[:2])
    return [_ready(seed.name, seed.id, mask)]


def _read_box(seed: Any, image: np.ndarray) -> list[_Planned]:
    box = seeding.check_box((seed.box.x_offset, seed.box.y_offset, seed.box.width, seed.box.height), image.shape[:2])
    return [_Planned(seed.name, seed.id, lambda: seeding.mask_from_box(image, box), slow=True)]


def _read_points(seed: Any, image: np.ndarray) -> list[_Planned]:
    if max(len(seed.points), len(seed.point_labels)) > seeding.MOST_POINTS:  # before millions are turned into numbers
        raise SeedError(
            f'{len(seed.points)} points and {len(seed.point_labels)} point labels given: give at most '
            f'{seeding.MOST_POINTS}, or a mask'
        )
    points = np.array([(point.x, point.y) for point in seed.points], np.float64).reshape(-1, 2)
    labels = np.asarray(seed.point_labels, np.int64)
    seeding.check_points(points, labels, image.shape[:2])
    return [_Planned(seed.name, seed.id, lambda: seeding.mask_from_points(image, points, labels), slow=True)]


def _read_labels(seed: Any, image: np.ndarray) -> list[_Planned]:
    if seed.id:
        raise SeedError(f'id is {seed.id}: a label image starts new objects; set id to 0, or correct with a MASK')
    masks = seeding.masks_from_labels(mask_from_image(seed.mask), image.shape[:2])
    several = len(masks) > 1 and seed.name
    return [_ready(f'{seed.name}_{value}' if several else seed.name, 0, mask) for value, mask in masks.items()]


def _refuse_kind(seed: Any, image: np.ndarray) -> list[_Planned]:  # noqa: ARG001
    raise SeedError(f'kind is {seed.kind}: set it to 0 (MASK), 1 (BOX), 2 (POINTS) or 3 (LABELS)')


_READERS: dict[int, Callable[[Any, np.ndarray], list[_Planned]]] = {
    MASK: _read_mask,
    BOX: _read_box,
    POINTS: _read_points,
    LABELS: _read_labels,
}
