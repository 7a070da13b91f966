# SPDX-License-Identifier: MIT
"""Application of a seed plan to a live node through its services, image by image."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image

from xmem_ros.client.calls import ServiceCalls, checked
from xmem_ros.conversions.compressed_images import rgb_of
from xmem_ros.conversions.images import image_from_array, mask_from_image
from xmem_ros.conversions.seeds import LABELS, MASK, read_seeds
from xmem_ros.errors import FrameError, MemoryFileMismatchError, SeedError, XMemError
from xmem_ros.intensity import IntensityScale
from xmem_ros.msg import Seed
from xmem_ros.recordings import typestore
from xmem_ros.recordings.plan_state import PlanState, check_count
from xmem_ros.seeding.checks import masks_from_labels
from xmem_ros.seeding.seeder import make_seeder
from xmem_ros.srv import SeedObjects

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from xmem_ros.client.frames import Frame
    from xmem_ros.recordings.seed_plan import LoadedFile, PlannedSeeds


@dataclass(frozen=True, eq=False)
class AppliedSeed:
    """A seed accepted by the node."""

    id: int  # the node's object id
    label: int  # pixel value of the object
    mask: np.ndarray  # H×W bool, of the seed
    seed: Any  # xmem_ros/Seed, as sent


class NodeSeeder:
    """Sends a plan's seeds to the node: one service call after each tracked image with seeds.

    Arguments:
        places: image index → its seeds.
        calls: service calls of the node.
        missed: list to append unusable recorded seeds to, with reasons.
        seeder: returns the node's parameter `seeder`.
    """

    def __init__(
        self,
        places: Mapping[int, Sequence[PlannedSeeds]],
        calls: ServiceCalls,
        missed: list[str],
        seeder: Callable[[], str],
    ) -> None:
        self._calls, self._seeder = calls, seeder
        self._plan = PlanState(places, (SeedError, FrameError))
        self._plan.missed = missed
        self._wanted: dict[int, Any] = {}  # plan id → seed of the current image
        self._entries: list[PlannedSeeds] = []  # the entries of `_wanted`

    @property
    def plan_ids(self) -> dict[int, int]:
        """Node's id → plan's id."""
        return self._plan.plan_ids

    def unreached(self, images: int) -> list[str]:
        """Describe the seeds for images beyond the number of replayed ones."""
        return self._plan.unreached(images)

    def skip(self, index: int, reason: str) -> None:
        """Skip an unpublished image; raises `SeedError` if the user gave it seeds."""
        self._refuse_all(self._plan.places.get(index, []), index, SeedError(reason))

    def keep(self, alive: Collection[int]) -> None:
        """Drop objects that the node no longer has, for example after an `on_time_jump` reset."""
        self._plan.keep(alive)

    def before_image(self, index: int) -> None:
        """Remove objects and reset the node as the plan requires before an image.

        Raises:
            SeedError, UnknownObjectError: an entry given by the user is unusable.
            NodeError: the node does not respond.
        """
        self._wanted, self._entries = self._plan.gather(index, str(index), _NodeHost(self._calls))

    def after_image(self, index: int, image: Any, result: Frame | None = None) -> list[AppliedSeed]:
        """Send the node the seeds of the image that it has just tracked.

        Args:
            index: of the image.
            image: its message, of rosbags; None: the node dropped it.
            result: the node's results for it, where points on a known object correct its mask.

        Returns:
            The accepted seeds, in order.

        Raises:
            SeedError, UnknownObjectError, …: the node refuses seeds of the user, with the error of
                its reason.
            NodeError: the node does not respond.
        """
        wanted, entries = self._wanted, self._entries
        if not wanted:
            return []
        for object_id, seed in wanted.items():
            seed.id = self._plan.ids.get(object_id, 0)
        if image is None:
            self._refuse_all(entries, index, SeedError('the node dropped the image'))
            return []
        request = SeedObjects.Request(seeds=list(wanted.values()))
        stamp = image.header.stamp
        request.header.stamp.sec, request.header.stamp.nanosec = stamp.sec, stamp.nanosec
        answer = self._calls.link.call(SeedObjects, 'seed', request)
        try:
            checked(answer)
        except XMemError as error:
            self._refuse_all(entries, index, error)
            return []
        ids = [int(object_id) for object_id in answer.ids]
        self._plan.record_applied(dict(zip(wanted, ids, strict=True)), entries)

        def mask_of(object_id: int) -> np.ndarray | None:
            label = next((item.label for item in result.objects if item.id == object_id), 0) if result else 0
            return result.labels == label if result and label else None

        found = read_seeds(  # as the node reads them
            request.seeds,
            rgb_of(image, IntensityScale()),
            len(ids),
            lambda: make_seeder(self._seeder()),
            mask_of=mask_of,
        )
        return [
            AppliedSeed(object_id, int(label), one.mask, seed)
            for object_id, label, one, seed in zip(ids, answer.labels, found, request.seeds, strict=True)
        ]

    def _refuse_all(self, entries: Sequence[PlannedSeeds], index: int, error: XMemError) -> None:
        for entry in entries:
            self._plan.refuse(entry, str(index), error)


class _NodeHost:
    """`SeedHost` by a live node, through its services."""

    def __init__(self, calls: ServiceCalls) -> None:
        self._calls = calls

    def read(self, entry: PlannedSeeds) -> dict[int, Any]:
        """As `SeedHost.read`, with xmem_ros/Seed of rclpy; also raises `FrameError`."""
        found: list[Any] = []
        for given in entry.seeds:
            seed = deserialize_message(typestore.serialize(given), Seed)
            found += _split_labels(seed) if seed.kind == LABELS else [seed]
        check_count(entry, len(found))
        return dict(zip(entry.ids, found, strict=True))

    def reset(self) -> None:
        """As `SeedHost.reset`."""
        self._calls.reset()

    def remove(self, ids: list[int]) -> None:
        """As `SeedHost.remove`."""
        self._calls.remove(ids)

    def load(self, file: LoadedFile) -> list[int]:
        """As `SeedHost.load`; the node reads the file of this name in its own folder."""
        found = self._calls.load_memory(file.name).ids
        if tuple(found) != file.ids:
            self._calls.reset()
            text = f'{file.name} has the objects {found} in the node, and the recording names {list(file.ids)}'
            raise MemoryFileMismatchError(text)
        return found

    def named(self, seed: Any, name: str) -> Any:
        """As `SeedHost.named`."""
        seed.name = name
        return seed


def _split_labels(seed: Any) -> list[Any]:
    """Split a label seed into mask seeds, named as the node names them."""
    labels = mask_from_image(seed.mask)
    masks = masks_from_labels(labels, labels.shape)
    found = []
    for value, mask in masks.items():
        one = copy.copy(seed)
        one.kind, one.name = MASK, f'{seed.name}_{value}' if seed.name and len(masks) > 1 else seed.name
        one.mask = image_from_array(mask.view(np.uint8) * np.uint8(255), 'mono8', Image)
        found.append(one)
    return found
