# SPDX-License-Identifier: MIT
"""Join of a forward and a backward pass into one result for each image. No rclpy.

- Before its first seed an object has the backward mask, after its last seed the forward one.
- Between two seeds it changes from the forward to the backward mask at the image where the two
  agree best: highest intersection over union; if equal, nearest to the middle, then the earlier.
- Where objects overlap, seeds of this image win, then the higher score, then the lower id.
"""

from __future__ import annotations

import bisect
import dataclasses
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from xmem_ros.objects import MOST_OBJECTS, ObjectState, TrackedObject
from xmem_ros.offline.segments import StoredFrame, lookup_of
from xmem_ros.progress import Bar
from xmem_ros.recordings import typestore
from xmem_ros.recordings.typestore import ACCEPTED_SEEDS
from xmem_ros.tracker.geometry import outline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xmem_ros.offline.segments import Segments


@dataclass
class _Gap:
    """Images of an object since its latest seed."""

    seed: int  # index of its image
    images: array[int] = field(default_factory=lambda: array('q'))
    agreement: array[float] = field(default_factory=lambda: array('f'))  # of the two masks in each

    def backward_from(self, end: int) -> int:
        """Return the first index of the backward masks; end: index of the next seed."""
        if not self.images:
            return end
        agreement = np.asarray(self.agreement)
        best = np.asarray(self.images)[agreement == agreement.max()]
        return int(best[np.abs(2 * best - self.seed - end).argmin()]) + 1


def agreement_of(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection over union of two masks H×W bool; 1 if both are empty."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0


class Join:
    """Joined results of both passes; reads them once to find where each object changes.

    All objects of the forward pass, and no others, have their ids and values of that pass. Their
    labels can differ from it: each id has a label of its own.

    Arguments:
        forward: results of the forward pass.
        backward: results of the backward pass.
        last: index of the image where the backward pass begins.
        min_part_share: parameter, for boxes.
        count: number of images, for the progress bar.
    """

    def __init__(self, forward: Segments, backward: Segments, last: int, *, min_part_share: float, count: int) -> None:
        self._forward, self._backward, self._last = forward, backward, last
        self._min_part_share = min_part_share
        self._label_of: dict[int, int] = {}
        self._stretches: dict[int, list[range]] = {}  # id → images with the backward mask between two seeds
        # id → index of each first seed, and the object there in the forward and the backward pass
        self._begins: dict[int, list[tuple[int, TrackedObject, TrackedObject]]] = {}
        gaps: dict[int, _Gap] = {}
        for one, other in Bar(self._pairs(), total=count, unit='image', desc='joining'):
            self._examine(one, other, gaps)
        self._assign_free_labels()

    def frames(self) -> Iterator[StoredFrame]:
        """Yield the joined results of each image of the forward pass, in order."""
        for forward, backward in self._pairs():
            yield self._relabelled(forward) if backward is None else self._joined(forward, backward)

    def _pairs(self) -> Iterator[tuple[StoredFrame, StoredFrame | None]]:
        """Yield the frames of both passes of each image; None where there is no backward one."""
        reverse = self._backward.frames(newest_first=True)
        due = next(reverse, None)
        for forward in self._forward.frames():
            while due is not None and self._last - due.index < forward.index:
                due = next(reverse, None)
            yield forward, due if due is not None and self._last - due.index == forward.index else None

    def _examine(self, forward: StoredFrame, backward: StoredFrame | None, gaps: dict[int, _Gap]) -> None:
        """Add an image to the open gaps, and close those of the objects that are seeded in it."""
        others = {item.id: item for item in backward.objects} if backward is not None else {}
        for object_id in set(gaps) - {item.id for item in forward.objects}:
            del gaps[object_id]
        for item in forward.objects:
            if item.id not in self._label_of:
                taken = item.label in self._label_of.values()
                self._label_of[item.id] = 0 if taken else item.label
            other = others.get(item.id)
            if item.id not in forward.seeded:
                if backward is not None and other is not None and item.id in gaps:
                    gaps[item.id].images.append(forward.index)
                    masks = (forward.labels == item.label, backward.labels == other.label)
                    gaps[item.id].agreement.append(agreement_of(*masks))
                continue
            if item.frames_since_seed == 0:
                if other is not None:
                    self._begins.setdefault(item.id, []).append((forward.index, item, other))
            elif item.id in gaps:
                stretch = range(gaps[item.id].backward_from(forward.index), forward.index)
                self._stretches.setdefault(item.id, []).append(stretch)
            gaps[item.id] = _Gap(forward.index)

    def _assign_free_labels(self) -> None:
        """Give a label to objects whose own belongs to another one, after a removal or a reset."""
        taken = set(self._label_of.values())
        free = (label for label in range(1, MOST_OBJECTS + 1) if label not in taken)
        self._label_of = {i: label or next(free) for i, label in self._label_of.items()}

    def _joined(self, forward: StoredFrame, backward: StoredFrame) -> StoredFrame:
        found = {item.id: (item, forward) for item in forward.objects}
        for item in backward.objects:
            mine, _ = found.get(item.id, (None, forward))
            if mine is None:
                begun = self._begun(item, forward.index)
                if begun is not None:
                    found[item.id] = (begun, backward)
            elif self._is_backward(item.id, forward.index):
                times = {name: getattr(mine, name) for name in ('name', 'frames_since_seed', 'time_since_seed')}
                found[item.id] = (dataclasses.replace(item, **times), backward)
        if all(source is forward for _, source in found.values()):
            return self._relabelled(forward)
        order = sorted(found.values(), key=lambda pair: (pair[0].id in forward.seeded, pair[0].score, -pair[0].id))
        labels, values = np.zeros_like(forward.labels), np.zeros_like(forward.values)
        value_of: dict[int, int] = {}
        for item, source in order:
            value_of[item.id] = source.value_of[item.id]
            labels[source.labels == item.label] = self._label_of[item.id]
            values[source.values == value_of[item.id]] = value_of[item.id]
        objects = [self._measured(item, labels) for item, _ in order]
        objects.sort(key=lambda item: item.id)
        value_of = {item.id: value_of[item.id] for item in objects}
        seeds = self._relabelled_seeds(forward)
        return dataclasses.replace(
            forward, labels=labels, values=values, objects=objects, value_of=value_of, seeds=seeds
        )

    def _is_backward(self, object_id: int, index: int) -> bool:
        """Return whether an object between two seeds has the backward mask in an image."""
        stretches = self._stretches.get(object_id, [])
        place = bisect.bisect(stretches, index, key=lambda images: images.start)
        return place > 0 and index in stretches[place - 1]

    def _begun(self, item: TrackedObject, index: int) -> TrackedObject | None:
        """Return an object as before its first seed after an image; None if it is never seeded.

        Its times since the seed are those until it.
        """
        begins = self._begins.get(item.id, [])
        place = bisect.bisect(begins, index, key=lambda begin: begin[0])
        if place == len(begins):
            return None
        _, mine, other = begins[place]
        return dataclasses.replace(
            item,
            name=mine.name,
            frames_since_seed=max(item.frames_since_seed - other.frames_since_seed, 0),
            time_since_seed=max(item.time_since_seed - other.time_since_seed, 0.0),
        )

    def _measured(self, item: TrackedObject, labels: np.ndarray) -> TrackedObject:
        """Return an object with its joined label; measure it again if it has lost pixels."""
        label = self._label_of[item.id]
        inside = (labels == label).astype(np.uint8)
        area = cv2.countNonZero(inside)
        if area == item.area:
            return dataclasses.replace(item, label=label)
        box, centroid = outline(inside, self._min_part_share)
        state = item.state if area or item.state == ObjectState.LOST else ObjectState.OCCLUDED
        return dataclasses.replace(item, label=label, area=area, box=box, centroid=centroid, state=state)

    def _relabelled(self, frame: StoredFrame) -> StoredFrame:
        """Return a frame of the forward pass with the joined labels."""
        if not self._changed(frame.objects):
            return frame
        lookup = lookup_of(frame.objects, self._label_of)
        objects = [dataclasses.replace(item, label=self._label_of[item.id]) for item in frame.objects]
        seeds = self._relabelled_seeds(frame)
        return dataclasses.replace(frame, labels=lookup[frame.labels], objects=objects, seeds=seeds)

    def _relabelled_seeds(self, frame: StoredFrame) -> list[bytes]:
        if not self._changed(frame.objects):
            return frame.seeds
        seeds = []
        for raw in frame.seeds:
            message = typestore.deserialize(raw, ACCEPTED_SEEDS)
            message.labels = np.array([self._label_of[int(i)] for i in message.ids], np.uint8)
            seeds.append(typestore.serialize(message))
        return seeds

    def _changed(self, objects: Iterable[TrackedObject]) -> bool:
        return any(self._label_of[item.id] != item.label for item in objects)
