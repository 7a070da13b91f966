# SPDX-License-Identifier: MIT
"""Overlap of tracked and reference masks, frame by frame, and the figures from it.

vos-benchmark, which scores evaluations, requires known ids and returns means over a sequence. A
regression test has to match ids and to find the frames with errors. The mean is the same J; a
test compares them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from xmem_ros.errors import ParameterError, listed, quoted
from xmem_ros.media import VOID
from xmem_ros.regress.figures import CORRECT_IOU, LOST_AFTER, Figures

if TYPE_CHECKING:
    from xmem_ros.objects import TrackedObject


@dataclass(frozen=True)
class Overlap:
    """Areas of tracked and reference masks in a frame, px, outside void pixels of the reference.

    Attributes:
        frame: name of the frame.
        reference: value in the reference → area.
        tracked: id → area; 0 for an object without pixels.
        intersections: (value, id) → area of the intersection.
        ages: id → frames since the object's first seed.
        names: id → name.
        removed: ids that the seed plan has removed.
    """

    frame: str
    reference: dict[int, int]
    tracked: dict[int, int]
    intersections: dict[tuple[int, int], int]
    ages: dict[int, int]
    names: dict[int, str] = field(default_factory=dict)
    removed: frozenset[int] = frozenset()

    def iou(self, value: int, key: int | None) -> float:
        """Return the IoU of a reference object and an id; 1 if both are empty."""
        first, second = self.reference.get(value, 0), self.tracked.get(key, 0) if key is not None else 0
        shared = self.intersections.get((value, key), 0) if key is not None else 0
        union = first + second - shared
        return shared / union if union else 1.0

    def match(self, value: int) -> int | None:
        """Return the id whose mask matches a reference object; None without a match."""
        if not self.reference.get(value):
            return None
        return next((key for key in self.tracked if self.iou(value, key) > CORRECT_IOU), None)


def overlap(
    frame: str,
    labels: np.ndarray,
    objects: Iterable[TrackedObject],
    reference: np.ndarray,
    removed: frozenset[int] = frozenset(),
) -> Overlap:
    """Compare labels with a reference mask, both H×W uint8; 255 in the reference is void."""
    tracked = list(objects)
    pairs = reference.astype(np.intp) * 256 + labels
    counts = np.bincount(pairs.ravel(), minlength=256 * 256).reshape(256, 256)
    counts[VOID] = 0
    areas, label_areas = counts.sum(axis=1), counts.sum(axis=0)
    values = [int(value) for value in np.flatnonzero(areas) if value]
    return Overlap(
        frame=frame,
        reference={value: int(areas[value]) for value in values},
        tracked={item.id: int(label_areas[item.label]) for item in tracked},
        intersections={
            (value, item.id): int(shared)
            for value in values
            for item in tracked
            if (shared := counts[value, item.label])
        },
        ages={item.id: item.frames_since_seed for item in tracked},
        names={item.id: item.name for item in tracked},
        removed=removed,
    )


@dataclass
class ObjectScore:
    """Score of one reference object.

    Attributes:
        value: in the reference.
        name: of the object.
        key: its id; None: never matched.
        iou: name of the frame → IoU, for each frame that counts.
        switches: `id_switches` of `FIGURES`.
        recovery: `recovery_frames`; None: never absent.
        lost: `lost_objects`.
    """

    value: int
    name: str
    key: int | None = None
    iou: dict[str, float] = field(default_factory=dict)
    switches: int = 0
    recovery: int | None = None
    lost: bool = False

    @property
    def mean(self) -> float:
        """Mean IoU."""
        return float(np.mean(list(self.iou.values())))


def score(frames: Sequence[Overlap], names: Mapping[int, str] | None = None, min_area: int = 16) -> list[ObjectScore]:
    """Score every object of the reference.

    The id of an object is the one with its name in `names`, else its first match. These frames
    count for an object:

    - with an id, all after the frame of its first seed, unless the plan has removed the id;
    - without an id, all in which any object is past the frame of its seed and not removed;
    - never those in which the reference shows the object, but with less than `min_area` px.

    Objects without such frames are omitted.

    Arguments:
        frames: with reference masks, in order.
        names: value in the reference → name of the tracked object; other values are ignored.
            Empty: all values, by their matches.
        min_area: px.

    Raises:
        ParameterError: no tracked object has one of the names.
    """
    names = names or {}
    tracked = sorted({name for frame in frames for name in frame.names.values()})
    for value, name in names.items():
        if name not in tracked:
            raise ParameterError(
                f'reference.objects: no tracked object has the name {quoted(name)} of the value {value}; tracked are '
                f'{listed([quoted(found) for found in tracked]) or "none"}'
            )
    values = sorted(set(names) or {value for frame in frames for value in frame.reference})
    scored = [_score_object(frames, value, names.get(value), min_area) for value in values]
    scored = [item for item in scored if item.iou]
    counts = Counter(item.name for item in scored)
    for item in scored:
        if counts[item.name] > 1:
            item.name = f'{item.name} {item.value}'
    return scored


def figures_of(objects: Sequence[ObjectScore]) -> Figures:
    """Return the figures of the masks; at least one object."""
    found: Figures = {'mean_iou': float(np.mean([item.mean for item in objects]))}
    found |= {f'object_iou.{item.name}': item.mean for item in objects}
    found['id_switches'] = sum(item.switches for item in objects)
    if recoveries := [item.recovery for item in objects if item.recovery is not None]:
        found['recovery_frames'] = max(recoveries)
    found['lost_objects'] = sum(item.lost for item in objects)
    return found


def _score_object(frames: Sequence[Overlap], value: int, name: str | None, min_area: int) -> ObjectScore:
    key = _own_id(frames, value, name)
    found = next((frame.names[key] for frame in frames if key in frame.names), '') if key is not None else ''
    scored = ObjectScore(value, name or found or f'object {value}', key)
    correct: list[bool] = []  # for each frame that shows it
    matched: int | None = None
    for frame in frames:
        if (now := frame.match(value)) is not None:
            scored.switches += matched is not None and now != matched
            matched = now
    recovering: int | None = None  # wrong frames since its return
    absent = False
    for frame in _counted(frames, key):
        area = frame.reference.get(value, 0)
        if 0 < area < min_area:
            continue
        iou = frame.iou(value, key)
        scored.iou[frame.frame] = iou
        if not area:
            absent, recovering = True, None
            continue
        correct.append(iou > CORRECT_IOU)
        if absent:
            absent, recovering = False, 0
        if recovering is not None:
            recovering += not correct[-1]
            scored.recovery = max(scored.recovery or 0, recovering)
            recovering = None if correct[-1] else recovering
    scored.lost = key is None or (bool(correct) and not any(correct[-LOST_AFTER:]))
    return scored


def _own_id(frames: Sequence[Overlap], value: int, name: str | None) -> int | None:
    if name is not None:
        return next((key for frame in frames for key, found in frame.names.items() if found == name), None)
    return next((key for frame in frames if (key := frame.match(value)) is not None), None)


def _counted(frames: Sequence[Overlap], key: int | None) -> list[Overlap]:
    """Return the frames that count for an id, or for an object without one; see `score`."""
    found = []
    seeded: set[int] = set()
    for frame in frames:
        now = {item for item, age in frame.ages.items() if age > 0}
        due = now | (seeded - frame.ages.keys() - frame.removed)
        if key in due or (key is None and due):
            found.append(frame)
        seeded.update(frame.ages)
    return found
