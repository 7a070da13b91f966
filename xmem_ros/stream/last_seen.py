# SPDX-License-Identifier: MIT
"""When and where each object was last in sight. No ROS, no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xmem_ros.objects import ObjectState
from xmem_ros.stream.detection_policy import NOBODY, Unplaced

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from xmem_ros.objects import TrackedObject
    from xmem_ros.stream.detection_policy import Box
    from xmem_ros.stream.frame import Frame


class Sightings:
    """Belongs to the worker's thread."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all objects, and the time."""
        self._now = 0.0  # s, of the newest frame; never runs backwards
        self._seen: dict[int, float] = {}  # id → when it was last in sight
        self._places: dict[int, Box] = {}  # id → where it was then

    def note(self, objects: Sequence[TrackedObject], now: float) -> None:
        """A frame of this time [s] shows these objects; of others nothing is kept."""
        self._now = max(self._now, now)
        ids = {item.id for item in objects}
        self._seen = {i: seen for i, seen in self._seen.items() if i in ids}
        self._places = {i: box for i, box in self._places.items() if i in ids}
        for item in objects:
            self._seen.setdefault(item.id, self._now)  # out of a file, and out of sight since who knows when
            if item.state in (ObjectState.NEW, ObjectState.TRACKED) and item.box is not None:
                self._seen[item.id], self._places[item.id] = self._now, item.box

    def unplaced(
        self, objects: Sequence[TrackedObject], frame: Frame, within: float, without: Container[int] = ()
    ) -> Unplaced:
        """Objects that a thing in a frame may be, though no box says so.

        Those out of sight that were seen within so many seconds, but for the ids `without`, and those that are in sight
        now, but had no pixel when the frame was tracked. Of a frame that was dropped, the latter are not known.
        """
        if within <= 0:
            return NOBODY
        lost, back = {}, {}
        pixels = None if frame.labels is None else np.bincount(frame.labels.ravel(), minlength=256)
        for item in objects:
            if item.state in (ObjectState.OCCLUDED, ObjectState.LOST):
                since = self._now - self._seen.get(item.id, self._now)
                if since <= within and item.id not in without:
                    lost[item.id] = item.name
            elif pixels is not None and not (pixels[item.label] and frame.label_ids.get(item.label) == item.id):
                back[item.id] = item.name
        return Unplaced(lost, back, self._places)
