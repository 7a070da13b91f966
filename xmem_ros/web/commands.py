# SPDX-License-Identifier: MIT
"""Commands of the page, checked and made small: they are JSON from a browser, so they may be anything."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xmem_ros.client.seeds import Box, Points, Who
from xmem_ros.errors import SeedError, quoted

LARGEST = 2**31  # coordinate [px]
MOST_NAME = 80  # characters
MOST_POINTS = 1000
MOST_IDS = 255
MOST_RUNS = 2**17  # of a mask; painted ones have some thousands
MOST_REQUEST = 2**53  # the largest number that a browser counts to


@dataclass(frozen=True)
class Runs:
    """A mask as the lengths of its runs, row after row: first of False, then of True, and so on."""

    width: int
    height: int
    lengths: np.ndarray = field(repr=False)  # uint32

    def mask(self) -> np.ndarray:
        """H×W bool."""
        return np.repeat(np.arange(len(self.lengths)) % 2 == 1, self.lengths).reshape(self.height, self.width)


@dataclass(frozen=True)
class Hold:
    """Keep an image; stamp [ns]."""

    stamp: int


@dataclass(frozen=True)
class Seeding:
    """Seed or correct an object in the image of a stamp [ns]."""

    who: Who
    shape: Box | Points | Runs
    stamp: int


@dataclass(frozen=True)
class Removal:
    """Stop tracking objects."""

    ids: tuple[int, ...]


@dataclass(frozen=True)
class Reset:
    """Forget everything."""


Command = Hold | Seeding | Removal | Reset


def object_of(text: str) -> dict[str, Any] | None:
    """The JSON object of a text; None where it is none."""
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):  # brackets in brackets without end
        return None
    return found if isinstance(found, dict) else None


def command_of(message: dict[str, Any], size: tuple[int, int] | None) -> Command | None:
    """What a message asks the node for; None where its type is none of these.

    Args:
        message: as it came.
        size: width and height of the image that the page shows [px]; None: none yet. A mask has no other.

    Raises:
        SeedError: says what is wrong.
    """
    kind = message.get('type')
    if kind == 'hold':
        return Hold(stamp_of(message))
    if kind == 'seed':
        who, shape = seed_of(message, size)
        stamp = stamp_of(message)
        if not stamp:
            raise SeedError('the images have no stamps, so none can be named: have the camera set header.stamp')
        return Seeding(who, shape, stamp)
    if kind == 'remove':
        return Removal(ids_of(message))
    return Reset() if kind == 'reset' else None


def request_of(message: dict[str, Any]) -> int | None:
    """The number that a page gave its request, for the answer; None where it gave none."""
    request = message.get('request')
    return request if _whole(request, 0, MOST_REQUEST) else None


def stamp_of(message: dict[str, Any]) -> int:
    """The stamp that a command gives as seconds and nanoseconds [ns].

    Raises:
        SeedError: it gives none.
    """
    stamp = message.get('stamp')
    if isinstance(stamp, dict):
        seconds, rest = stamp.get('sec'), stamp.get('nanosec')
        if _whole(seconds, 0, 2**31 - 1) and _whole(rest, 0, 999_999_999):
            return int(seconds) * 1_000_000_000 + int(rest)  # type: ignore[arg-type]
    raise SeedError('the page did not say which image it means: load it again')


def seed_of(message: dict[str, Any], size: tuple[int, int] | None) -> tuple[Who, Box | Points | Runs]:
    """Who a seed is for, and its shape; `size` and errors as in `command_of`."""
    return _who(message), _shape(message, size)


def ids_of(message: dict[str, Any]) -> tuple[int, ...]:
    """The ids that a command names; raises `SeedError` where it names none."""
    ids = message.get('ids')
    if not isinstance(ids, list) or not 0 < len(ids) <= MOST_IDS or not all(_whole(item, 1, 2**32 - 1) for item in ids):
        raise SeedError(f'ids is {_brief(ids)}: give 1 to {MOST_IDS} ids of objects, whole numbers from 1')
    return tuple(ids)


def _who(message: dict[str, Any]) -> Who:
    name, object_id = message.get('name', ''), message.get('id', 0)
    if not isinstance(name, str) or len(name) > MOST_NAME or not name.isprintable():
        raise SeedError(f'the name must be at most {MOST_NAME} letters, digits and signs')
    if not _whole(object_id, 0, 2**32 - 1):
        raise SeedError(f'id is {_brief(object_id)}: give that of an object, or 0 for a new one')
    return (int(object_id), name.strip()) if object_id else name.strip()


def _shape(message: dict[str, Any], size: tuple[int, int] | None) -> Box | Points | Runs:
    kind = message.get('kind')
    if kind == 'box':
        box = message.get('box')
        if isinstance(box, list) and len(box) == 4 and all(map(_number, box)):
            return Box(*box)
        raise SeedError('a box is four numbers')
    if kind == 'points':
        return _points(message.get('points'))
    if kind == 'mask':
        return runs_of(message.get('width'), message.get('height'), message.get('runs'), size)
    raise SeedError(f'kind is {_brief(kind)}: give box, points or mask')


def _points(points: Any) -> Points:
    if not isinstance(points, list) or not 0 < len(points) <= MOST_POINTS:
        raise SeedError(f'give 1 to {MOST_POINTS} points')
    for point in points:
        if not isinstance(point, list) or len(point) != 3 or not all(map(_number, point)) or point[2] not in (0, 1):
            raise SeedError('a point is x, y, and 1 on the object or 0 beside it')
    return Points(*([point[:2] for point in points if point[2] == label] for label in (1, 0)))


def runs_of(width: Any, height: Any, lengths: Any, size: tuple[int, int] | None) -> Runs:
    """A mask of the image that the page shows, still packed.

    Raises:
        SeedError: another size than the image's, or runs of another size.
    """
    if size is None or not _whole(width, 1, size[0]) or not _whole(height, 1, size[1]) or (width, height) != size:
        raise SeedError('the mask has another size than the image: go on live and draw again')
    pixels = width * height
    if not isinstance(lengths, list) or not 0 < len(lengths) <= MOST_RUNS:
        raise SeedError(f'the mask must be 1 to {MOST_RUNS} runs: paint with fewer and larger strokes')
    if not all(_whole(length, 0, pixels) for length in lengths) or sum(lengths) != pixels:
        raise SeedError(f'the mask is not {width}×{height} px: load the page again')
    return Runs(width, height, np.array(lengths, np.uint32))


def _whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high  # no bool


def _number(value: Any) -> bool:
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST  # NaN is not


def _brief(value: Any) -> str:
    """For a message: the text of what holds others may be endless, and lists in lists deeper than Python can write."""
    if isinstance(value, list | dict):
        return 'a list' if isinstance(value, list) else 'an object'
    return quoted(value)


def _refuse(constant: str) -> None:
    raise ValueError(f'{constant} is no JSON')
