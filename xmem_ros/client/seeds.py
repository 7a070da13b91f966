# SPDX-License-Identifier: MIT
"""Conversion of masks, boxes and points to xmem_ros/Seed messages, and of stamps to Time."""

from __future__ import annotations

import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point32
from sensor_msgs.msg import Image, RegionOfInterest

from xmem_ros.client.frames import Frame
from xmem_ros.conversions.images import image_from_array
from xmem_ros.errors import SeedError
from xmem_ros.msg import Seed

_MOST = 2**32 - 1  # largest integer of the messages


class Box(NamedTuple):
    """Bounding box of the whole object [px]; x to the right, y down from the upper left corner."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Points:
    """Points [px]: `on` are N×2 x, y on the object, `off` are M×2 x, y beside it."""

    on: Any
    off: Any = ()


Shape = np.ndarray | Box | Points
"""Shape of an object: an H×W mask of the image's size, a box (or four numbers), or points."""

Target = str | int | tuple[int, str]
"""Target of a seed: a name for a new object, the id of an object to correct, or (id, new name)."""


def seed_messages(shapes: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> list[Seed]:
    """Convert shapes of objects to messages.

    Args:
        shapes: `Target` → `Shape`, or pairs of them, in which a name may occur twice.

    Raises:
        SeedError: a target or shape is invalid; the message says which.
    """
    pairs = list(shapes.items()) if isinstance(shapes, Mapping) else list(shapes)
    if not pairs:
        raise SeedError("no seed given: give at least one, such as {'cup': mask}")
    return [_message(*_pair(item)) for item in pairs]


def time_message(stamp: Any) -> Time:
    """Extract the stamp of an image; zero stands for the newest image.

    Args:
        stamp: None (the newest image), a `Frame`, a message with a header, a header, a
            builtin_interfaces/Time, an rclpy Time, or whole nanoseconds.

    Raises:
        SeedError: `stamp` is none of these.
    """
    if stamp is None:
        return Time()
    if isinstance(stamp, Frame):
        stamp = stamp.header
    for part in ('header', 'stamp'):
        stamp = getattr(stamp, part, stamp)
    nanoseconds = getattr(stamp, 'nanoseconds', stamp)
    if isinstance(nanoseconds, (int, np.integer)) and not isinstance(nanoseconds, bool):
        seconds, rest = divmod(int(nanoseconds), 1_000_000_000)
        if not -(2**31) <= seconds < 2**31:
            raise SeedError(f'the stamp {nanoseconds} ns is out of range: give nanoseconds since 1970')
        return Time(sec=seconds, nanosec=rest)
    if hasattr(stamp, 'sec') and hasattr(stamp, 'nanosec'):
        return Time(sec=stamp.sec, nanosec=stamp.nanosec)
    raise SeedError(
        f'stamp is {stamp!r}: give a Frame, a message, a header, a Time or whole nanoseconds; fractional seconds '
        'are not exact'
    )


def _pair(item: Any) -> tuple[Any, Any]:
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    raise SeedError(f"a seed is {item!r:.80}: give pairs such as ('cup', mask)")


def _message(target: Any, shape: Any) -> Seed:
    object_id, name = _target(target)
    text = f'{name!r}' if name else f'object {object_id}'
    seed = Seed(id=object_id, name=name)
    if isinstance(shape, Points):
        return _add_points(seed, shape, text)
    if isinstance(shape, (tuple, list)) and len(shape) == 4 and np.ndim(shape[0]) == 0:
        return _add_box(seed, Box(*shape), text)
    mask = np.asarray(shape)
    if mask.ndim == 1 and mask.size == 4 and mask.dtype != bool:
        return _add_box(seed, Box(*mask.tolist()), text)
    if mask.ndim != 2 or not mask.size or mask.dtype.kind not in 'biuf':
        raise SeedError(
            f'the seed of {text} is {_described(shape)}: give an H×W mask, Box(x, y, width, height) or Points(on, off)'
        )
    seed.kind = Seed.MASK
    seed.mask = image_from_array(np.where(mask != 0, np.uint8(255), np.uint8(0)), 'mono8', Image)
    return seed


def _target(target: Any) -> tuple[int, str]:
    """Split a target into id (0: a new object) and name."""
    object_id, name = target if isinstance(target, tuple) and len(target) == 2 else (0, target)
    if not isinstance(target, (str, tuple)):
        object_id, name = target, ''
    whole = isinstance(object_id, (int, np.integer)) and not isinstance(object_id, bool)
    if not isinstance(name, str) or not whole or not (isinstance(target, str) or 1 <= object_id <= _MOST):
        raise SeedError(
            f'the target of a seed is {target!r}: give a name for a new object, an id to correct, or (id, name)'
        )
    return int(object_id), name


def _add_box(seed: Seed, box: Box, text: str) -> Seed:
    numbers = np.asarray(box, np.float64)
    if not np.isfinite(numbers).all() or (numbers < 0).any() or (numbers > _MOST).any():
        raise SeedError(f'the box of {text} is {tuple(box)}: give x, y, width, height in px, clipped to the image')
    x, y = np.floor(numbers[:2]).astype(int)
    right, bottom = np.floor(numbers[:2] + numbers[2:]).astype(int)  # a box that ends at the image's edge stays inside
    seed.kind = Seed.BOX
    seed.box = RegionOfInterest(x_offset=int(x), y_offset=int(y), width=int(right - x), height=int(bottom - y))
    return seed


def _add_points(seed: Seed, points: Points, text: str) -> Seed:
    on, off = (_coordinates(part, text) for part in (points.on, points.off))
    seed.kind = Seed.POINTS
    seed.points = [Point32(x=x, y=y) for x, y in [*on, *off]]
    seed.point_labels = array.array('b', [1] * len(on) + [0] * len(off))
    return seed


def _coordinates(points: Any, text: str) -> list[tuple[float, float]]:
    try:
        numbers = np.asarray(points, np.float64)
    except (TypeError, ValueError):
        numbers = np.zeros((0, 0, 0))
    if numbers.size == 0 and numbers.ndim < 3:
        return []
    if numbers.shape == (2,):
        numbers = numbers[None]
    if numbers.ndim != 2 or numbers.shape[1] != 2 or not np.isfinite(numbers).all():
        raise SeedError(f'the points of {text} are {_described(points)}: give N pairs of x, y in px')
    return [(float(x), float(y)) for x, y in numbers]


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f'an array of shape {value.shape} and type {value.dtype}'
    return f'{value!r:.80}'
