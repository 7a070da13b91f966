# SPDX-License-Identifier: MIT
"""The seeds of a plan, shown to a live node through its services, image by image."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image

from xmem_ros import seeding
from xmem_ros.client.calls import Calls
from xmem_ros.conversions.compressed_images import rgb_of
from xmem_ros.conversions.images import image_from_array, mask_from_image
from xmem_ros.conversions.seeds import LABELS, MASK, read_seeds
from xmem_ros.errors import FrameError, SeedError, UnknownObjectError, XMemError
from xmem_ros.msg import Seed
from xmem_ros.recordings import typestore
from xmem_ros.recordings.seed_plan import begins_again, check_removed
from xmem_ros.srv import SeedObjects

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from xmem_ros.recordings.seed_plan import PlannedSeeds


@dataclass(frozen=True, eq=False)
class Seeded:
    """An object that was begun or corrected."""

    id: int  # of the node
    label: int  # its pixel value
    mask: np.ndarray  # H×W bool, what its seed shows
    seed: Any  # xmem_ros/Seed, as the node got it


class LiveSeeds:
    """Shows a node the seeds of each image once it was tracked; all seeds of an image are one call.

    Arguments:
        places: index of the image → its seeds.
        calls: of the node.
    """

    def __init__(self, places: Mapping[int, Sequence[PlannedSeeds]], calls: Calls) -> None:
        self._places, self._calls = places, calls
        self.missed: list[str] = []  # recorded seeds that could not be used, and why
        self._ids: dict[int, int] = {}  # id of the plan → id of the node
        self._used: set[int] = set()  # recorded ids since the node was reset
        self._wanted: dict[int, Any] = {}  # id of the plan → seed of the image in hand
        self._entries: list[PlannedSeeds] = []  # that these are from

    @property
    def plan_ids(self) -> dict[int, int]:
        """Id of the node → id that the plan calls the object."""
        return {node_id: plan_id for plan_id, node_id in self._ids.items()}

    def unreached(self, images: int) -> list[str]:
        """Once all images were shown: which seeds are of images that did not come, in words."""
        return [
            f'{entry.source}: the recording ends before image {index}'
            for index, entries in sorted(self._places.items())
            if index >= images
            for entry in entries
        ]

    def skip(self, index: int, reason: str) -> None:
        """The image is not shown at all; raises `SeedError` where it has seeds that are not recorded ones."""
        self._refuse_all(self._places.get(index, []), index, reason)

    def saw(self, alive: Collection[int]) -> None:
        """The node has these objects; others it may have forgotten, as with `on_time_jump: reset`."""
        self._ids = {plan_id: node_id for plan_id, node_id in self._ids.items() if node_id in alive}

    def before(self, index: int) -> None:
        """Do what comes before an image is shown: remove objects, reset where the recorded node was reset.

        Raises:
            SeedError, UnknownObjectError: what is not recorded cannot be used.
            NodeError: the node does not answer.
        """
        self._wanted, self._entries = {}, []
        for entry in self._places.get(index, []):
            try:
                found = _of_ids(entry)
                if self._prepare(entry):
                    self._wanted, self._entries = {}, []
            except (SeedError, FrameError, UnknownObjectError) as error:
                self._refuse(entry, index, error)
                continue
            for object_id in entry.removed:
                self._wanted.pop(object_id, None)
            for object_id, seed in found.items():
                if seed.id and not entry.recorded and object_id not in {*self._ids, *self._wanted}:
                    known = ', '.join(map(str, self._ids)) or 'none'
                    text = f'no object has the id {object_id} here, so it cannot be corrected; ids: {known}'
                    self._refuse(entry, index, UnknownObjectError(text))
                earlier = self._wanted.pop(object_id, None)
                seed.name = seed.name or (earlier.name if earlier is not None else '')
                self._wanted[object_id] = seed
            self._entries.append(entry)

    def after(self, index: int, image: Any) -> list[Seeded]:
        """Show the node the seeds of the image that it has just tracked.

        Args:
            index: of the image.
            image: its message, a dataclass of rosbags; None: the node dropped it.

        Returns:
            What was seeded, in order.

        Raises:
            SeedError: the node refuses seeds that are not recorded ones.
            NodeError: it does not answer.
        """
        wanted, entries = self._wanted, self._entries
        if not wanted:
            return []
        for object_id, seed in wanted.items():
            seed.id = self._ids.get(object_id, 0)
        if image is None:
            self._refuse_all(entries, index, 'the node dropped the image')
            return []
        request = SeedObjects.Request(seeds=list(wanted.values()))
        stamp = image.header.stamp
        request.header.stamp.sec, request.header.stamp.nanosec = stamp.sec, stamp.nanosec
        answer = self._calls.link.call(SeedObjects, 'seed', request)
        if not answer.success:
            self._refuse_all(entries, index, answer.message)
            return []
        ids = [int(object_id) for object_id in answer.ids]
        self._ids |= dict(zip(wanted, ids, strict=True))
        for entry in entries:
            if entry.recorded:
                self._used.update(entry.ids)
        found = read_seeds(request.seeds, rgb_of(image), len(ids))  # as the node does
        return [
            Seeded(object_id, int(label), one.mask, seed)
            for object_id, label, one, seed in zip(ids, answer.labels, found, request.seeds, strict=True)
        ]

    def _prepare(self, entry: PlannedSeeds) -> bool:
        """Do what comes before the seeds: remove objects, or reset as the node was; returns whether it was a reset."""
        reset = begins_again(entry, self._used)
        if reset:
            self._calls.reset()
            self._ids, self._used = {}, set()
        check_removed(entry, self._ids)
        if entry.removed:
            self._calls.remove([self._ids.pop(object_id) for object_id in entry.removed])
        return reset

    def _refuse_all(self, entries: Sequence[PlannedSeeds], index: int, reason: str) -> None:
        for entry in entries:
            self._refuse(entry, index, SeedError(reason))

    def _refuse(self, entry: PlannedSeeds, index: int, error: XMemError) -> None:
        text = f'{entry.source}: image {index}: {error}'
        if not entry.recorded:
            raise type(error)(text) from error
        self.missed.append(text)


def _of_ids(entry: PlannedSeeds) -> dict[int, Any]:
    """Id of the plan → xmem_ros/Seed of rclpy, one for each object; raises `SeedError`, `FrameError`."""
    found: list[Any] = []
    for given in entry.seeds:
        seed = deserialize_message(typestore.serialize(given), Seed)
        found += _of_labels(seed) if seed.kind == LABELS else [seed]
    if len(found) != len(entry.ids):
        raise SeedError(f'its seeds show {len(found)} objects, but it names {len(entry.ids)} ids')
    return dict(zip(entry.ids, found, strict=True))


def _of_labels(seed: Any) -> list[Any]:
    """A label image as masks, which may correct objects, too; named as the node names them."""
    labels = mask_from_image(seed.mask)
    masks = seeding.masks_from_labels(labels, labels.shape)
    found = []
    for value, mask in masks.items():
        one = copy.copy(seed)
        one.kind, one.name = MASK, f'{seed.name}_{value}' if seed.name and len(masks) > 1 else seed.name
        one.mask = image_from_array(mask.view(np.uint8) * np.uint8(255), 'mono8', Image)
        found.append(one)
    return found
