# SPDX-License-Identifier: MIT
"""Conversion of xmem_ros/Seed messages to masks. No rclpy."""

from __future__ import annotations

import contextlib
import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xmem_ros.checks import name_fault
from xmem_ros.conversions import png_masks
from xmem_ros.conversions.images import mask_from_image
from xmem_ros.errors import FrameError, RequestError, SeedError, TooManyObjectsError, quoted
from xmem_ros.seeding.candidates import MOST_OFFERED, UNSURE, Candidate, distinct
from xmem_ros.seeding.checks import MOST_POINTS, check_box, check_points, mask_from_mask, masks_from_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from xmem_ros.seeding.seeder import Seeder

    _Say = Callable[[str], None]

MASK, BOX, POINTS, LABELS = range(4)
KINDS = ('MASK', 'BOX', 'POINTS', 'LABELS')


@dataclass(frozen=True)
class ObjectSeed:
    """Mask of one object, from a seed message."""

    mask: np.ndarray  # H×W bool
    name: str
    id: int  # 0: a new object
    number: int = 0  # of its message in the request


@dataclass(frozen=True)
class _Planned:
    """Checked seed of one object; its candidates may still need the seeder."""

    name: str
    id: int
    candidates: Callable[[Callable[[], Seeder]], list[Candidate]]  # best first
    slow: bool = False  # needs the seeder


def read_seeds(
    seeds: Sequence[Any],
    image: np.ndarray,
    most: int,
    seeder: Callable[[], Seeder],
    check: Callable[[list[int]], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
    *,
    field: bool = True,
    mask_of: Callable[[int], np.ndarray | None] = lambda _: None,
) -> list[ObjectSeed]:
    """Convert the seeds of a request to masks; all checks precede the seeder, which is slow.

    Args:
        seeds: xmem_ros/Seed messages.
        image: H×W×3 uint8 RGB to which they belong.
        most: maximum number of objects.
        seeder: returns what makes masks of boxes and points; called only if there are any.
        check: gets the ids of the seeds, 0 for each new object, and raises if the tracker would
            refuse them. Called only if a mask needs the seeder. The tracker has to check again
            afterwards, because others may seed meanwhile.
        say: receives sentences about masks that were changed, such as those with soft edges.
        field: whether errors name a seed by its field of the request (`seeds[0]`), or else by its
            number from 1, for seeds that are not from a request.
        mask_of: id → the current mask of an object, H×W bool, which points correct. None: unknown;
            then the points begin a new mask.

    Returns:
        One seed for each object, in the order of the seeds. A label image gives one for each of its
        values, smallest first.

    Raises:
        SeedError: a seed is unusable; the message names it.
        RequestError: no seed is given.
    """
    if not seeds:
        raise RequestError('the request holds no seed: give at least one')
    if len(seeds) > most:  # checked first: hundreds of boxes take long
        raise TooManyObjectsError(
            f'the request holds {len(seeds)} seeds, and at most {most} objects are allowed (max_objects): '
            'give one seed for each object'
        )
    planned: list[tuple[int, str, _Planned]] = []
    for number, seed in enumerate(seeds):
        which = _which(seed, f'seeds[{number}]' if field else f'seed {number + 1}', lower=not field)
        items = _plan(seed, image, most - len(planned), which, say, mask_of)
        planned += [(number, which, item) for item in items]
    if any(item.slow for *_, item in planned):
        check([item.id for *_, item in planned])
    result: list[ObjectSeed] = []
    for number, which, item in planned:
        with _named(which):
            best = item.candidates(seeder)[0]
            result.append(ObjectSeed(best.mask, item.name, item.id, number))
            if best.quality < UNSURE:  # not for NaN
                say(f'{which}: its mask is unsure (predicted IoU {best.quality:.2f}): check it, or give more points')
    return result


def read_candidates(
    seed: Any,
    image: np.ndarray,
    seeder: Callable[[], Seeder],
    check: Callable[[list[int]], None] = lambda _: None,
    *,
    mask_of: Callable[[int], np.ndarray | None] = lambda _: None,
) -> list[Candidate]:
    """Convert one seed to the masks that it may mean, best first.

    There are at most `MOST_OFFERED`, without near duplicates. The first is the mask that
    `read_seeds` gives. Arguments and errors as there; a label image is refused, because it shows
    several objects.
    """
    which = _which(seed, 'seed')
    with _named(which):
        if seed.kind == LABELS:
            raise SeedError('a label image shows several objects: give MASK, BOX or POINTS')
    (item,) = _plan(seed, image, 1, which, lambda _: None, mask_of)
    check([item.id])
    with _named(which):
        return distinct(item.candidates(seeder))[:MOST_OFFERED]


def replayable(messages: Sequence[Any], seeds: Sequence[ObjectSeed]) -> list[Any]:
    """Return the seeds as they are recorded: complete, and small.

    Points on known objects are replaced by the masks that they gave: those masks depend on the
    object's mask so far, which a replay does not have. Masks become PNG. Fields that a kind does
    not use are left out, whatever their size.

    Args:
        messages: xmem_ros/Seed messages.
        seeds: `read_seeds` of them.
    """
    result = []
    for given in messages:
        used: dict[str, Any] = {}
        if given.kind == BOX:
            used['box'] = given.box
        elif given.kind == POINTS:
            used |= {'points': given.points, 'point_labels': given.point_labels}
        elif given.mask.encoding == png_masks.ENCODING:
            used['mask'] = given.mask
        else:
            used['mask'] = png_masks.png_image(mask_from_image(given.mask), type(given.mask))
        result.append(type(given)(id=given.id, name=given.name, kind=given.kind, **used))
    for seed in seeds:
        given = messages[seed.number]
        if given.kind == POINTS and given.id:
            mask = png_masks.png_image(seed.mask.view(np.uint8) * np.uint8(255), type(given.mask))
            result[seed.number] = type(given)(id=given.id, name=given.name, kind=MASK, mask=mask)
    return result


def _which(seed: Any, where: str, *, lower: bool = False) -> str:
    """Name a seed for an error."""
    kind = KINDS[seed.kind] if seed.kind < len(KINDS) else str(seed.kind)
    name = f' {quoted(seed.name)}' if seed.name else ''
    return f'{where}{name} ({kind.lower() if lower else kind})'


def _plan(
    seed: Any, image: np.ndarray, most: int, which: str, say: _Say, mask_of: Callable[[int], np.ndarray | None]
) -> list[_Planned]:
    """Check one seed; several objects if it is a label image."""
    with _named(which):
        _check_name(seed.name)
        if seed.kind == POINTS:
            return [_read_points(seed, image, mask_of)]
        return _READERS.get(seed.kind, _refuse_kind)(seed, image, most, functools.partial(_prefixed, say, which))


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
    return _Planned(name, object_id, lambda _: [Candidate(mask, math.nan)])


def _prefixed(say: _Say, which: str, text: str) -> None:
    say(f'{which}: {text}')


def _read_mask(seed: Any, image: np.ndarray, _: int, say: _Say) -> list[_Planned]:
    if seed.id and seed.name and not len(seed.mask.data):
        raise SeedError(
            'there is no mask: a new name needs a correction; send the message of ~/object_<label>/mask with the '
            'stamp of its image, or draw the object again'
        )
    mask = mask_from_mask(mask_from_image(seed.mask), image.shape[:2], say)
    return [_ready(seed.name, seed.id, mask)]


def _read_box(seed: Any, image: np.ndarray, _: int, __: _Say) -> list[_Planned]:
    box = check_box((seed.box.x_offset, seed.box.y_offset, seed.box.width, seed.box.height), image.shape[:2])
    return [_Planned(seed.name, seed.id, lambda seeder: seeder().candidates_of_box(image, box), slow=True)]


def _read_points(seed: Any, image: np.ndarray, mask_of: Callable[[int], np.ndarray | None]) -> _Planned:
    if max(len(seed.points), len(seed.point_labels)) > MOST_POINTS:  # before millions are converted
        raise SeedError(
            f'{len(seed.points)} points and {len(seed.point_labels)} point labels given: give at most '
            f'{MOST_POINTS}, or a mask'
        )
    points = np.array([(point.x, point.y) for point in seed.points], np.float64).reshape(-1, 2)
    labels = np.asarray(seed.point_labels, np.int64)
    mask = mask_of(seed.id) if seed.id else None
    if mask is not None and (mask.shape != image.shape[:2] or not mask.any()):
        mask = None
    check_points(points, labels, image.shape[:2], correction=mask is not None)
    if mask is not None and not len(points):  # nothing to correct
        return _ready(seed.name, seed.id, mask)
    return _Planned(
        seed.name, seed.id, lambda seeder: seeder().candidates_of_points(image, points, labels, mask), slow=True
    )


def _read_labels(seed: Any, image: np.ndarray, most: int, say: _Say) -> list[_Planned]:
    if seed.id:
        raise SeedError(f'id is {seed.id}: a label image starts new objects; set id to 0, or correct with a MASK')
    masks = masks_from_labels(mask_from_image(seed.mask), image.shape[:2], most, say)
    several = len(masks) > 1 and seed.name
    return [_ready(f'{seed.name}_{value}' if several else seed.name, 0, mask) for value, mask in masks.items()]


def _refuse_kind(seed: Any, _: np.ndarray, __: int, ___: _Say) -> list[_Planned]:
    raise SeedError(f'kind is {seed.kind}: set it to 0 (MASK), 1 (BOX), 2 (POINTS) or 3 (LABELS)')


_READERS: dict[int, Callable[[Any, np.ndarray, int, _Say], list[_Planned]]] = {
    MASK: _read_mask,
    BOX: _read_box,
    LABELS: _read_labels,
}
