# SPDX-License-Identifier: MIT
"""Which boxes of a detector become objects. No ROS, no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xmem_ros.checks import LARGEST_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from xmem_ros.parameters.table import SeedDetectionParameters

Box = tuple[int, int, int, int]  # x, y, width, height [px]

MOST_CANDIDATES = 1000  # of a message; every one is compared with every object


@dataclass(frozen=True)
class Candidate:
    """What a detector saw."""

    name: str  # its class; empty: not said
    score: float
    box: tuple[float, float, float, float]  # left, top, right, bottom [px]


def candidates_of(message: Any, policy: SeedDetectionParameters) -> list[Candidate]:
    """Of a vision_msgs/Detection2DArray, what is of an allowed class and likely enough; the likeliest first.

    The likeliest hypothesis counts; a detection without any has no class and a score of 0. A box that is no box, with
    NaN or without a size, is left out; one that is turned becomes the upright box around it.
    """
    found = []
    for detection in message.detections:
        best = max((item.hypothesis for item in detection.results), key=lambda item: item.score, default=None)
        name, score = (best.class_id, best.score) if best is not None else ('', 0.0)
        name = name[:LARGEST_NAME]  # every message about the object holds it
        box = _corners(detection.bbox)
        if box is not None and score >= policy.min_score and (not policy.classes or name in policy.classes):
            found.append(Candidate(name, score, box))
    return sorted(found, key=lambda item: -item.score)[:MOST_CANDIDATES]


@dataclass(frozen=True)
class Unplaced:
    """Objects of which no box is known in a frame."""

    lost: Mapping[int, str]  # id → name; out of sight, but seen not long ago
    back: Mapping[int, str]  # id → name; seen again, or begun, since that frame
    places: Mapping[int, Box] = field(default_factory=dict)  # id → where it was last in sight

    def like(self, name: str) -> bool:
        """Whether one of them has that name."""
        return name in self.lost.values() or name in self.back.values()


NOBODY = Unplaced({}, {})


def choose(
    candidates: Iterable[Candidate],
    known: Iterable[Box],
    size: tuple[int, int],
    max_iou: float,
    most: int,
    room: int | None = None,
    unplaced: Unplaced = NOBODY,
) -> list[tuple[Candidate, Box]]:
    """Those that are nowhere near anything known, at most `most`, with their boxes in the image.

    Args:
        candidates: in the order in which they are taken.
        known: boxes of what is tracked.
        size: H, W of the image [px].
        max_iou: with a known box, or one that was chosen before, from which on it is the same thing.
        most: that are chosen.
        room: for new objects; None: enough. Those that may be objects out of sight need none.
        unplaced: objects that candidates of their name may be.
    """
    taken, left = list(known), most if room is None else room
    chosen: list[tuple[Candidate, Box]] = []
    for candidate in candidates:
        if len(chosen) >= most:
            break
        new = not unplaced.like(candidate.name)
        box = _within(candidate.box, size) if left > 0 or not new else None
        if box is not None and all(iou(box, other) < max_iou for other in taken):
            taken.append(box)
            chosen.append((candidate, box))
            left -= new
    return chosen


def recognise(
    chosen: Sequence[tuple[Candidate, Box]],
    unplaced: Unplaced,
    likeness: Mapping[int, Sequence[float]],
    policy: SeedDetectionParameters,
    room: int,
) -> list[int | None]:
    """Which object each of some candidates is: an id, 0 for a new one, None for one that is to be left alone.

    A candidate is an object of its name that it looks like, or that was last in sight where it is. Such pairs come
    first, then those that are most alike, each candidate and each object once. What is an object that is seen again by
    now is left alone, and so is what is new beyond the room.

    Args:
        chosen: candidates with their boxes, the likeliest first.
        unplaced: objects that they may be.
        likeness: id → how much each candidate looks like that object; of objects of the candidates' names.
        policy: from which likeness on, and from which intersection over union on, they are the same.
        room: for new objects.
    """
    pairs = []
    for object_id, name in (*unplaced.lost.items(), *unplaced.back.items()):
        place = unplaced.places.get(object_id)
        for number, (candidate, box) in enumerate(chosen):
            if candidate.name == name:
                there = place is not None and iou(box, place) >= policy.max_iou
                alike = likeness[object_id][number]
                if there or alike >= policy.min_likeness:
                    pairs.append((there, alike, object_id, number))
    found: dict[int, int] = {}
    for *_, object_id, number in sorted(pairs, key=lambda pair: pair[:2], reverse=True):
        if number not in found and object_id not in found.values():
            found[number] = object_id
    result: list[int | None] = []
    for number in range(len(chosen)):
        object_id = found.get(number, 0)
        if object_id:
            result.append(object_id if object_id in unplaced.lost else None)
        else:
            result.append(0 if room > 0 else None)
            room -= 1
    return result


def iou(first: Sequence[int], second: Sequence[int]) -> float:
    """Intersection over union of two boxes x, y, width, height."""
    across = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    down = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    common = max(across, 0) * max(down, 0)
    return common / max(first[2] * first[3] + second[2] * second[3] - common, 1)


def _corners(bbox: Any) -> tuple[float, float, float, float] | None:
    x, y, theta = bbox.center.position.x, bbox.center.position.y, bbox.center.theta
    width, height = bbox.size_x, bbox.size_y
    if not all(map(math.isfinite, (x, y, theta, width, height))) or min(width, height) <= 0:
        return None
    cosine, sine = abs(math.cos(theta)), abs(math.sin(theta))
    across, down = (cosine * width + sine * height) / 2, (sine * width + cosine * height) / 2
    return x - across, y - down, x + across, y + down


def _within(corners: tuple[float, float, float, float], size: tuple[int, int]) -> Box | None:
    """The whole pixels of an image that a box covers mostly; None where there is none."""
    height, width = size
    left, right = (round(min(max(value, 0), width)) for value in corners[::2])
    top, bottom = (round(min(max(value, 0), height)) for value in corners[1::2])
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None
