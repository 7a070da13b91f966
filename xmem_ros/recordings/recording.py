# SPDX-License-Identifier: MIT
"""Recordings: the images of a bag, a video or a folder of frames, in order. Imports no rclpy.

with open_recording(path) as recording:
    for frame in recording.frames():
        rgb = rgb_of(frame.message)
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xmem_ros.conversions.images import stamp_ns
from xmem_ros.errors import BagError, FrameError, Setting, listed, naming
from xmem_ros.media import FOLDER_RATE
from xmem_ros.progress import Bar
from xmem_ros.recordings import typestore
from xmem_ros.recordings.compression import COMPRESSED_SUFFIXES, is_compressed
from xmem_ros.recordings.limits import LOST, MAX_FAULTS, MAX_MESSAGE_BYTES
from xmem_ros.recordings.rosbag import OpenBag, is_bag
from xmem_ros.recordings.topics import default_image_topics, describe_excluded
from xmem_ros.recordings.typestore import COMPRESSED_IMAGE, IMAGE
from xmem_ros.video.clip import Clip

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIP_START_NS = 1_000_000_000  # stamp of a clip's first frame; zero means no stamp


@dataclass(frozen=True)
class Topic:
    """A topic of a recording."""

    name: str
    msgtype: str
    count: int  # messages


@dataclass(frozen=True)
class RecordedFrame:
    """An image of a recording, possibly not decodable."""

    index: int  # from 0, among all messages of the image topic
    stamp_ns: int  # from its header
    received_ns: int  # recording time
    message: Any  # sensor_msgs/Image or CompressedImage, a dataclass of rosbags
    name: str  # stem for files of this image


@dataclass(frozen=True)
class Fault:
    """An image that cannot be read."""

    index: int
    reason: str


class Recording(abc.ABC):
    """Images in order; a context manager. Can be read repeatedly, one reader at a time."""

    path: Path
    image_topic: str  # '' for a video or folder
    topics: list[Topic]
    length: int | None  # images; None: unknown
    exact: bool  # whether `length` is reliable
    rate: float  # images per second
    damage: str  # unreadable parts, or ''; complete once `frames` has ended
    file_names: dict[str, str]  # frame name → file name; empty for a bag or video
    faults: list[Fault]  # unreadable images so far; they keep their index and are skipped
    notes: list[str]  # on how the recording is read

    @abc.abstractmethod
    def frames(self, start: int = 0) -> Iterator[RecordedFrame]:
        """Yield the images from index `start` on; raises `BagError` if none can be read."""

    def stamps(self) -> list[int]:
        """Return the stamps of all images [ns], −1 for unreadable ones; reads everything."""
        found: list[int] = []
        for frame in Bar(self.frames(), total=self.length, unit='image', desc='reading stamps'):
            found += [-1] * (frame.index - len(found)) + [frame.stamp_ns]
        return found

    @abc.abstractmethod
    def close(self) -> None:
        """Close the files."""

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_recording(path: Path | str, image_topic: str = '') -> Recording:
    """Open a bag, a video or a folder of frames.

    Arguments:
        path: a bag's folder, an .mcap or .db3 file (also .zstd), a video, or a folder of images.
        image_topic: image topic of a bag; optional if it has only one.

    Raises:
        BagError: not a bag, empty, no images, several image topics, or a topic of another type.
        FrameError: not a readable video or folder of frames.
        ParameterError: rosbags is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise BagError(
            f'{path}: no such file or folder; give a bag (folder, .mcap or .db3 file), a video file, or a folder of '
            'images'
        )
    if path.suffix == '.bag':
        raise BagError(f'{path}: a ROS 1 bag; convert it to ROS 2: rosbags-convert --src {path} --dst FOLDER')
    if is_bag(path):
        return BagRecording(path, image_topic)
    if path.suffix in COMPRESSED_SUFFIXES:
        raise BagError(
            f'{path}: a compressed file, but its name does not end in .mcap.zstd or .db3.zstd; unpack it (zstd -d)'
        )
    if image_topic:
        raise BagError(f'{path}: not a bag, so it has no topic {image_topic}; omit the image topic')
    return ClipRecording(path)


class ClipRecording(Recording):
    """A video or a folder of frames.

    Stamps begin at 1 s. A video has its own times, a folder 30 frames per second.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.image_topic, self.topics = path, '', []
        self._clip = Clip(path)
        self.length = len(self._clip)
        self.exact = True
        self.rate, self.notes = self._clip.rate, self._clip.notes
        self.file_names = self._clip.file_names
        self.damage = ''
        self.faults = []

    def frames(self, start: int = 0) -> Iterator[RecordedFrame]:
        """Yield the frames; one that is unreadable or differs in size goes to `faults`.

        Those of a video are damage, too.
        """
        self.faults, self.damage = [], self._clip.damage
        lost, length = 0, len(self._clip)
        for index, (name, pixels) in enumerate(self._clip.frames(deep=True)):
            if isinstance(pixels, FrameError):
                lost += 1
                if index >= start:
                    self.faults.append(Fault(index, str(pixels)))
            elif index >= start:
                stamp = self.stamp_of(index)
                message = typestore.image(typestore.header(stamp, ''), pixels, _encoding_of(pixels))
                yield RecordedFrame(index, stamp, stamp, message, name)
            if not self._clip.file_names:
                said = f'{self.path}: {length - lost} of {length} frames could be read' if lost else ''
                self.damage = '; '.join(filter(None, [self._clip.damage, said]))

    def stamp_of(self, index: int) -> int:
        """Return the stamp of a frame [ns]."""
        return CLIP_START_NS + self._clip.time_ns(index)

    def close(self) -> None:
        """Do nothing: no file is open between calls of `frames`."""


def _encoding_of(pixels: np.ndarray) -> str:
    """Return the encoding of pixels as `Clip` reads them."""
    if pixels.ndim == 3:
        return 'rgb8' if pixels.dtype == np.uint8 else 'rgb16'
    return {'u': 'mono16', 'i': '32SC1', 'f': '32FC1'}[pixels.dtype.kind]


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
        self.file_names, self.notes = {}, []
        self.faults = []

    def frames(self, start: int = 0) -> Iterator[RecordedFrame]:
        """Yield the images; a message that is not of the topic's type goes to `faults`."""
        self.faults = []
        for index, (_, received_ns, raw) in enumerate(self.raw([self._connection])):
            if index >= start:
                frame = self.frame_of(index, received_ns, raw)
                if frame is not None:
                    yield frame

    def raw(self, connections: list[Any]) -> Iterator[tuple[Any, int, bytes]]:
        """Yield connection, time [ns] and serialized message until the end or the first damage.

        An image that is lost with a damaged part of the file is `LOST`, and keeps its place.

        connections: some of `self.bag.connections`; empty: all. `damage` is set afterwards.
        """
        count = images = lost = 0
        self.damage = self.bag.damage
        source = self.bag.messages(connections, keep_lost=True)
        while True:
            try:
                item = next(source)
            except StopIteration:
                break
            except Exception as error:  # depends on the bytes
                text = str(error).rstrip('.') or type(error).__name__
                self._note(f'{self.path} cannot be read beyond {count} messages ({text})')
                break
            is_lost = item[2] is LOST
            lost += is_lost
            count += not is_lost
            images += self.is_frame(item[0]) and not is_lost
            if not is_lost or self.is_frame(item[0]):
                yield item
        if lost:
            self._note(f'{self.path}: {lost} messages are lost with damaged parts of it')
        wanted = not connections or any(self.is_frame(connection) for connection in connections)
        if wanted and count and images < (counted := self._counted):
            self._note(f'{self.path}: {images} of the {counted} images on {self.image_topic} could be read')
        if not count:
            raise BagError(
                f'{self.path}: no message can be read ({self.damage or "it is empty"}); record or copy it again'
            )

    def frame_of(self, index: int, received_ns: int, raw: bytes) -> RecordedFrame | None:
        """Return the image of a message; None, with an entry in `faults`, if it is not one."""
        if raw is LOST:
            self._add_fault(index, 'it is lost with a damaged part of the bag')
            return None
        try:
            if is_compressed(raw):
                raise BagError(f'its compressed data is damaged, or expands to more than {MAX_MESSAGE_BYTES} bytes')
            message = typestore.deserialize(raw, self._connection.msgtype)
            stamp = stamp_ns(message.header.stamp)
        except Exception as error:  # depends on the bytes
            reason = str(error).rstrip('.') or type(error).__name__
            self._add_fault(index, f'not a {self._connection.msgtype} ({reason})')
            return None
        return RecordedFrame(index, stamp, received_ns, message, f'{index:06d}')

    def _add_fault(self, index: int, reason: str) -> None:
        if len(self.faults) >= MAX_FAULTS:
            raise BagError(f'{self.path}: more than {MAX_FAULTS} messages of {self.image_topic} are not images')
        self.faults.append(Fault(index, reason))

    def is_frame(self, connection: Any) -> bool:
        """Return whether a connection of the bag has the images."""
        return bool(connection.id == self._connection.id)

    def close(self) -> None:
        """Close the files."""
        self.bag.close()

    @property
    def _counted(self) -> int:
        """Number of images by the index of the files, or by `metadata.yaml`."""
        listed = self.bag.counts.get((self.image_topic, self._connection.msgtype), 0)
        return max(int(self._connection.msgcount), listed)

    def _note(self, damage: str) -> None:
        self.damage = f'{self.damage}; {damage}' if self.damage else damage

    def _rate(self) -> float:
        seconds = self.bag.span_ns / 1e9
        count = self._connection.msgcount
        # equal times, as in a damaged bag, give no rate
        return (count - 1) / seconds if count > 1 and seconds > 0 and count / seconds < 1000 else FOLDER_RATE

    def _choose(self, wanted: str) -> Any:
        known = listed([f'{t.name} ({t.msgtype}, {t.count} messages)' for t in self.topics], 30) or 'no topics'
        images = [c for c in self.bag.connections if c.msgtype in (IMAGE, COMPRESSED_IMAGE)]
        if wanted:
            return self._named(wanted, images, known)
        filled = {c.topic: c for c in images if c.msgcount}
        eligible, excluded = default_image_topics(filled)
        others = describe_excluded(excluded, 'name ')
        if not eligible:
            error = BagError(
                f'{self.path}: no images in this bag (sensor_msgs/Image or CompressedImage)'
                f'{f"; {others}" if others else ""}; it has {known}'
                f'{f"; {self.bag.damage}" if self.bag.damage else ""}'
            )
            raise naming(Setting.IMAGE_TOPIC, error) if others else error
        if len(eligible) > 1:
            raise naming(
                Setting.IMAGE_TOPIC,
                BagError(
                    f'{self.path}: several topics have images: '
                    f'{listed([f"{topic} ({filled[topic].msgcount})" for topic in eligible], 30)}; '
                    f'{f"{others}; " if others else ""}name one image topic, such as {eligible[0]}'
                ),
            )
        return filled[eligible[0]]

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
            raise BagError(f'{self.path}: {wanted} has no messages; the bag has {known}')
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
