# SPDX-License-Identifier: MIT
"""Commands of the page: untrusted JSON from a browser, checked and parsed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xmem_ros.client.seeds import Box, Points, Target
from xmem_ros.errors import SeedError, quoted
from xmem_ros.web.previews import PackedMask

LARGEST = 2**31  # absolute value of a coordinate [px]
MOST_NAME = 80  # characters of a name
MOST_POINTS = 1000
MOST_IDS = 255
MOST_RUNS = 2**17  # runs of a mask; painted masks have a few thousand
MOST_REQUEST = 2**53  # largest exact integer in JavaScript


@dataclass(frozen=True)
class RunLengthMask:
    """A run-length encoded mask, in row order; the first run is background."""

    width: int
    height: int
    lengths: np.ndarray = field(repr=False)  # uint32

    def mask(self) -> np.ndarray:
        """Decode to H×W bool."""
        return np.repeat(np.arange(len(self.lengths)) % 2 == 1, self.lengths).reshape(self.height, self.width)


@dataclass(frozen=True)
class Hold:
    """Hold the image of a stamp [ns]."""

    stamp: int


@dataclass(frozen=True)
class Seeding:
    """Seed or correct an object on the image of a stamp [ns]."""

    target: Target
    shape: Box | Points | RunLengthMask | PackedMask
    stamp: int


@dataclass(frozen=True)
class Preview:
    """Ask for the masks that a box or points on the image of a stamp [ns] may mean."""

    object_id: int  # of the object whose mask points correct; 0: a new object
    shape: Box | Points
    stamp: int


@dataclass(frozen=True)
class Acceptance:
    """Seed or correct an object with a candidate of a preview."""

    target: Target
    preview: int  # number of the page's request
    candidate: int  # index


@dataclass(frozen=True)
class Removal:
    """Remove objects."""

    ids: tuple[int, ...]


@dataclass(frozen=True)
class Reset:
    """Reset the tracker."""


Command = Hold | Seeding | Preview | Acceptance | Removal | Reset


def json_object(text: str) -> dict[str, Any] | None:
    """Parse a JSON object; None for any other text."""
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):  # nested too deeply
        return None
    return found if isinstance(found, dict) else None


def command_of(message: dict[str, Any], size: tuple[int, int] | None) -> Command | None:
    """Parse the command of a message; None for an unknown type.

    Args:
        message: the received JSON object.
        size: width and height of the image on the page [px], which a mask must have; None: no image
            yet.

    Raises:
        SeedError: an invalid command.
    """
    kind = message.get('type')
    if kind == 'hold':
        return Hold(stamp_of(message))
    if kind == 'seed':
        target, shape = seed_of(message, size)
        return Seeding(target, shape, _real_stamp_of(message))
    if kind == 'preview':
        return preview_of(message)
    if kind == 'accept':
        return acceptance_of(message)
    if kind == 'remove':
        return Removal(ids_of(message))
    return Reset() if kind == 'reset' else None


def request_of(message: dict[str, Any]) -> int | None:
    """Return the number of the page's request, for the answer; None without one."""
    request = message.get('request')
    return request if _whole(request, 0, MOST_REQUEST) else None


def stamp_of(message: dict[str, Any]) -> int:
    """Return the stamp of a command [ns].

    Raises:
        SeedError: a missing or invalid stamp.
    """
    stamp = message.get('stamp')
    if isinstance(stamp, dict):
        seconds, rest = stamp.get('sec'), stamp.get('nanosec')
        if _whole(seconds, 0, 2**31 - 1) and _whole(rest, 0, 999_999_999):
            return int(seconds) * 1_000_000_000 + int(rest)  # type: ignore[arg-type]
    raise SeedError('the command has no valid image stamp: reload the page')


def _real_stamp_of(message: dict[str, Any]) -> int:
    stamp = stamp_of(message)
    if not stamp:
        raise SeedError('the images have no stamps and cannot be seeded: make the camera driver set header.stamp')
    return stamp


def preview_of(message: dict[str, Any]) -> Preview:
    """Parse a request for a preview; raises `SeedError` for an invalid one.

    With an id, points may be missing: the object's own mask is then asked for.
    """
    target = _target({'id': message.get('id', 0)})
    object_id = target[0] if isinstance(target, tuple) else 0
    if object_id and message.get('kind') == 'points' and message.get('points') == []:
        shape: Box | Points | RunLengthMask = Points(on=())
    else:
        shape = _shape(message, None)
    if isinstance(shape, RunLengthMask):
        raise SeedError('kind is mask: give box or points')
    return Preview(object_id, shape, _real_stamp_of(message))


def acceptance_of(message: dict[str, Any]) -> Acceptance:
    """Parse the acceptance of a candidate; raises `SeedError` for an invalid one."""
    preview, candidate = message.get('preview'), message.get('candidate')
    if not _whole(preview, 0, MOST_REQUEST) or not _whole(candidate, 0, MOST_IDS):
        raise SeedError('invalid candidate: give preview and candidate, integers from 0')
    return Acceptance(_target(message), int(preview), int(candidate))  # type: ignore[arg-type]


def seed_of(message: dict[str, Any], size: tuple[int, int] | None) -> tuple[Target, Box | Points | RunLengthMask]:
    """Parse target and shape of a seed; `size` and errors as in `command_of`."""
    return _target(message), _shape(message, size)


def ids_of(message: dict[str, Any]) -> tuple[int, ...]:
    """Return the ids of a command; raises `SeedError` for missing or invalid ids."""
    ids = message.get('ids')
    if not isinstance(ids, list) or not 0 < len(ids) <= MOST_IDS or not all(_whole(item, 1, 2**32 - 1) for item in ids):
        raise SeedError(f'ids is {_brief(ids)}: give 1 to {MOST_IDS} object ids, integers from 1')
    return tuple(ids)


def _target(message: dict[str, Any]) -> Target:
    name, object_id = message.get('name', ''), message.get('id', 0)
    if not isinstance(name, str) or len(name) > MOST_NAME or not name.isprintable():
        raise SeedError(f'invalid name: give at most {MOST_NAME} printable characters')
    if not _whole(object_id, 0, 2**32 - 1):
        raise SeedError(f'id is {_brief(object_id)}: give the id of an object, or 0 for a new one')
    return (int(object_id), name.strip()) if object_id else name.strip()


def _shape(message: dict[str, Any], size: tuple[int, int] | None) -> Box | Points | RunLengthMask:
    kind = message.get('kind')
    if kind == 'box':
        box = message.get('box')
        if isinstance(box, list) and len(box) == 4 and all(map(_number, box)):
            return Box(*box)
        raise SeedError('invalid box: give four numbers x, y, width, height')
    if kind == 'points':
        return _points(message.get('points'))
    if kind == 'mask':
        return runs_of(message.get('width'), message.get('height'), message.get('runs'), size)
    raise SeedError(f'kind is {_brief(kind)}: give box, points or mask')


def _points(points: Any) -> Points:
    if not isinstance(points, list) or not 0 < len(points) <= MOST_POINTS:
        raise SeedError(f'invalid points: give 1 to {MOST_POINTS} points')
    for point in points:
        if not isinstance(point, list) or len(point) != 3 or not all(map(_number, point)) or point[2] not in (0, 1):
            raise SeedError('invalid point: give x, y, and 1 (on the object) or 0 (beside it)')
    return Points(*([point[:2] for point in points if point[2] == label] for label in (1, 0)))


def runs_of(width: Any, height: Any, lengths: Any, size: tuple[int, int] | None) -> RunLengthMask:
    """Check a run-length encoded mask of the image on the page.

    Raises:
        SeedError: the mask's size differs from the image's, or the runs do not fill the mask.
    """
    if size is None or not _whole(width, 1, size[0]) or not _whole(height, 1, size[1]) or (width, height) != size:
        raise SeedError('the mask has a different size than the image: go live and draw again')
    pixels = width * height
    if not isinstance(lengths, list) or not 0 < len(lengths) <= MOST_RUNS:
        raise SeedError(f'the mask is too detailed (at most {MOST_RUNS} runs): paint with fewer and larger strokes')
    if not all(_whole(length, 0, pixels) for length in lengths) or sum(lengths) != pixels:
        raise SeedError(f'the mask does not fill {width}×{height} px: reload the page')
    return RunLengthMask(width, height, np.array(lengths, np.uint32))


def _whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high  # no bool


def _number(value: Any) -> bool:
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST  # excludes NaN


def _brief(value: Any) -> str:
    """Quote a value for a message; lists and objects may be too large or too deep to print."""
    if isinstance(value, list | dict):
        return 'a list' if isinstance(value, list) else 'an object'
    return quoted(value)


def _refuse(constant: str) -> None:
    raise ValueError(f'{constant} is not valid JSON')
