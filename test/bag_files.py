# SPDX-License-Identifier: MIT
"""Bags of the rendered scene, written by rosbags."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.recordings import typestore

SIZE = (64, 96)  # height, width of the images, px
TOPIC = '/camera/image_raw'
START_NS = 1_700_000_000_123_456_789
STEP_NS = 33_333_333
LATE_NS = 4_000_000  # from an image's stamp to its recording


def stamp_of(index: int) -> int:
    """Return the stamp of an image [ns]."""
    return START_NS + index * STEP_NS


def scene(frames: int = 8, objects: int = 2, size: tuple[int, int] = SIZE) -> list[tuple[np.ndarray, np.ndarray]]:
    """Render frames H×W×3 uint8 RGB with labels H×W uint8."""
    return list(RenderedScene(size, frames=frames, objects=objects))


def image_message(index: int, frame: np.ndarray, *, compressed: bool = False) -> Any:
    """Make a sensor_msgs/Image, or a CompressedImage with a JPEG."""
    header = typestore.header(stamp_of(index), 'camera')
    if not compressed:
        return typestore.image(header, frame, 'rgb8')
    done, data = cv2.imencode('.jpg', cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert done
    return typestore.make(typestore.COMPRESSED_IMAGE, header=header, format='jpeg', data=data.reshape(-1))


def seeds_message(index: int, seeds: list[Any], ids: list[int]) -> Any:
    """Make an xmem_ros/AcceptedSeeds message."""
    return typestore.accepted_seeds(typestore.header(stamp_of(index), 'camera'), seeds, ids, ids)


def write_bag(
    path: Path, items: list[tuple[str, int, Any]], *, storage: str = 'mcap', compression: str = '', version: int = 8
) -> Path:
    """Write a bag.

    Arguments:
        path: folder of the bag.
        items: (topic, time of recording [ns], message); instead of a message also (type, bytes).
        storage: mcap or sqlite3.
        compression: '', file, message or storage.
        version: version of the metadata.
    """
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    writer = Writer(path, version=version, storage_plugin=StoragePlugin[storage.upper()])  # type: ignore[arg-type]
    if compression:
        writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    connections: dict[str, Any] = {}
    with writer:
        for topic, received_ns, message in items:
            msgtype, raw = (
                message if isinstance(message, tuple) else (message.__msgtype__, typestore.serialize(message))
            )
            if topic not in connections:
                known = msgtype in typestore.typestore().fielddefs
                source = {'typestore': typestore.typestore()} if known else {'msgdef': '', 'rihs01': 'RIHS01_0'}
                connections[topic] = writer.add_connection(topic, msgtype, **source)
            writer.write(connections[topic], received_ns, raw)
    return path


def image_items(
    frames: list[tuple[np.ndarray, np.ndarray]], topic: str = TOPIC, *, compressed: bool = False
) -> list[tuple[str, int, Any]]:
    """Make the items of `write_bag` for the images of a scene."""
    return [
        (topic, stamp_of(index) + LATE_NS, image_message(index, frame, compressed=compressed))
        for index, (frame, _) in enumerate(frames)
    ]


def write_without_chunks(path: Path, items: list[tuple[str, int, Any]]) -> Path:
    """Write an .mcap file without chunks, as `--storage-preset-profile fastwrite` does.

    items: as in `write_bag`, written in their order. The summary has statistics and no offsets.
    """

    record, text = _record, _text
    topics = {topic: message.__msgtype__ for topic, _, message in items}
    channels = b''.join(
        record(0x03, struct.pack('<H', number) + text(msgtype) + text('ros2msg') + text(''))
        + record(0x04, struct.pack('<HH', number, number) + text(topic) + text('cdr') + text(''))
        for number, (topic, msgtype) in enumerate(topics.items(), 1)
    )
    number_of = {topic: number for number, topic in enumerate(topics, 1)}
    data = b'\x89MCAP0\r\n' + record(0x01, text('ros2') + text('test')) + channels
    for topic, received_ns, message in items:
        head = struct.pack('<HIQQ', number_of[topic], 0, received_ns, received_ns)
        data += record(0x05, head + typestore.serialize(message))
    data += record(0x0F, bytes(4))
    times = [received_ns for _, received_ns, _ in items]
    counts = b''.join(
        struct.pack('<HQ', number, sum(item[0] == topic for item in items)) for topic, number in number_of.items()
    )
    told = struct.pack('<QHIIIIQQ', len(items), len(topics), len(topics), 0, 0, 0, min(times), max(times))
    summary = channels + record(0x0B, told + struct.pack('<I', len(counts)) + counts)
    path.write_bytes(data + summary + record(0x02, struct.pack('<QQI', len(data), 0, 0)) + data[:8])
    return path


def write_chunks(
    path: Path, items: list[tuple[str, int, Any]], *, compression: str = '', per_chunk: int = 4, indexed: bool = True
) -> Path:
    """Write an .mcap file whose chunks have checksums, as recorders write them by default.

    Arguments:
        path: the file.
        items: as in `write_bag`, all of one topic.
        compression: '' or zstd.
        per_chunk: messages in a chunk.
        indexed: whether a message index follows each chunk.
    """
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    topic, msgtype = items[0][0], items[0][2].__msgtype__
    channels = _record(0x03, struct.pack('<H', 1) + _text(msgtype) + _text('ros2msg') + _text(''))
    channels += _record(0x04, struct.pack('<HH', 1, 1) + _text(topic) + _text('cdr') + _text(''))
    data = b'\x89MCAP0\r\n' + _record(0x01, _text('ros2') + _text('test')) + channels
    index = b''
    for start in range(0, len(items), per_chunk):
        group = items[start : start + per_chunk]
        times = [received_ns for _, received_ns, _ in group]
        content = b''.join(
            _record(0x05, struct.pack('<HIQQ', 1, 0, time, time) + typestore.serialize(message))
            for _, time, message in group
        )
        packed = zstd.compress(content) if compression else content
        head = struct.pack('<QQQI', min(times), max(times), len(content), zlib.crc32(content)) + _text(compression)
        chunk = _record(0x06, head + struct.pack('<Q', len(packed)) + packed)
        entries = b''.join(struct.pack('<QQ', time, 0) for time in times)
        listed = _record(0x07, struct.pack('<HI', 1, len(entries)) + entries) if indexed else b''
        place = struct.pack('<QQQQI', min(times), max(times), len(data), len(chunk), 0)
        sizes = struct.pack('<QQ', len(packed), len(content))
        index += _record(0x08, place + struct.pack('<Q', len(listed)) + _text(compression) + sizes)
        data += chunk + listed
    data += _record(0x0F, bytes(4))
    times = [received_ns for _, received_ns, _ in items]
    chunks = -(-len(items) // per_chunk)
    told = struct.pack('<QHIIIIQQ', len(items), 1, 1, 0, 0, chunks, min(times), max(times))
    summary = channels + index + _record(0x0B, told + struct.pack('<IHQ', 10, 1, len(items)))
    path.write_bytes(data + summary + _record(0x02, struct.pack('<QQI', len(data), 0, 0)) + data[:8])
    return path


def _record(kind: int, content: bytes) -> bytes:
    return struct.pack('<BQ', kind, len(content)) + content


def _text(content: str) -> bytes:
    return struct.pack('<I', len(content.encode())) + content.encode()
