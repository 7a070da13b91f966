# SPDX-License-Identifier: MIT
"""Frames of the node: label image and objects of one image, paired by stamp. No rclpy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xmem_ros.conversions.images import mask_from_image, stamp_ns
from xmem_ros.conversions.objects import object_of, seconds_of
from xmem_ros.errors import FrameError, UnknownObjectError
from xmem_ros.objects import TrackedObject

MOST_OBJECTS = 254  # number of labels, see xmem_ros/TrackedObject
_PENDING = 20  # frames of which only one message has arrived
_PENDING_BYTES = 256 * 2**20  # size of their label images


@dataclass(frozen=True)
class SeenObject(TrackedObject):
    """An object in a frame, with its mask."""

    labels: np.ndarray = field(repr=False, compare=False)  # H×W uint8, label image of all objects

    @property
    def mask(self) -> np.ndarray:
        """Mask, H×W bool; all False if the object is not visible. Computed on each access."""
        return self.labels == self.label

    @property
    def visible(self) -> bool:
        """Whether the object has pixels in this image."""
        return self.box is not None


@dataclass(frozen=True)
class Frame:
    """Result of the node for one image.

    `frame['cup']` and `frame[1]` give an object by name and by id.
    """

    header: Any  # std_msgs/Header of the image
    labels: np.ndarray = field(repr=False)  # H×W uint8, read-only; 0: background, else an object's label
    objects: tuple[SeenObject, ...]  # sorted by id
    processing_ms: float  # from dequeuing the image to publishing the objects

    @property
    def stamp_ns(self) -> int:
        """Stamp of the image [ns]."""
        return stamp_ns(self.header.stamp)

    @property
    def ids(self) -> list[int]:
        """Ids of all objects, visible or not."""
        return [item.id for item in self.objects]

    def get(self, which: int | str) -> SeenObject | None:
        """Return an object by id or name, or None; if several share the name, the oldest."""
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
    """Pairs messages of ~/labels and ~/objects in either order. For use by one thread."""

    def __init__(self) -> None:
        self._pending: dict[tuple[int, str], dict[str, Any]] = {}

    def add(self, half: str, message: Any) -> Frame | None:
        """Add a message of ~/labels or ~/objects; returns the frame once both have arrived.

        half: 'labels' or 'objects'.
        """
        key = (stamp_ns(message.header.stamp), message.header.frame_id)
        halves = self._pending.setdefault(key, {})
        halves[half] = message
        if len(halves) == 2:
            del self._pending[key]
            return frame_of(halves['labels'], halves['objects'])
        nbytes = sum(len(halves['labels'].data) for halves in self._pending.values() if 'labels' in halves)
        while len(self._pending) > _PENDING or nbytes > _PENDING_BYTES:
            oldest = self._pending.pop(next(iter(self._pending)))
            nbytes -= len(oldest['labels'].data) if 'labels' in oldest else 0
        return None

    def clear(self) -> None:
        """Drop incomplete frames."""
        self._pending.clear()


def frame_of(labels_message: Any, objects_message: Any) -> Frame:
    """Make a frame from a sensor_msgs/Image and a TrackedObjectArray with the same header.

    Raises:
        FrameError: the image is unreadable, or the objects contradict it.
        ValueError: an object has an unknown state.
    """
    labels = mask_from_image(labels_message)
    labels.setflags(write=False)
    if len(objects_message.objects) > MOST_OBJECTS:
        raise FrameError(f'{len(objects_message.objects)} objects: at most {MOST_OBJECTS} are allowed')
    objects = tuple(_object_with_mask(item, labels) for item in objects_message.objects)
    return Frame(labels_message.header, labels, objects, seconds_of(objects_message.processing_time) * 1e3)


def _object_with_mask(item: Any, labels: np.ndarray) -> SeenObject:
    box = item.box
    height, width = labels.shape
    if box.x_offset + box.width > width or box.y_offset + box.height > height or item.area > labels.size:
        raise FrameError(f'object {item.id} exceeds its image of {width}×{height} px')
    if not item.label:
        raise FrameError(f'object {item.id} has the label of the background')
    return SeenObject(**vars(object_of(item)), labels=labels)
