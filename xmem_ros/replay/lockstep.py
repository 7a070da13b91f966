# SPDX-License-Identifier: MIT
"""Lock-step replay of a bag into a live node: each image waits for the previous one's results.

The node runs as on the robot, and no image is lost on a slow machine.

    for frame in replay('drive.mcap', '/xmem', plan=plan):
        print(frame.stamp_ns, frame.age_ms, [item.box for item in frame.objects])
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from xmem_ros.client.calls import ServiceCalls
from xmem_ros.errors import ParameterError
from xmem_ros.objects import TrackedObject
from xmem_ros.recordings.seed_plan import resolve
from xmem_ros.replay.clock import ReplayClock
from xmem_ros.replay.node import NodeConnection
from xmem_ros.replay.seeds import AppliedSeed, NodeSeeder
from xmem_ros.replay.source import RecordedMessage, ReplaySource
from xmem_ros.replay.topics import ReplayPublishers, companions_first, excluded_topics, foreign_topics
from xmem_ros.seeding.seeder import BUNDLED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from xmem_ros.recordings.recording import RecordedFrame, Recording
    from xmem_ros.recordings.seed_plan import PlannedSeeds

Plan = Union['Sequence[PlannedSeeds]', 'Callable[[Recording], Sequence[PlannedSeeds]]', None]

TIMEOUT_S = 60.0
DISCOVERY_S = 1.0  # wait for subscribers of other topics, some of which may never match
FLUSH_S = 2.0  # wait for subscribers to acknowledge the last messages
_CLOCK = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE)


@dataclass(frozen=True)
class ReplayedFrame:
    """The node's results for one image, without the effect of seeds on that image."""

    stamp_ns: int
    labels: np.ndarray = field(repr=False)  # H×W uint8, read-only; 0 is background, else TrackedObject.label
    objects: tuple[TrackedObject, ...]  # in order of id
    age_ms: float  # from publishing the image to receiving its results
    index: int  # of the image in the bag, counting dropped ones
    seeded: tuple[AppliedSeed, ...]  # on this image, after these results; the next one shows their effect
    plan_ids: Mapping[int, int]  # node's id → plan's id
    processing_ms: float  # measured by the node
    header: Any = field(repr=False)  # std_msgs/Header of the image
    frame: RecordedFrame = field(repr=False)  # the recorded image

    @property
    def labels_with_seeds(self) -> np.ndarray:
        """`labels` with the exact masks of `seeded`, H×W uint8.

        Labels of an offline run also contain the seeds, but at the working size.
        """
        if not self.seeded:
            return self.labels
        labels = self.labels.copy()
        for item in self.seeded:
            labels[labels == item.label] = 0
        for item in self.seeded:
            labels[item.mask] = item.label
        return labels


@dataclass(frozen=True)
class DroppedImage:
    """An image that the node did not track."""

    index: int
    stamp_ns: int | None  # None: unreadable
    reason: str


@dataclass
class Report:
    """Outcome of the replay so far."""

    topic: str = ''  # of the images, as published
    images: int = 0
    tracked: int = 0
    seeded: int = 0
    published: dict[str, int] = field(default_factory=dict)  # other topics → messages
    left_out: dict[str, str] = field(default_factory=dict)  # skipped topic → reason
    foreign: set[str] = field(default_factory=set)  # of these, topics of types that are not installed alike
    dropped: list[DroppedImage] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)  # unusable recorded seeds, and why
    damage: str = ''  # what could not be read in the bag, and why


class Replay(Iterator[ReplayedFrame]):
    """Iterator over a node's results for the images of a bag; a context manager.

    Arguments: see `replay`.
    """

    def __init__(
        self,
        path: Path | str | ReplaySource,
        node: str = '/xmem',
        *,
        image_topic: str = '',
        plan: Plan = None,
        remaps: Mapping[str, str] | None = None,
        rate: float = 0.0,
        clock: bool = False,
        keep: bool = False,
        most: int = 0,
        timeout: float = TIMEOUT_S,
    ) -> None:
        for name, value, least in (('rate', rate, 0.0), ('timeout', timeout, 0.1)):
            if not least <= value < 1e6:
                raise ParameterError(f'{name} is {value!r}; it must be a number of at least {least:g}')
        if not isinstance(most, int) or isinstance(most, bool) or most < 0:
            raise ParameterError(f'most is {most!r}; it must be a whole number of 0 (all images) or more')
        self.report = Report()
        self._most = most
        self._bag_time = ReplayClock(rate)
        with contextlib.ExitStack() as stack:
            if not isinstance(path, ReplaySource):
                path = stack.enter_context(ReplaySource(path, image_topic))
            self._bag = path
            self.length, self.rate = (
                self._bag.length,
                self._bag.recording.rate,
            )  # images, None: unknown; images per second
            entries = plan(self._bag.recording) if callable(plan) else plan
            if entries is None:
                entries = self._bag.recorded_seeds()
            self.places, self.report.missed = resolve(entries, self._bag.recording)  # image index → its seeds
            self._node = NodeConnection(node, timeout)
            stack.callback(self._node.close)
            self._node.check_active()
            calls = ServiceCalls(self._node.link)
            self._seeds = NodeSeeder(
                self.places, calls, self.report.missed, lambda: str(self._node.parameters.get('seeder') or BUNDLED)
            )
            names = dict(remaps or {})
            recorded = self._bag.image_topic
            names[recorded] = self.report.topic = self._node.image_topic(
                names.get(recorded, recorded), self._bag.image_type
            )
            self._warn_of_other_publishers()
            self.report.left_out = excluded_topics(self._bag.topics, self._node.name, clock=clock)
            self.report.left_out |= {
                name: f'the replayed images use {self.report.topic}'
                for name in self._bag.topics
                if names.get(name, name) == self.report.topic
            }
            self.report.left_out.pop(recorded, None)
            foreign = foreign_topics(
                {name: kind for name, kind in self._bag.topics.items() if name not in self.report.left_out}
            )
            self.report.left_out |= foreign
            self.report.foreign |= foreign.keys()
            self._publishers = ReplayPublishers(
                self._node.link.node,
                {name: kind for name, kind in self._bag.topics.items() if name not in self.report.left_out},
                self._bag.offered,
                names,
            )
            self._clock = self._node.link.node.create_publisher(Clock, '/clock', _CLOCK) if clock else None
            self._node.wait_for_subscriber(self._publishers[recorded])
            self._publishers.wait_for_subscribers(self._node.link.node, DISCOVERY_S)
            if not keep:
                calls.reset()
            self._end = stack.pop_all()
        self._frames = self._run()

    @property
    def subscribers(self) -> dict[str, int]:
        """Topic of the bag → number of connected subscribers; they receive all further messages."""
        return self._publishers.subscribers

    def __iter__(self) -> Replay:
        return self

    def __next__(self) -> ReplayedFrame:
        return next(self._frames)

    def __enter__(self) -> Replay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the ROS graph and close the bag."""
        self._frames.close()
        self._end.close()

    def _run(self) -> Generator[ReplayedFrame, None, None]:
        try:
            for message in companions_first(self._bag.messages(set(self.report.left_out)), self._bag.image_topic):
                now_ns = self._bag_time.wait_until(message.received_ns)
                if self._clock is not None:
                    self._clock.publish(_clock_message(now_ns))
                if message.topic != self._bag.image_topic:
                    self._publish_other(message)
                    continue
                frame = self._replay_image(message)
                if frame is not None:
                    yield frame
                if self._most and self.report.images >= self._most:
                    break
            else:
                self.report.missed += self._seeds.unreached(self.report.images)
            self.report.damage = self._bag.damage
            self._publishers.flush(FLUSH_S)
        finally:
            self._end.close()

    def _publish_other(self, message: RecordedMessage) -> None:
        """Publish a message that is not an image of the replay."""
        if not self._publishers.is_valid(message):
            self.report.foreign.add(message.topic)
            self.report.left_out[message.topic] = f'its messages do not match the installed {message.msgtype}'
            return
        self._publishers.publish(message)
        self.report.published[message.topic] = self.report.published.get(message.topic, 0) + 1

    def _replay_image(self, message: RecordedMessage) -> ReplayedFrame | None:
        index = self.report.images
        self.report.images += 1
        frame = message.frame
        if frame is None:
            reason = 'damaged in the bag, so it was not published'
            self.report.dropped.append(DroppedImage(index, None, reason))
            self._seeds.skip(index, reason)
            return None
        self._seeds.before_image(index)
        self._node.discard_results()
        published = time.monotonic()
        self._publishers.publish(message)
        result = self._node.wait_for_result(frame.stamp_ns, frame.message.header.frame_id, self.report.topic)
        age_ms = (time.monotonic() - published) * 1e3
        if result is not None:
            self._seeds.keep(result.ids)
        seeded = self._seeds.after_image(index, None if result is None else frame.message, result)
        if result is None:
            self.report.dropped.append(DroppedImage(index, frame.stamp_ns, 'dropped by the node; see its log'))
            return None
        self.report.tracked += 1
        self.report.seeded += len(seeded)
        return ReplayedFrame(
            stamp_ns=frame.stamp_ns,
            labels=result.labels,
            objects=result.objects,
            age_ms=age_ms,
            index=index,
            seeded=tuple(seeded),
            plan_ids=self._seeds.plan_ids,
            processing_ms=result.processing_ms,
            header=result.header,
            frame=frame,
        )

    def _warn_of_other_publishers(self) -> None:
        node, topic = self._node.link.node, self.report.topic
        if others := node.get_publishers_info_by_topic(topic):
            names = ', '.join(sorted({f'{info.node_namespace.rstrip("/")}/{info.node_name}' for info in others}))
            node.get_logger().warning(
                f'{names} may publish other images on {topic} during the replay; stop it, or start another tracker '
                'node for the replay'
            )


def replay(path: Path | str | ReplaySource, node: str = '/xmem', **options: Any) -> Replay:
    """Replay a bag into a live node and yield its results for each image.

    All messages are published in order, as recorded bytes. Messages with an image's stamp
    (camera info, depth, other images) are published before the image; then replay waits for the
    image's results. Recorded tracker outputs and topics without an installed type are skipped.
    `Replay.report` lists them and the images that the node dropped.

    Args:
        path: a bag's folder, an .mcap or .db3 file, or an open source, which stays open.
        node: full name of the active tracker node.
        options: by keyword, see below.

    Options:
        - `image_topic`: topic of the images, if the bag has several and is not open yet.
        - `plan`: seeds, each sent to the node after its image was tracked, or a function that
          returns them for the recording; None: the seeds in the bag.
        - `remaps`: topic of the bag → published topic; default: images go to the node's topic.
        - `rate`: speed limit; 1 is as recorded, 0 is as fast as the node.
        - `clock`: publish the bag's time on /clock.
        - `most`: images to replay, including dropped ones; 0: all.
        - `keep`: keep the node's objects; otherwise it is reset first.
        - `timeout`: time limit for the node to respond, and for the results of one image [s].

    Returns:
        An iterator and context manager. It leaves the ROS graph at its end.

    Raises:
        BagError: the bag is unreadable, or has no such images.
        ParameterError: an invalid option, or images that the node does not subscribe to.
        SeedError, OutOfMemoryError, …: the node refuses a seed, with the error of its reason.
        SeedError: the image of a seed does not exist.
        OutputError: a subscriber of another topic blocks the replay.
        NodeMissingError, NodeInactiveError, NodeTimeoutError: the node is absent, inactive or does
            not respond, at the start or during the replay.
    """
    return Replay(path, node, **options)


def _clock_message(time_ns: int) -> Clock:
    message = Clock()
    message.clock.sec, message.clock.nanosec = divmod(time_ns, 1_000_000_000)
    return message
