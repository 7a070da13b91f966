# SPDX-License-Identifier: MIT
"""Replay a bag into a live node in lock-step: an image goes out when the masks of the one before have come.

So no image is lost, however slow the machine is, with the node as it is on the robot.

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

from xmem_ros.client.calls import Calls
from xmem_ros.errors import ParameterError
from xmem_ros.objects import TrackedObject
from xmem_ros.recordings.seed_plan import resolve
from xmem_ros.replay.clock import BagTime
from xmem_ros.replay.node import LiveNode
from xmem_ros.replay.seeds import LiveSeeds, Seeded
from xmem_ros.replay.source import LiveMessage, LiveSource
from xmem_ros.replay.topics import Topics, companions_first, left_out

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from xmem_ros.recordings.recording import RecordedFrame, Recording
    from xmem_ros.recordings.seed_plan import PlannedSeeds

Plan = Union['Sequence[PlannedSeeds]', 'Callable[[Recording], Sequence[PlannedSeeds]]', None]

TIMEOUT_S = 60.0
MEET_S = 1.0  # for subscribers of other topics; some may never match
FLUSH_S = 2.0  # for slow subscribers of the last messages
_CLOCK = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE)


@dataclass(frozen=True)
class LiveFrame:
    """What the node said of one image of the bag, before it was shown the seeds of that image."""

    stamp_ns: int
    labels: np.ndarray = field(repr=False)  # H×W uint8, read-only; 0 = background, else an object's label
    objects: tuple[TrackedObject, ...]  # in order of id
    age_ms: float  # from publishing the image to hearing of it
    index: int  # of the image in the bag, those that were dropped counted
    seeded: tuple[Seeded, ...]  # on this image, after the node said this; it tells of them from the next one on
    plan_ids: Mapping[int, int]  # id of the node → id that the plan calls the object
    processing_ms: float  # as the node measured it
    header: Any = field(repr=False)  # std_msgs/Header of the image
    frame: RecordedFrame = field(repr=False)  # the image as it lies in the bag

    @property
    def labels_with_seeds(self) -> np.ndarray:
        """H×W uint8: `labels` with the masks of `seeded` in them, to the pixel.

        The offline runner's labels of the image show the seeds, too, at the working size.
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
class Dropped:
    """An image that the node did not track."""

    index: int
    stamp_ns: int | None  # None: it cannot be read
    reason: str


@dataclass
class Report:
    """What was replayed so far."""

    topic: str = ''  # that the images were published on
    images: int = 0
    tracked: int = 0
    seeded: int = 0
    published: dict[str, int] = field(default_factory=dict)  # topic → messages beside the images
    left_out: dict[str, str] = field(default_factory=dict)  # topic of the bag → why it was not published
    dropped: list[Dropped] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)  # recorded seeds that could not be used, and why
    damage: str = ''  # why not all of the bag could be read


class Replay(Iterator[LiveFrame]):
    """A bag on its way through a node; an iterator over what the node says, and a context manager.

    Arguments: see `replay`.
    """

    def __init__(
        self,
        path: Path | str | LiveSource,
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
                raise ParameterError(f'{name} is {value!r}; it must be a number from {least:g}')
        if not isinstance(most, int) or isinstance(most, bool) or most < 0:
            raise ParameterError(f'most is {most!r}; it must be a whole number from 0, which is all')
        self.report = Report()
        self._most = most
        self._time = BagTime(rate)
        with contextlib.ExitStack() as stack:
            if not isinstance(path, LiveSource):
                path = stack.enter_context(LiveSource(path, image_topic))
            self._bag = path
            self.length, self.rate = self._bag.length, self._bag.recording.rate  # images, as far as known; a second
            entries = plan(self._bag.recording) if callable(plan) else plan
            if entries is None:
                entries = self._bag.recorded_seeds()
            self.places, self.report.missed = resolve(entries, self._bag.recording)  # index of an image → its seeds
            self._node = LiveNode(node, timeout)
            stack.callback(self._node.close)
            self._node.check_active()
            calls = Calls(self._node.link)
            self._seeds = LiveSeeds(self.places, calls, self.report.missed)
            names = dict(remaps or {})
            recorded = self._bag.image_topic
            names[recorded] = self.report.topic = self._node.image_topic(
                names.get(recorded, recorded), self._bag.image_type
            )
            self._warn_of_others()
            self.report.left_out = left_out(self._bag.topics, self._node.name, clock=clock)
            self.report.left_out |= {
                name: f'the images of the replay go to {self.report.topic}'
                for name in self._bag.topics
                if names.get(name, name) == self.report.topic
            }
            self.report.left_out.pop(recorded, None)
            self._topics = Topics(
                self._node.link.node,
                {name: kind for name, kind in self._bag.topics.items() if name not in self.report.left_out},
                self._bag.offered,
                names,
            )
            self._clock = self._node.link.node.create_publisher(Clock, '/clock', _CLOCK) if clock else None
            self._node.meet(self._topics[recorded])
            self._topics.meet(self._node.link.node, MEET_S)
            if not keep:
                calls.reset()
            self._end = stack.pop_all()
        self._frames = self._run()

    @property
    def subscribers(self) -> dict[str, int]:
        """Topic of the bag → subscribers that are connected now, so that they will miss nothing from here on."""
        return self._topics.subscribers

    def __iter__(self) -> Replay:
        return self

    def __next__(self) -> LiveFrame:
        return next(self._frames)

    def __enter__(self) -> Replay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the graph, and close the bag."""
        self._frames.close()
        self._end.close()

    # --- inside

    def _run(self) -> Generator[LiveFrame, None, None]:
        try:
            for message in companions_first(self._bag.messages(set(self.report.left_out)), self._bag.image_topic):
                now_ns = self._time.reach(message.received_ns)
                if self._clock is not None:
                    self._clock.publish(_clock_message(now_ns))
                if message.topic != self._bag.image_topic:
                    self._pass_on(message)
                    continue
                frame = self._show(message)
                if frame is not None:
                    yield frame
                if self._most and self.report.images >= self._most:
                    break
            else:
                self.report.missed += self._seeds.unreached(self.report.images)
            self.report.damage = self._bag.damage
            self._topics.flush(FLUSH_S)
        finally:
            self._end.close()

    def _pass_on(self, message: LiveMessage) -> None:
        """Publish what is no image of the replay."""
        if not self._topics.fits(message):
            self.report.left_out[message.topic] = f'its messages are not {message.msgtype} as it is installed here'
            return
        self._topics.publish(message)
        self.report.published[message.topic] = self.report.published.get(message.topic, 0) + 1

    def _show(self, message: LiveMessage) -> LiveFrame | None:
        index = self.report.images
        self.report.images += 1
        frame = message.frame
        if frame is None:
            reason = 'damaged in the bag, so that it was not published'
            self.report.dropped.append(Dropped(index, None, reason))
            self._seeds.skip(index, reason)
            return None
        self._seeds.before(index)
        self._node.listen()
        begun = time.monotonic()
        self._topics.publish(message)
        said = self._node.wait(frame.stamp_ns, frame.message.header.frame_id, self.report.topic)
        age_ms = (time.monotonic() - begun) * 1e3
        if said is not None:
            self._seeds.saw(said.ids)
        seeded = self._seeds.after(index, None if said is None else frame.message)
        if said is None:
            self.report.dropped.append(Dropped(index, frame.stamp_ns, 'dropped by the node, whose log says why'))
            return None
        self.report.tracked += 1
        self.report.seeded += len(seeded)
        return LiveFrame(
            stamp_ns=frame.stamp_ns,
            labels=said.labels,
            objects=said.objects,
            age_ms=age_ms,
            index=index,
            seeded=tuple(seeded),
            plan_ids=self._seeds.plan_ids,
            processing_ms=said.processing_ms,
            header=said.header,
            frame=frame,
        )

    def _warn_of_others(self) -> None:
        node, topic = self._node.link.node, self.report.topic
        if others := node.get_publishers_info_by_topic(topic):
            names = ', '.join(sorted({f'{info.node_namespace.rstrip("/")}/{info.node_name}' for info in others}))
            node.get_logger().warning(
                f'{names} can publish images on {topic}, too: they come between those of the bag; stop it, or start a '
                'node of its own for the replay'
            )


def replay(path: Path | str | LiveSource, node: str = '/xmem', **options: Any) -> Replay:
    """Replay a bag into a live node, and yield what it says of each image.

    All that the bag holds is published, in its order, as the bytes that lie there: what belongs to an image (camera
    infos, depth and other images of its stamp) before it, then the image; and nothing more until the node has said what
    it sees. Left out are what the tracker itself published, and what no type is installed for; `Replay.report` says
    what, and which images the node dropped.

    Args:
        path: a bag: its folder, or an .mcap or .db3 file; or one that is open, which stays open.
        node: full name of the tracker's node, which is active.
        options: by keyword, see below.

    Options:
        - `image_topic`: topic of the images, where the bag has several and is not open yet.
        - `plan`: seeds to show the node, each after its image was tracked, or a function from the recording to them;
          None: those in the bag.
        - `remaps`: topic of the bag → topic to publish it on; by default the images go where the node listens.
        - `rate`: speed limit, 1 is as recorded; 0: as fast as the node is.
        - `clock`: publish the times of the bag on /clock.
        - `most`: images to replay, dropped ones included; 0: all.
        - `keep`: go on with the objects of the node; otherwise it is reset first.
        - `timeout`: limit for the node and for the masks of one image [s].

    Returns:
        An iterator that is a context manager, too. It leaves the graph at its end.

    Raises:
        BagError: the bag cannot be read, or has no such images.
        ParameterError: an option that is not allowed, or images that the node does not take.
        SeedError: the node refuses a seed, or there is no image for it.
        OutputError: a listener of another topic does not take what is published.
        NodeMissingError, NodeInactiveError, NodeTimeoutError: at once, or while images are shown.
    """
    return Replay(path, node, **options)


def _clock_message(time_ns: int) -> Clock:
    message = Clock()
    message.clock.sec, message.clock.nanosec = divmod(time_ns, 1_000_000_000)
    return message
