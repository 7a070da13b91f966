# SPDX-License-Identifier: MIT
"""What the page asks for, checked: it is JSON from a browser, so it may be anything."""

from __future__ import annotations

from typing import Any

import numpy as np

from xmem_ros.client.seeds import Box, Points, Shape, Who
from xmem_ros.errors import SeedError

MOST_PIXELS = 64_000_000
LARGEST = 2**31  # coordinate [px]
MOST_NAME = 80  # characters
MOST_POINTS = 1000


def stamp_of(command: dict[str, Any]) -> int:
    """The stamp that a command gives as seconds and nanoseconds [ns].

    Raises:
        SeedError: it gives none.
    """
    stamp = command.get('stamp')
    if isinstance(stamp, dict):
        seconds, rest = stamp.get('sec'), stamp.get('nanosec')
        if _whole(seconds, 0, 2**31 - 1) and _whole(rest, 0, 999_999_999):
            return int(seconds) * 1_000_000_000 + int(rest)  # type: ignore[arg-type]
    raise SeedError('the page did not say which image it means: load it again')


def seed_of(command: dict[str, Any]) -> tuple[Who, Shape]:
    """Who a seed is for, and its shape.

    Raises:
        SeedError: says what is wrong.
    """
    return _who(command), _shape(command)


def ids_of(command: dict[str, Any]) -> list[int]:
    """The ids that a command names; raises `SeedError` where it names none."""
    ids = command.get('ids')
    if not isinstance(ids, list) or not ids or not all(_whole(item, 1, 2**32 - 1) for item in ids):
        raise SeedError(f'{ids!r:.80} are no ids')
    return ids


def _who(command: dict[str, Any]) -> Who:
    name, object_id = command.get('name', ''), command.get('id', 0)
    if not isinstance(name, str) or len(name) > MOST_NAME or not name.isprintable():
        raise SeedError(f'the name must be at most {MOST_NAME} letters, digits and signs')
    if not _whole(object_id, 0, 2**32 - 1):
        raise SeedError(f'{object_id!r:.80} is no id')
    return (int(object_id), name.strip()) if object_id else name.strip()


def _shape(command: dict[str, Any]) -> Shape:
    kind = command.get('kind')
    if kind == 'box':
        box = command.get('box')
        if isinstance(box, list) and len(box) == 4 and all(map(_number, box)):
            return Box(*box)
        raise SeedError('a box is four numbers')
    if kind == 'points':
        return _points(command.get('points'))
    if kind == 'mask':
        return mask_from_runs(command.get('width'), command.get('height'), command.get('runs'))
    raise SeedError(f'{kind!r:.80} is no kind of seed: box, points or mask')


def _points(points: Any) -> Points:
    if not isinstance(points, list) or not 0 < len(points) <= MOST_POINTS:
        raise SeedError(f'give 1 to {MOST_POINTS} points')
    for point in points:
        if not isinstance(point, list) or len(point) != 3 or not all(map(_number, point)) or point[2] not in (0, 1):
            raise SeedError('a point is x, y, and 1 on the object or 0 beside it')
    return Points(*([point[:2] for point in points if point[2] == label] for label in (1, 0)))


def mask_from_runs(width: Any, height: Any, runs: Any) -> np.ndarray:
    """H×W bool of the lengths of its runs, row after row: first of False, then of True, and so on.

    Raises:
        SeedError: a size that no image has, or runs of another size.
    """
    if not _whole(width, 1, 2**16) or not _whole(height, 1, 2**16) or width * height > MOST_PIXELS:
        raise SeedError(f'{width!r:.20}×{height!r:.20} is no size of a mask')
    size = width * height
    if not isinstance(runs, list) or not all(_whole(run, 0, size) for run in runs) or sum(runs) != size:
        raise SeedError(f'the mask is not {width}×{height} px: load the page again')
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _number(value: Any) -> bool:
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return known and -LARGEST <= value <= LARGEST  # NaN is neither
