# SPDX-License-Identifier: MIT
"""A recording: the images of a bag, a video or a folder of frames, one after the other. No rclpy.

with open_recording(path) as recording:
    for frame in recording.frames():
        rgb = rgb_of(frame.message)
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmem_ros.conversions.images import stamp_ns
from xmem_ros.errors import BagError, FrameError, listed
from xmem_ros.media import FOLDER_RATE, Clip
from xmem_ros.progress import Bar
from xmem_ros.recordings import typestore
from xmem_ros.recordings.compression import ENDINGS, is_compressed
from xmem_ros.recordings.limits import MOST_FAULTS, MOST_MESSAGE
from xmem_ros.recordings.rosbag import OpenBag, is_bag
from xmem_ros.recordings.topics import meant, told
from xmem_ros.recordings.typestore import COMPRESSED_IMAGE, IMAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIP_START_NS = 1_000_000_000  # stamp of a clip's first frame: a stamp of zero means none


@dataclass(frozen=True)
class Topic:
    """A topic of a recording."""

    name: str
    msgtype: str
    count: int  # messages


@dataclass(frozen=True)
class RecordedFrame:
    """An image of a recording. That it can be decoded is not said."""

    index: int  # from 0, of all images of the topic
    stamp_ns: int  # of its header
    received_ns: int  # when it was recorded
    message: Any  # sensor_msgs/Image or CompressedImage, a dataclass of rosbags
    name: str  # of files that belong to it


@dataclass(frozen=True)
class Fault:
    """An image that is not to be had."""

    index: int
    reason: str


class Recording(abc.ABC):
    """Images in order; a context manager. It can be read any number of times, by one reader at a time."""

    path: Path
    image_topic: str  # '' of a clip
    topics: list[Topic]
    length: int | None  # images, as far as known
    exact: bool  # whether that can be relied on
    rate: float  # images a second
    damage: str  # '' or why not all of it could be read; known once `frames` has ended
    file_names: dict[str, str]  # name of a frame → that of its file; empty of a bag or video
    faults: list[Fault]  # messages that are no images, as far as `frames` has come; they have an index and are left out

    @abc.abstractmethod
    def frames(self, start: int = 0) -> Iterator[RecordedFrame]:
        """Yield the images from the index `start` on. Raises `BagError` where not even one can be read."""

    def stamps(self) -> list[int]:
        """Stamps of all images [ns], in order; those that are no images have −1. Reads all of the recording."""
        found: list[int] = []
        for frame in Bar(self.frames(), total=self.length, unit='image', desc='reading stamps'):
            found += [-1] * (frame.index - len(found)) + [frame.stamp_ns]
        return found

    @abc.abstractmethod
    def close(self) -> None:
        """Close its files."""

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_recording(path: Path | str, image_topic: str = '') -> Recording:
    """Open a bag, a video or a folder of frames.

    Arguments:
        path: a bag's folder or its .mcap or .db3 file (also .zstd), a video file, or a folder of images.
        image_topic: of a bag; may be left out where there is one.

    Raises:
        BagError: not a bag, empty, no images, several topics of images (named), another type.
        FrameError: not a video or folder of frames that can be read.
        ParameterError: rosbags is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise BagError(f'{path}: no such video file, folder of frames or bag')
    if path.suffix == '.bag':
        raise BagError(f'{path}: a bag of ROS 1; make one of ROS 2 of it: rosbags-convert --src {path} --dst FOLDER')
    if is_bag(path):
        return BagRecording(path, image_topic)
    if path.suffix in ENDINGS:
        raise BagError(
            f'{path}: compressed, and by its name no file of a bag (.mcap.zstd, .db3.zstd); unpack it (zstd -d)'
        )
    if image_topic:
        raise BagError(f'{path}: not a bag, so it has no topic {image_topic}; leave the image topic out')
    return ClipRecording(path)


class ClipRecording(Recording):
    """A video or a folder of frames. Stamps begin at one second; a folder has 30 frames a second."""

    def __init__(self, path: Path) -> None:
        self.path, self.image_topic, self.topics = path, '', []
        self._clip = Clip(path)
        self.length = len(self._clip) or None
        self.exact = path.is_dir()  # what a video says of itself may be wrong
        self.rate = self._clip.rate
        self.file_names = self._clip.file_names
        self.damage = ''
        self.faults = []

    def frames(self, start: int = 0) -> Iterator[RecordedFrame]:
        """Yield the frames. One that cannot be read or has another size is left out and noted in `faults`."""
        self.faults = []
        for index, (name, pixels) in enumerate(self._clip.frames()):
            if index < start:
                continue
            if isinstance(pixels, FrameError):
                self.faults.append(Fault(index, str(pixels)))
                continue
            stamp = self.stamp_of(index)
            message = typestore.image(typestore.header(stamp, ''), pixels, 'rgb8')
            yield RecordedFrame(index, stamp, stamp, message, name)

    def stamp_of(self, index: int) -> int:
        """Of a frame [ns]."""
        return CLIP_START_NS + round(index * 1e9 / self.rate)

    def close(self) -> None:
        """Nothing is open between two calls of `frames`."""


class BagRecording(Recording):
    """The images of one topic of a bag."""

    def __init__(self, path: Path, image_topic: str = '') -> None:
        self.path = path
        self.bag = OpenBag(path)
        try:
            self.topics = [Topic(c.topic, c.msgtype, c.msgcount) for c in self.bag.connections]
            self._connection = self._choose(image_topic)
        except BaseException:
            self.bag.close()
            raise
        self.image_topic = self._connection.topic
        self.length = self._connection.msgcount or None
        self.rate = self._rate()
        self.damage = self.bag.damage
        self.exact = not self.damage
        self.file_names = {}
        self.faults = []

    def frames(self, start: int = 0) -> Iterator[RecordedFrame]:
        """Yield the images. What is no message of the topic's type is left out and noted in `faults`."""
        self.faults = []
        for index, (_, received_ns, raw) in enumerate(self.raw([self._connection])):
            if index >= start:
                frame = self.frame_of(index, received_ns, raw)
                if frame is not None:
                    yield frame

    def raw(self, connections: list[Any]) -> Iterator[tuple[Any, int, bytes]]:
        """Yield connection, time [ns] and serialized message, as far as the bag can be read; then `damage` says so.

        connections: of `self.bag.connections`; empty: all.
        """
        count = 0
        self.damage = self.bag.damage
        source = self.bag.messages(connections)
        while True:
            try:
                item = next(source)
            except StopIteration:
                break
            except Exception as error:  # of whatever the bytes say
                text = str(error).rstrip('.') or type(error).__name__
                self.damage = f'{self.damage}; ' if self.damage else ''
                self.damage += f'{self.path} cannot be read further than {count} messages ({text})'
                break
            count += 1
            yield item
        if not count:
            raise BagError(
                f'{self.path}: no message can be read: {self.damage or "it is empty"}; record or copy it again'
            )

    def frame_of(self, index: int, received_ns: int, raw: bytes) -> RecordedFrame | None:
        """The image of a message; None where it is none, which is noted in `faults`."""
        try:
            if is_compressed(raw):
                raise BagError(f'its compressed data is damaged, or becomes more than {MOST_MESSAGE} bytes')
            message = typestore.deserialize(raw, self._connection.msgtype)
            stamp = stamp_ns(message.header.stamp)
        except Exception as error:  # of whatever the bytes say
            if len(self.faults) >= MOST_FAULTS:
                raise BagError(
                    f'{self.path}: more than {MOST_FAULTS} messages of {self.image_topic} are no images'
                ) from error
            reason = str(error).rstrip('.') or type(error).__name__
            self.faults.append(Fault(index, f'not a {self._connection.msgtype} ({reason})'))
            return None
        return RecordedFrame(index, stamp, received_ns, message, f'{index:06d}')

    def is_frame(self, connection: Any) -> bool:
        """Whether a connection of the bag is that of the images."""
        return bool(connection.id == self._connection.id)

    def close(self) -> None:
        """Close its files."""
        self.bag.close()

    def _rate(self) -> float:
        seconds = self.bag.span_ns / 1e9
        count = self._connection.msgcount
        # messages of the same time, as of a damaged bag, have no rate
        return (count - 1) / seconds if count > 1 and seconds > 0 and count / seconds < 1000 else FOLDER_RATE

    def _choose(self, wanted: str) -> Any:
        known = listed([f'{t.name} ({t.msgtype}, {t.count} messages)' for t in self.topics], 30) or 'no topics'
        images = [c for c in self.bag.connections if c.msgtype in (IMAGE, COMPRESSED_IMAGE)]
        if wanted:
            return self._named(wanted, images, known)
        filled = {c.topic: c for c in images if c.msgcount}
        taken, left_out = meant(filled)
        others = told(left_out, '--image-topic ')
        if not taken:
            raise BagError(
                f'{self.path}: no images in this bag (sensor_msgs/Image or CompressedImage)'
                f'{f" but these, {others}" if others else ""}; it has {known}'
                f'{f"; {self.bag.damage}" if self.bag.damage else ""}'
            )
        if len(taken) > 1:
            raise BagError(
                f'{self.path}: several topics have images: '
                f'{listed([f"{topic} ({filled[topic].msgcount})" for topic in taken], 30)}; '
                f'name one: --image-topic {taken[0]}{f"; {others}" if others else ""}'
            )
        return filled[taken[0]]

    def _named(self, wanted: str, images: list[Any], known: str) -> Any:
        found = [c for c in images if c.topic == wanted]
        if not found:
            other = [c for c in self.bag.connections if c.topic == wanted]
            if other:
                raise BagError(
                    f'{self.path}: {wanted} is {other[0].msgtype}; images are sensor_msgs/msg/Image or CompressedImage'
                )
            names = listed([c.topic for c in images], 30) or f'none; it has {known}'
            raise BagError(f'{self.path}: no topic {wanted}; topics with images: {names}')
        if not found[0].msgcount:
            raise BagError(f'{self.path}: {wanted} has no messages; it has {known}')
        return found[0]


__all__ = [
    'BagError',
    'BagRecording',
    'ClipRecording',
    'Fault',
    'FrameError',
    'RecordedFrame',
    'Recording',
    'Topic',
    'is_bag',
    'open_recording',
]
