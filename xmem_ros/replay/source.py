# SPDX-License-Identifier: MIT
"""Serialized messages for a replay: all of a bag, or the images of a video or folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xmem_ros.conversions.images import stamp_ns
from xmem_ros.recordings import typestore
from xmem_ros.recordings.recording import BagRecording, open_recording
from xmem_ros.recordings.seed_plan import recorded_seeds
from xmem_ros.recordings.topics import COMPANION_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator, Set
    from pathlib import Path

    from xmem_ros.recordings.recording import RecordedFrame
    from xmem_ros.recordings.seed_plan import PlannedSeeds

CLIP_TOPIC = '/image'  # for recordings without topics


@dataclass(frozen=True, eq=False)
class RecordedMessage:
    """A serialized message of the bag."""

    topic: str
    msgtype: str
    received_ns: int
    data: bytes  # CDR
    stamp_ns: int | None = None  # header stamp of an image or companion; None: unreadable
    frame: RecordedFrame | None = None  # decoded, on the image topic; None: unreadable


class ReplaySource:
    """An open recording; a context manager.

    Arguments:
        path: a bag, a video file or a folder of frames.
        image_topic: of the images, if a bag has several.

    Raises:
        BagError, FrameError, ParameterError: as `open_recording`.
    """

    def __init__(self, path: Path | str, image_topic: str = '') -> None:
        self.recording = open_recording(path, image_topic)
        self.length = self.recording.length  # images; None: unknown
        self.topics: dict[str, str]  # name → type
        self.offered: dict[str, list[Any]]  # name → Qos (rosbags) of the recorded publishers
        if isinstance(self.recording, BagRecording):
            self.image_topic = self.recording.image_topic
            connections = self.recording.bag.connections
            self.topics = {item.topic: item.msgtype for item in connections}
            self.offered = {item.topic: list(item.ext.offered_qos_profiles) for item in connections}
        else:
            self.image_topic = CLIP_TOPIC
            self.topics, self.offered = {CLIP_TOPIC: typestore.IMAGE}, {CLIP_TOPIC: []}

    def recorded_seeds(self) -> list[PlannedSeeds]:
        """Return the plan of the bag's recorded seeds, [] if none; raises `BagError`."""
        return recorded_seeds(self.recording) if isinstance(self.recording, BagRecording) else []

    @property
    def image_type(self) -> str:
        """Type of the images."""
        return self.topics[self.image_topic]

    @property
    def damage(self) -> str:
        """What could not be read, or ''; complete once `messages` has ended."""
        return self.recording.damage

    def messages(self, excluded: Set[str] = frozenset()) -> Iterator[RecordedMessage]:
        """Yield the messages in order, except excluded topics; `BagError` if none can be read."""
        recording = self.recording
        if not isinstance(recording, BagRecording):
            yield from _clip_messages(recording)
            return
        index = 0
        wanted = [connection for connection in recording.bag.connections if connection.topic not in excluded]
        for connection, received_ns, raw in recording.raw(wanted):
            stamp: int | None = None
            found: RecordedFrame | None = None
            if recording.is_frame(connection):
                found = recording.frame_of(index, received_ns, raw)
                stamp = None if found is None else found.stamp_ns
                index += 1
            elif connection.msgtype in COMPANION_TYPES:
                stamp = _stamp(raw, connection.msgtype)
            yield RecordedMessage(connection.topic, connection.msgtype, received_ns, bytes(raw), stamp, found)

    def close(self) -> None:
        """Close the files."""
        self.recording.close()

    def __enter__(self) -> ReplaySource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _clip_messages(recording: Any) -> Iterator[RecordedMessage]:
    """Yield the frames of a video or folder, with empty messages for unreadable ones."""
    index = 0

    def unusable(until: int) -> Iterator[RecordedMessage]:
        nonlocal index
        for number in range(index, until):
            yield RecordedMessage(CLIP_TOPIC, typestore.IMAGE, recording.stamp_of(number), b'')
        index = max(index, until)

    for frame in recording.frames():
        yield from unusable(frame.index)
        data = typestore.serialize(frame.message)
        yield RecordedMessage(CLIP_TOPIC, typestore.IMAGE, frame.received_ns, data, frame.stamp_ns, frame)
        index += 1
    yield from unusable(max((fault.index + 1 for fault in recording.faults), default=0))


def _stamp(raw: bytes, msgtype: str) -> int | None:
    """Return the header stamp [ns]; None if the message is unreadable."""
    try:
        return stamp_ns(typestore.deserialize(raw, msgtype).header.stamp)
    except Exception:  # depends on the bytes
        return None
