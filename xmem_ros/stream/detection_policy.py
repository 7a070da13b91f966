# SPDX-License-Identifier: MIT
"""Policy for seeds from a detector: candidate boxes, and the objects they belong to. No ROS."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xmem_ros.checks import LARGEST_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from xmem_ros.parameters.groups import SeedDetectionParameters

Box = tuple[int, int, int, int]  # x, y, width, height [px]

MAX_CANDIDATES = 1000  # of a message; each is compared with every object


@dataclass(frozen=True)
class Candidate:
    """A candidate box of a detector."""

    name: str  # class; empty: unknown
    score: float
    box: tuple[float, float, float, float]  # left, top, right, bottom [px]


def candidates_of(message: Any, policy: SeedDetectionParameters) -> list[Candidate]:
    """Read the candidates with an allowed class and score, in descending order of score.

    - The likeliest hypothesis counts. A detection without one has no class and a score of 0.
    - A box with NaN or without a size is left out.
    - A rotated box becomes the upright box around it.

    Args:
        message: vision_msgs/Detection2DArray.
        policy: allowed classes and minimum score.
    """
    found = []
    for detection in message.detections:
        best = max((item.hypothesis for item in detection.results), key=lambda item: item.score, default=None)
        name, score = (best.class_id, best.score) if best is not None else ('', 0.0)
        name = name[:LARGEST_NAME]  # every message about the object repeats it
        box = _corners(detection.bbox)
        if box is not None and score >= policy.min_score and (not policy.classes or name in policy.classes):
            found.append(Candidate(name, score, box))
    return sorted(found, key=lambda item: -item.score)[:MAX_CANDIDATES]


@dataclass(frozen=True)
class UnlocatedObjects:
    """Objects without a known box in a frame."""

    lost: Mapping[int, str]  # id → name; out of sight, but visible not long ago
    returned: Mapping[int, str]  # id → name; visible again, or started, since that frame
    last_boxes: Mapping[int, Box] = field(default_factory=dict)  # id → box when last visible

    def has_name(self, name: str) -> bool:
        """Tell whether one of the objects has this name."""
        return name in self.lost.values() or name in self.returned.values()


NO_OBJECTS = UnlocatedObjects({}, {})


def select_candidates(
    candidates: Iterable[Candidate],
    known: Iterable[Box],
    size: tuple[int, int],
    max_iou: float,
    limit: int,
    room: int | None = None,
    unlocated: UnlocatedObjects = NO_OBJECTS,
) -> list[tuple[Candidate, Box]]:
    """Select candidates that do not overlap known boxes; return them with their boxes in the image.

    Args:
        candidates: in order of preference.
        known: boxes of tracked objects.
        size: H, W of the image [px].
        max_iou: IoU from which a candidate belongs to a known box or an earlier candidate.
        limit: maximum number of candidates.
        room: number of new objects allowed; None: no limit. A candidate with the name of an
            unlocated object needs no room.
        unlocated: objects to which candidates of their name may belong.
    """
    occupied, left = list(known), limit if room is None else room
    selected: list[tuple[Candidate, Box]] = []
    for candidate in candidates:
        if len(selected) >= limit:
            break
        new = not unlocated.has_name(candidate.name)
        box = _clipped(candidate.box, size) if left > 0 or not new else None
        if box is not None and all(iou(box, other) < max_iou for other in occupied):
            occupied.append(box)
            selected.append((candidate, box))
            left -= new
    return selected


def assign_ids(
    selected: Sequence[tuple[Candidate, Box]],
    unlocated: UnlocatedObjects,
    likeness: Mapping[int, Sequence[float]],
    policy: SeedDetectionParameters,
    room: int,
) -> list[int | None]:
    """Assign an object to each candidate.

    A candidate matches an object of its name by its position (`max_iou` with the last box) or by
    its likeness (`min_likeness`). Matches by position come first, then those of higher likeness.
    Each candidate and each object is used once.

    Args:
        selected: candidates with their boxes, the likeliest first.
        unlocated: objects to which they may belong.
        likeness: id → likeness of each candidate to that object, −1…1; at least for the objects
            with a candidate's name.
        policy: `max_iou` and `min_likeness`.
        room: number of new objects allowed.

    Returns:
        For each candidate: the id of a lost object, 0 for a new object, or None to ignore it. A
        candidate is ignored if its object is visible again, or if there is no room for a new one.
    """
    pairs = []
    for object_id, name in (*unlocated.lost.items(), *unlocated.returned.items()):
        last_box = unlocated.last_boxes.get(object_id)
        for number, (candidate, box) in enumerate(selected):
            if candidate.name == name:
                in_place = last_box is not None and iou(box, last_box) >= policy.max_iou
                similarity = likeness[object_id][number]
                if in_place or similarity >= policy.min_likeness:
                    pairs.append((in_place, similarity, object_id, number))
    matches: dict[int, int] = {}
    for *_, object_id, number in sorted(pairs, key=lambda pair: pair[:2], reverse=True):
        if number not in matches and object_id not in matches.values():
            matches[number] = object_id
    result: list[int | None] = []
    for number in range(len(selected)):
        object_id = matches.get(number, 0)
        if object_id:
            result.append(object_id if object_id in unlocated.lost else None)
        else:
            result.append(0 if room > 0 else None)
            room -= 1
    return result


def iou(first: Sequence[int], second: Sequence[int]) -> float:
    """Return the intersection over union of two boxes x, y, width, height."""
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


def _clipped(corners: tuple[float, float, float, float], size: tuple[int, int]) -> Box | None:
    """Round a box to whole pixels and clip it to an image; None if nothing is left."""
    height, width = size
    left, right = (round(min(max(value, 0), width)) for value in corners[::2])
    top, bottom = (round(min(max(value, 0), height)) for value in corners[1::2])
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None
