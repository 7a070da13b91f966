# SPDX-License-Identifier: MIT
"""Figures of a tracked recording: how its masks and those of a reference overlap, frame by frame.

vos-benchmark, which scores evaluations, gives means over a sequence in which ids are known beforehand. Here they are
not, and what counts is also when an object was right; the mean is the same J (tests compare the two).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from xmem_ros.errors import ParameterError, listed, quoted
from xmem_ros.media import VOID
from xmem_ros.regress.figures import LOST_AFTER, RIGHT_IOU, Figures

if TYPE_CHECKING:
    from xmem_ros.objects import TrackedObject


@dataclass(frozen=True)
class Overlap:
    """One frame's masks beside the reference's; all areas in px, without what is void in the reference.

    Attributes:
        frame: name of the frame.
        truth: value in the reference → area.
        found: id → area; 0 for an object without pixels.
        both: (value, id) → area of the intersection.
        ages: id → frames since the object's first seed.
        names: id → name.
        removed: ids that are gone because the plan of the seeds removed them.
    """

    frame: str
    truth: dict[int, int]
    found: dict[int, int]
    both: dict[tuple[int, int], int]
    ages: dict[int, int]
    names: dict[int, str] = field(default_factory=dict)
    removed: frozenset[int] = frozenset()

    def iou(self, value: int, key: int | None) -> float:
        """Intersection over union of a reference object and an id; 1 where neither has pixels."""
        first, second = self.truth.get(value, 0), self.found.get(key, 0) if key is not None else 0
        shared = self.both.get((value, key), 0) if key is not None else 0
        union = first + second - shared
        return shared / union if union else 1.0

    def match(self, value: int) -> int | None:
        """The id whose mask is the same thing as a reference object, None where there is none."""
        return next((key for key in self.found if self.truth.get(value) and self.iou(value, key) > RIGHT_IOU), None)


def overlap(
    frame: str,
    labels: np.ndarray,
    objects: Iterable[TrackedObject],
    truth: np.ndarray,
    removed: frozenset[int] = frozenset(),
) -> Overlap:
    """Compare the labels of a frame with a reference, both H×W uint8; 255 in the reference is void."""
    tracked = list(objects)
    pairs = truth.astype(np.intp) * 256 + labels
    counts = np.bincount(pairs.ravel(), minlength=256 * 256).reshape(256, 256)
    counts[VOID] = 0
    areas, label_areas = counts.sum(axis=1), counts.sum(axis=0)
    values = [int(value) for value in np.flatnonzero(areas) if value]
    return Overlap(
        frame=frame,
        truth={value: int(areas[value]) for value in values},
        found={item.id: int(label_areas[item.label]) for item in tracked},
        both={
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
    """How one reference object fared.

    Attributes:
        value: in the reference.
        name: of the object.
        key: the id that is its own; None: no id ever was.
        iou: of each frame that counts, by the frame's name.
        switches: see `id_switches` in `FIGURES`.
        recovery: see `recovery_frames`; None where it was never absent.
        lost: see `lost_objects`.
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

    An object's own id is the one of its name, where `names` says that; else the one that it is matched with first.
    Frames count from the one after its id was seeded on (a seed is given, not found), also those in which the id is no
    longer there, unless the plan removed it; and for an object that no id is matched with, from the second frame on in
    which anything is tracked. A frame in which the reference shows fewer
    than `min_area` px of the object, but some, does not count for it. An object that no frame counts for is left out.

    Arguments:
        frames: that the reference has masks for, in order.
        names: value in the reference → name of the tracked object; other values are left out then. Empty: all count.
        min_area: px.

    Raises:
        ParameterError: no tracked object has one of the names.
    """
    names = names or {}
    tracked = sorted({name for frame in frames for name in frame.names.values()})
    for value, name in names.items():
        if name not in tracked:
            raise ParameterError(
                f'reference.objects says that {value} is {quoted(name)}, but no object of that name was tracked; those '
                f'that were: {listed([quoted(found) for found in tracked]) or "none"}'
            )
    values = sorted(set(names) or {value for frame in frames for value in frame.truth})
    scored = [_score_object(frames, value, names.get(value), min_area) for value in values]
    scored = [item for item in scored if item.iou]
    often = Counter(item.name for item in scored)
    for item in scored:
        if often[item.name] > 1:
            item.name = f'{item.name} {item.value}'
    return scored


def figures_of(objects: Sequence[ObjectScore]) -> Figures:
    """The figures that masks alone give, of at least one object."""
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
    right: list[bool] = []  # in the frames that show it
    matched: int | None = None
    for frame in frames:
        if (now := frame.match(value)) is not None:
            scored.switches += matched is not None and now != matched
            matched = now
    recovering: int | None = None  # frames since it came back, while it is not right
    absent = False
    for frame in _counted(frames, key):
        area = frame.truth.get(value, 0)
        if 0 < area < min_area:
            continue
        iou = frame.iou(value, key)
        scored.iou[frame.frame] = iou
        if not area:
            absent, recovering = True, None
            continue
        right.append(iou > RIGHT_IOU)
        if absent:
            absent, recovering = False, 0
        if recovering is not None:
            recovering += not right[-1]
            scored.recovery = max(scored.recovery or 0, recovering)
            recovering = None if right[-1] else recovering
    scored.lost = key is None or (bool(right) and not any(right[-LOST_AFTER:]))
    return scored


def _own_id(frames: Sequence[Overlap], value: int, name: str | None) -> int | None:
    if name is not None:
        return next((key for frame in frames for key, found in frame.names.items() if found == name), None)
    return next((key for frame in frames if (key := frame.match(value)) is not None), None)


def _counted(frames: Sequence[Overlap], key: int | None) -> list[Overlap]:
    """The frames that an id, or what has none, is answerable for. Being forgotten is no excuse; being removed is."""
    found = []
    seeded: set[int] = set()
    for frame in frames:
        now = {item for item, age in frame.ages.items() if age > 0}
        due = now | (seeded - frame.ages.keys() - frame.removed)
        if key in due or (key is None and due):
            found.append(frame)
        seeded.update(frame.ages)
    return found
