# SPDX-License-Identifier: MIT
"""All messages of a recording, as bytes to publish; of a video or a folder of frames its images alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xmem_ros.conversions.images import stamp_ns
from xmem_ros.recordings import typestore
from xmem_ros.recordings.recording import BagRecording, open_recording
from xmem_ros.recordings.seed_plan import recorded_seeds
from xmem_ros.recordings.topics import COMPANIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Set
    from pathlib import Path

    from xmem_ros.recordings.recording import RecordedFrame
    from xmem_ros.recordings.seed_plan import PlannedSeeds

CLIP_TOPIC = '/image'  # of what has no topics


@dataclass(frozen=True, eq=False)
class LiveMessage:
    """A message as it lies in the bag."""

    topic: str
    msgtype: str
    received_ns: int
    data: bytes  # CDR
    stamp_ns: int | None = None  # of the header of an image or of what belongs to one, where it can be read
    frame: RecordedFrame | None = None  # of the topic of the images, where it can be read


class LiveSource:
    """A recording that is open; a context manager.

    Arguments:
        path: a bag, a video file or a folder of frames.
        image_topic: of the images, where a bag has several.

    Raises:
        BagError, FrameError, ParameterError: as `open_recording`.
    """

    def __init__(self, path: Path | str, image_topic: str = '') -> None:
        self.recording = open_recording(path, image_topic)
        self.length = self.recording.length  # images, as far as known
        self.topics: dict[str, str]  # name → type
        self.offered: dict[str, list[Any]]  # name → QoS of the recorded publishers, of rosbags
        if isinstance(self.recording, BagRecording):
            self.image_topic = self.recording.image_topic
            connections = self.recording.bag.connections
            self.topics = {item.topic: item.msgtype for item in connections}
            self.offered = {item.topic: list(item.ext.offered_qos_profiles) for item in connections}
        else:
            self.image_topic = CLIP_TOPIC
            self.topics, self.offered = {CLIP_TOPIC: typestore.IMAGE}, {CLIP_TOPIC: []}

    def recorded_seeds(self) -> list[PlannedSeeds]:
        """The seeds that a node accepted while the bag was recorded; empty where there are none. Raises `BagError`."""
        return recorded_seeds(self.recording) if isinstance(self.recording, BagRecording) else []

    @property
    def image_type(self) -> str:
        """Type of the images."""
        return self.topics[self.image_topic]

    @property
    def damage(self) -> str:
        """Why not all of it could be read; '' where it could. Known once `messages` has ended."""
        return self.recording.damage

    def messages(self, left_out: Set[str] = frozenset()) -> Iterator[LiveMessage]:
        """Yield the messages of all topics but some, in order. Raises `BagError` where not even one can be read."""
        recording = self.recording
        if not isinstance(recording, BagRecording):
            yield from _clip_messages(recording)
            return
        index = 0
        wanted = [connection for connection in recording.bag.connections if connection.topic not in left_out]
        for connection, received_ns, raw in recording.raw(wanted):
            stamp: int | None = None
            found: RecordedFrame | None = None
            if recording.is_frame(connection):
                found = recording.frame_of(index, received_ns, raw)
                stamp = None if found is None else found.stamp_ns
                index += 1
            elif connection.msgtype in COMPANIONS:
                stamp = _stamp(raw, connection.msgtype)
            yield LiveMessage(connection.topic, connection.msgtype, received_ns, bytes(raw), stamp, found)

    def close(self) -> None:
        """Close its files."""
        self.recording.close()

    def __enter__(self) -> LiveSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _clip_messages(recording: Any) -> Iterator[LiveMessage]:
    """Of a video or folder; frames that cannot be used have a message, too, since what follows keeps its number."""
    index = 0

    def unusable(until: int) -> Iterator[LiveMessage]:
        nonlocal index
        for number in range(index, until):
            yield LiveMessage(CLIP_TOPIC, typestore.IMAGE, recording.stamp_of(number), b'')
        index = max(index, until)

    for frame in recording.frames():
        yield from unusable(frame.index)
        data = typestore.serialize(frame.message)
        yield LiveMessage(CLIP_TOPIC, typestore.IMAGE, frame.received_ns, data, frame.stamp_ns, frame)
        index += 1
    yield from unusable(max((fault.index + 1 for fault in recording.faults), default=0))


def _stamp(raw: bytes, msgtype: str) -> int | None:
    """Of the header [ns]; None where the message cannot be read."""
    try:
        return stamp_ns(typestore.deserialize(raw, msgtype).header.stamp)
    except Exception:  # of whatever the bytes say
        return None
