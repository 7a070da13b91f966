# SPDX-License-Identifier: MIT
"""What the node says of one image: its label image and its objects, brought together by their stamp. No rclpy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xmem_ros.conversions.images import mask_from_image, stamp_ns
from xmem_ros.conversions.objects import object_of, seconds_of
from xmem_ros.errors import FrameError, UnknownObjectError
from xmem_ros.objects import TrackedObject

MOST_OBJECTS = 254  # the labels of xmem_ros/TrackedObject
_PENDING = 20  # images of which only one half has come
_PENDING_BYTES = 256 * 2**20  # of their label images


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
    processing_ms: float  # from taking the image to publishing the objects

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
        taken = sum(len(halves['labels'].data) for halves in self._pending.values() if 'labels' in halves)
        while len(self._pending) > _PENDING or taken > _PENDING_BYTES:
            oldest = self._pending.pop(next(iter(self._pending)))
            taken -= len(oldest['labels'].data) if 'labels' in oldest else 0
        return None

    def clear(self) -> None:
        """Forget halves that wait."""
        self._pending.clear()


def frame_of(labels_message: Any, objects_message: Any) -> Frame:
    """A frame, of sensor_msgs/Image and xmem_ros/TrackedObjectArray with the same header.

    Raises:
        FrameError: an image that cannot be read, or objects that cannot be in it; `ValueError`: a state that is none.
    """
    labels = mask_from_image(labels_message)
    labels.setflags(write=False)
    if len(objects_message.objects) > MOST_OBJECTS:
        raise FrameError(f'{len(objects_message.objects)} objects: there are labels for {MOST_OBJECTS}')
    objects = tuple(_seen(item, labels) for item in objects_message.objects)
    return Frame(labels_message.header, labels, objects, seconds_of(objects_message.processing_time) * 1e3)


def _seen(item: Any, labels: np.ndarray) -> SeenObject:
    box = item.box
    height, width = labels.shape
    if box.x_offset + box.width > width or box.y_offset + box.height > height or item.area > labels.size:
        raise FrameError(f'object {item.id} does not lie in its image of {width}×{height} px')
    if not item.label:
        raise FrameError(f'object {item.id} has the label of the background')
    return SeenObject(**vars(object_of(item)), labels=labels)
