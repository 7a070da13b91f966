# SPDX-License-Identifier: MIT
"""What the node says of one image: its label image and its objects, brought together by their stamp. No rclpy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xmem_ros.conversions.images import mask_from_image, stamp_ns
from xmem_ros.errors import UnknownObjectError
from xmem_ros.objects import ObjectState, TrackedObject

_PENDING = 20  # images of which only one half has come


@dataclass(frozen=True)
class SeenObject(TrackedObject):
    """One object in one image, with its mask."""

    labels: np.ndarray = field(repr=False, compare=False)  # H×W uint8, of all objects

    @property
    def mask(self) -> np.ndarray:
        """H×W bool; all False where nothing is visible. Made anew by each use."""
        return self.labels == self.label

    @property
    def visible(self) -> bool:
        """Whether it has pixels in this image."""
        return self.box is not None


@dataclass(frozen=True)
class Frame:
    """What the node says of one image.

    `frame['cup']` and `frame[1]` are objects by name and by id.
    """

    header: Any  # std_msgs/Header of the image
    labels: np.ndarray = field(repr=False)  # H×W uint8, read-only; 0 = background, else an object's label
    objects: tuple[SeenObject, ...]  # in order of id
    processing_ms: float

    @property
    def stamp_ns(self) -> int:
        """When the image was taken [ns]."""
        return stamp_ns(self.header.stamp)

    @property
    def ids(self) -> list[int]:
        """Of all objects, visible or not."""
        return [item.id for item in self.objects]

    def get(self, which: int | str) -> SeenObject | None:
        """An object by id or by name, of several with one name the oldest; None where there is none."""
        return next((item for item in self.objects if which in (item.id, item.name)), None)

    def __getitem__(self, which: int | str) -> SeenObject:
        item = self.get(which)
        if item is None:
            known = ', '.join(f'{item.id} {item.name!r}' for item in self.objects) or 'none'
            raise UnknownObjectError(f'no object {which!r} is tracked in this image; tracked: {known}')
        return item

    def __contains__(self, which: int | str) -> bool:
        return self.get(which) is not None


class FramePairs:
    """Makes frames of ~/labels and ~/objects, whichever comes first. Belongs to one thread."""

    def __init__(self) -> None:
        self._pending: dict[tuple[int, str], dict[str, Any]] = {}

    def add(self, half: str, message: Any) -> Frame | None:
        """Add one half, 'labels' or 'objects'; returns the frame where the other is there already."""
        key = (stamp_ns(message.header.stamp), message.header.frame_id)
        halves = self._pending.setdefault(key, {})
        halves[half] = message
        if len(halves) == 2:
            del self._pending[key]
            return frame_of(halves['labels'], halves['objects'])
        while len(self._pending) > _PENDING:
            del self._pending[next(iter(self._pending))]
        return None

    def clear(self) -> None:
        """Forget halves that wait."""
        self._pending.clear()


def frame_of(labels_message: Any, objects_message: Any) -> Frame:
    """A frame, of sensor_msgs/Image and xmem_ros/TrackedObjectArray with the same header."""
    labels = mask_from_image(labels_message)
    labels.setflags(write=False)
    objects = tuple(_seen(item, labels) for item in objects_message.objects)
    return Frame(labels_message.header, labels, objects, objects_message.processing_ms)


def _seen(item: Any, labels: np.ndarray) -> SeenObject:
    box = item.box
    return SeenObject(
        id=item.id,
        label=item.label,
        name=item.name,
        state=ObjectState(item.state),
        score=item.score,
        box=(box.x_offset, box.y_offset, box.width, box.height) if box.width else None,
        area=item.area,
        centroid=(item.centroid_x, item.centroid_y),
        age=item.age,
        absent=item.absent,
        labels=labels,
    )
