# SPDX-License-Identifier: MIT
"""Time and box of each object when it was last visible. No ROS, no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xmem_ros.objects import ObjectState
from xmem_ros.stream.detection_policy import NO_OBJECTS, UnlocatedObjects

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from xmem_ros.objects import TrackedObject
    from xmem_ros.stream.detection_policy import Box
    from xmem_ros.stream.frame import Frame


class LastSeen:
    """Record of when and where objects were visible. Used in the worker's thread only."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all objects and the time."""
        self._now = 0.0  # time of the newest frame [s]; never decreases
        self._times: dict[int, float] = {}  # id → time when last visible [s]
        self._boxes: dict[int, Box] = {}  # id → box at that time

    def update(self, objects: Sequence[TrackedObject], now: float) -> None:
        """Record the objects of a frame at a time [s]; forget all other objects."""
        self._now = max(self._now, now)
        ids = {item.id for item in objects}
        self._times = {i: time for i, time in self._times.items() if i in ids}
        self._boxes = {i: box for i, box in self._boxes.items() if i in ids}
        for item in objects:
            # An object loaded from a memory file has no known time; it counts from now.
            self._times.setdefault(item.id, self._now)
            if item.state in (ObjectState.NEW, ObjectState.TRACKED) and item.box is not None:
                self._times[item.id], self._boxes[item.id] = self._now, item.box

    def unlocated(
        self, objects: Sequence[TrackedObject], frame: Frame, within: float, exclude: Container[int] = ()
    ) -> UnlocatedObjects:
        """Find the objects without a known box in a frame.

        - Lost: out of sight, last visible at most `within` seconds ago, and not in `exclude`.
        - Returned: visible now, without a pixel in the frame's labels. Unknown for a dropped frame.
        """
        if within <= 0:
            return NO_OBJECTS
        lost, returned = {}, {}
        pixels = None if frame.labels is None else np.bincount(frame.labels.ravel(), minlength=256)
        for item in objects:
            if item.state in (ObjectState.OCCLUDED, ObjectState.LOST):
                since = self._now - self._times.get(item.id, self._now)
                if since <= within and item.id not in exclude:
                    lost[item.id] = item.name
            elif pixels is not None and not (pixels[item.label] and frame.label_ids.get(item.label) == item.id):
                returned[item.id] = item.name
        return UnlocatedObjects(lost, returned, self._boxes)
