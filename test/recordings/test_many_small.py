# SPDX-License-Identifier: MIT
"""Recordings of too many items, each below its limit, are refused before they take minutes."""

from __future__ import annotations

import sqlite3
import struct
import sys

import pytest
from needs import require

require('rosbags.rosbag2')

from bag_files import TOPIC, image_items, scene, seeds_message, stamp_of, write_bag

from xmem_ros.errors import BagError
from xmem_ros.recordings import limits, typestore
from xmem_ros.recordings.recording import open_recording
from xmem_ros.recordings.seed_plan import recorded_seeds
from xmem_ros.recordings.typestore import ACCEPTED_SEEDS, IMAGE, count_points

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COUNT = 3
QOS = '- {history: 1, depth: 5, reliability: 1, durability: 2}\n'
UNKNOWN = struct.pack('<BQ', 0x77, 0)  # a record of an unknown kind without content


@pytest.fixture(scope='module')
def frames():
    return scene(COUNT)


def record(kind, content):
    return struct.pack('<BQ', kind, len(content)) + content


def text(content):
    return struct.pack('<I', len(content)) + content


def schema(number, msgtype, definition=''):
    return record(3, struct.pack('<H', number) + text(msgtype.encode()) + text(b'ros2msg') + text(definition.encode()))


def channel(number, schema_id, topic, qos=''):
    more = text(text(b'offered_qos_profiles') + text(qos.encode())) if qos else text(b'')
    return record(4, struct.pack('<HH', number, schema_id) + text(topic.encode()) + text(b'cdr') + more)


def message(number, index, content):
    return record(5, struct.pack('<HIQQ', number, 0, stamp_of(index), stamp_of(index)) + content)


def chunk(content):
    packed = zstd.compress(content)
    head = struct.pack('<QQQI', stamp_of(0), stamp_of(COUNT), len(content), 0) + text(b'zstd')
    return record(6, head + struct.pack('<Q', len(packed)) + packed)


def write_mcap(path, frames, *records):
    """Write images on channel 1, and further records before them, without an index."""
    images = image_items(frames)
    own = [message(1, index, typestore.serialize(item[2])) for index, item in enumerate(images)]
    parts = [record(1, text(b'ros2') + text(b'test')), schema(1, IMAGE), channel(1, 1, TOPIC), *records, *own]
    path.write_bytes(
        b'\x89MCAP0\r\n' + b''.join(parts) + record(0x0F, bytes(4)) + record(2, bytes(20)) + b'\x89MCAP0\r\n'
    )
    return path


@pytest.mark.parametrize('item', [UNKNOWN, record(5, struct.pack('<HIQQ', 1, 0, 5, 5))], ids=['unknown', 'message'])
def test_a_chunk_with_more_records_than_compressed_bytes_is_refused(frames, tmp_path, item):
    path = write_mcap(tmp_path / 'x.mcap', frames, chunk(item * 1_000_000))
    assert path.stat().st_size < 200_000
    with pytest.raises(BagError, match='no images'), open_recording(path):
        pass


def test_a_chunk_of_messages_without_content_is_read(frames, tmp_path):
    """std_msgs/Empty at 1 kHz, the shortest messages that a recorder writes."""
    steady = b''.join(
        record(5, struct.pack('<HIQQ', 2, 0, time, time) + b'\x00\x01\x00\x00\x00')
        for time in range(stamp_of(0), stamp_of(0) + 20_000 * 1_000_000, 1_000_000)
    )
    kinds = schema(2, 'std_msgs/msg/Empty') + channel(2, 2, '/tick')
    with open_recording(write_mcap(tmp_path / 'x.mcap', frames, kinds, chunk(steady))) as recording:
        assert {topic.name: topic.count for topic in recording.topics} == {TOPIC: COUNT, '/tick': 20_000}


def test_qos_of_all_topics_is_bounded_together(frames, tmp_path):
    """The QoS of each topic alone has an allowed length."""
    qos = QOS * (60_000 // len(QOS))
    many = b''.join(channel(number, 1, f'/t{number}', qos + f'# {number}') for number in range(2, 100))
    with pytest.raises(BagError, match='characters of QoS'):
        open_recording(write_mcap(tmp_path / 'x.mcap', frames, chunk(many)))
    database = write_bag(tmp_path / 'bag', image_items(frames), storage='sqlite3') / 'bag.db3'
    with sqlite3.connect(database) as rows:
        kinds = 'id, name, type, serialization_format, offered_qos_profiles, type_description_hash'
        for number in range(2, 100):
            values = (number, f'/t{number}', IMAGE, 'cdr', qos, '')
            rows.execute(f'INSERT INTO topics({kinds}) VALUES(?, ?, ?, ?, ?, ?)', values)
    with pytest.raises(BagError, match='characters of QoS'):
        open_recording(database)


@pytest.mark.parametrize('name', ['rowid', 'OID', '_rowid_'])
def test_a_column_that_hides_the_row_number_is_refused(frames, tmp_path, name):
    """The column has no index, so each message would be searched for in all rows."""
    database = write_bag(tmp_path / 'bag', image_items(frames), storage='sqlite3') / 'bag.db3'
    with sqlite3.connect(database) as rows:
        rows.execute(f'ALTER TABLE messages ADD COLUMN {name} INTEGER')
    with pytest.raises(BagError, match='row number'):
        open_recording(database)


# --- seeds


def recording_of(tmp_path, frames, raw, definition=''):
    kinds = schema(2, ACCEPTED_SEEDS, definition) + channel(2, 2, '/xmem/seeds')
    return open_recording(write_mcap(tmp_path / 'x.mcap', frames, kinds, chunk(message(2, 0, raw))))


def test_a_definition_of_a_megabyte_is_not_parsed(frames, tmp_path):
    raw = typestore.serialize(seeds_message(0, [typestore.seed(1, name='cup', around=(20, 10, 30, 30))], [1]))
    definition = 'uint8 a\n' * (limits.MAX_DEFINITION_LENGTH // 8)
    with recording_of(tmp_path, frames, raw, definition) as recording, pytest.raises(BagError, match='other fields'):
        recorded_seeds(recording)


def test_points_are_counted_before_a_message_is_deserialized(monkeypatch, frames, tmp_path):
    seeds = [
        typestore.seed(0, name='a mask', mask=frames[0][1] > 0),
        typestore.seed(2, name='pen', points=[(1, 1)] * 5, point_labels=[1] * 5),
        typestore.seed(1, name='cup', around=(20, 10, 30, 30)),
        typestore.seed(2, name='', points=[(1, 1)] * 7, point_labels=[0, 1] * 3 + [0]),
    ]
    raw = typestore.serialize(seeds_message(0, seeds, [1, 2, 3, 4]))
    assert count_points(raw) == 12
    for length in range(0, len(raw) - 60, 7):
        with pytest.raises(BagError, match='cut off'):
            count_points(raw[:length])

    def refuse(*_):
        raise AssertionError('deserialized')

    monkeypatch.setattr(typestore, 'deserialize', refuse)
    million = typestore.seed(2, points=[(1, 1)], point_labels=[1])
    raw = typestore.serialize(seeds_message(0, [million], [1]))
    point = struct.pack('<Ifff', 1, 1, 1, 0)
    raw = raw.replace(point, struct.pack('<I', 1_000_000) + point[4:] * 1_000_000)
    with recording_of(tmp_path, frames, raw) as recording, pytest.raises(BagError, match='100000 points'):
        recorded_seeds(recording)


def test_a_message_of_thousands_of_seeds_is_refused(frames, tmp_path):
    raw = typestore.serialize(seeds_message(0, [typestore.seed(1, around=(20, 10, 30, 30))] * 1001, [1]))
    with recording_of(tmp_path, frames, raw) as recording, pytest.raises(BagError, match='1001 seeds'):
        recorded_seeds(recording)
