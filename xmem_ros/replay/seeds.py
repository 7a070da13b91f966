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
from xmem_ros.errors import FrameError, SeedError
from xmem_ros.msg import Seed
from xmem_ros.recordings import typestore
from xmem_ros.recordings.plan_state import PlanState, check_count
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
        missed: gets the recorded seeds that could not be used, and why.
    """

    def __init__(self, places: Mapping[int, Sequence[PlannedSeeds]], calls: Calls, missed: list[str]) -> None:
        self._calls = calls
        self._plan = PlanState(places, (SeedError, FrameError))
        self._plan.missed = missed
        self._wanted: dict[int, Any] = {}  # plan id → seed of the image in hand
        self._entries: list[PlannedSeeds] = []  # that these are from

    @property
    def plan_ids(self) -> dict[int, int]:
        """The node's id → the plan's."""
        return self._plan.plan_ids

    def unreached(self, images: int) -> list[str]:
        """Once all images were shown: which seeds are of images that did not come, in words."""
        return self._plan.unreached(images)

    def skip(self, index: int, reason: str) -> None:
        """The image is not shown at all; raises `SeedError` where it has seeds that are not recorded ones."""
        self._refuse_all(self._plan.places.get(index, []), index, reason)

    def saw(self, alive: Collection[int]) -> None:
        """The node has these objects; others it may have forgotten, as with `on_time_jump: reset`."""
        self._plan.keep(alive)

    def before(self, index: int) -> None:
        """Do what comes before an image is shown: remove objects, reset where the recorded node was reset.

        Raises:
            SeedError, UnknownObjectError: what is not recorded cannot be used.
            NodeError: the node does not answer.
        """
        self._wanted, self._entries = self._plan.gather(index, str(index), _NodeHost(self._calls))

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
            seed.id = self._plan.ids.get(object_id, 0)
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
        self._plan.began(dict(zip(wanted, ids, strict=True)), entries)
        found = read_seeds(request.seeds, rgb_of(image), len(ids))  # as the node does
        return [
            Seeded(object_id, int(label), one.mask, seed)
            for object_id, label, one, seed in zip(ids, answer.labels, found, request.seeds, strict=True)
        ]

    def _refuse_all(self, entries: Sequence[PlannedSeeds], index: int, reason: str) -> None:
        for entry in entries:
            self._plan.refuse(entry, str(index), SeedError(reason))


class _NodeHost:
    """The node as a plan's host."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def read(self, entry: PlannedSeeds) -> dict[int, Any]:
        """As `Host.read`: xmem_ros/Seed of rclpy, one for each object; raises `FrameError` too."""
        found: list[Any] = []
        for given in entry.seeds:
            seed = deserialize_message(typestore.serialize(given), Seed)
            found += _of_labels(seed) if seed.kind == LABELS else [seed]
        check_count(entry, len(found))
        return dict(zip(entry.ids, found, strict=True))

    def reset(self) -> None:
        """As `Host.reset`."""
        self._calls.reset()

    def remove(self, ids: list[int]) -> None:
        """As `Host.remove`."""
        self._calls.remove(ids)

    def named(self, seed: Any, name: str) -> Any:
        """As `Host.named`."""
        seed.name = name
        return seed


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
