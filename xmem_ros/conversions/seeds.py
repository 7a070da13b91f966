# SPDX-License-Identifier: MIT
"""Conversion of xmem_ros/Seed messages to masks. No rclpy."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xmem_ros import seeding
from xmem_ros.checks import name_fault
from xmem_ros.conversions.images import mask_from_image
from xmem_ros.errors import FrameError, RequestError, SeedError, TooManyObjectsError, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    _Say = Callable[[str], None]

MASK, BOX, POINTS, LABELS = range(4)
KINDS = ('MASK', 'BOX', 'POINTS', 'LABELS')


@dataclass(frozen=True)
class ObjectSeed:
    """Mask of one object, from a seed message."""

    mask: np.ndarray  # H×W bool
    name: str
    id: int  # 0: a new object


@dataclass(frozen=True)
class _Planned:
    """Checked seed of one object; its mask may still need GrabCut."""

    name: str
    id: int
    mask: Callable[[], np.ndarray]  # returns H×W bool
    slow: bool = False  # needs GrabCut


def read_seeds(
    seeds: Sequence[Any],
    image: np.ndarray,
    most: int,
    check: Callable[[list[int]], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
    *,
    field: bool = True,
) -> list[ObjectSeed]:
    """Convert the seeds of a request to masks; all checks precede GrabCut, which is slow.

    Args:
        seeds: xmem_ros/Seed messages.
        image: H×W×3 uint8 RGB to which they belong.
        most: maximum number of objects.
        check: gets the ids of the seeds, 0 for each new object, and raises if the tracker would
            refuse them. Called only if a mask needs GrabCut. The tracker has to check again
            afterwards, because others may seed meanwhile.
        say: receives sentences about masks that were changed, such as those with soft edges.
        field: whether errors name a seed by its field of the request (`seeds[0]`), or else by its
            number from 1, for seeds that are not from a request.

    Returns:
        One seed for each object, in the order of the seeds. A label image gives one for each of its
        values, smallest first.

    Raises:
        SeedError: a seed is unusable; the message names it.
        RequestError: no seed is given.
    """
    if not seeds:
        raise RequestError('the request holds no seed: give at least one')
    if len(seeds) > most:  # checked first: GrabCut for hundreds of boxes takes minutes
        raise TooManyObjectsError(
            f'the request holds {len(seeds)} seeds, and at most {most} objects are allowed (max_objects): '
            'give one seed for each object'
        )
    planned: list[tuple[str, _Planned]] = []
    for number, seed in enumerate(seeds):
        kind = KINDS[seed.kind] if seed.kind < len(KINDS) else str(seed.kind)
        name = f' {quoted(seed.name)}' if seed.name else ''
        which = f'seeds[{number}]{name} ({kind})' if field else f'seed {number + 1}{name} ({kind.lower()})'
        with _named(which):
            _check_name(seed.name)
            read = _READERS.get(seed.kind, _refuse_kind)
            note = functools.partial(_prefixed, say, which)
            planned += [(which, item) for item in read(seed, image, most - len(planned), note)]
    if any(item.slow for _, item in planned):
        check([item.id for _, item in planned])
    result: list[ObjectSeed] = []
    for which, item in planned:
        with _named(which):
            result.append(ObjectSeed(item.mask(), item.name, item.id))
    return result


@contextlib.contextmanager
def _named(which: str) -> Iterator[None]:
    try:
        yield
    except TooManyObjectsError as error:
        raise TooManyObjectsError(f'{which}: {error}') from error
    except (SeedError, FrameError) as error:
        raise SeedError(f'{which}: {error}') from error


def _check_name(name: str) -> None:
    if fault := name_fault(name):
        raise SeedError(fault)


def _ready(name: str, object_id: int, mask: np.ndarray) -> _Planned:
    return _Planned(name, object_id, lambda: mask)


def _prefixed(say: _Say, which: str, text: str) -> None:
    say(f'{which}: {text}')


def _read_mask(seed: Any, image: np.ndarray, _: int, say: _Say) -> list[_Planned]:
    if seed.id and seed.name and not len(seed.mask.data):
        raise SeedError(
            f'there is no mask: a new name needs a correction; send the message of object_{seed.id}/mask with the '
            'stamp of its image, or draw the object again'
        )
    mask = seeding.mask_from_mask(mask_from_image(seed.mask), image.shape[:2], say)
    return [_ready(seed.name, seed.id, mask)]


def _read_box(seed: Any, image: np.ndarray, _: int, __: _Say) -> list[_Planned]:
    box = seeding.check_box((seed.box.x_offset, seed.box.y_offset, seed.box.width, seed.box.height), image.shape[:2])
    return [_Planned(seed.name, seed.id, lambda: seeding.mask_from_box(image, box), slow=True)]


def _read_points(seed: Any, image: np.ndarray, _: int, __: _Say) -> list[_Planned]:
    if max(len(seed.points), len(seed.point_labels)) > seeding.MOST_POINTS:  # before millions are converted
        raise SeedError(
            f'{len(seed.points)} points and {len(seed.point_labels)} point labels given: give at most '
            f'{seeding.MOST_POINTS}, or a mask'
        )
    points = np.array([(point.x, point.y) for point in seed.points], np.float64).reshape(-1, 2)
    labels = np.asarray(seed.point_labels, np.int64)
    seeding.check_points(points, labels, image.shape[:2])
    return [_Planned(seed.name, seed.id, lambda: seeding.mask_from_points(image, points, labels), slow=True)]


def _read_labels(seed: Any, image: np.ndarray, most: int, say: _Say) -> list[_Planned]:
    if seed.id:
        raise SeedError(f'id is {seed.id}: a label image starts new objects; set id to 0, or correct with a MASK')
    masks = seeding.masks_from_labels(mask_from_image(seed.mask), image.shape[:2], most, say)
    several = len(masks) > 1 and seed.name
    return [_ready(f'{seed.name}_{value}' if several else seed.name, 0, mask) for value, mask in masks.items()]


def _refuse_kind(seed: Any, _: np.ndarray, __: int, ___: _Say) -> list[_Planned]:
    raise SeedError(f'kind is {seed.kind}: set it to 0 (MASK), 1 (BOX), 2 (POINTS) or 3 (LABELS)')


_READERS: dict[int, Callable[[Any, np.ndarray, int, _Say], list[_Planned]]] = {
    MASK: _read_mask,
    BOX: _read_box,
    POINTS: _read_points,
    LABELS: _read_labels,
}
