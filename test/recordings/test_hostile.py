# SPDX-License-Identifier: MIT
"""Hostile recordings are read up to the fault or refused, and do no harm."""

from __future__ import annotations

import sqlite3
import struct
import sys
import tracemalloc
import zlib

import pytest
from needs import require

require('rosbags.rosbag2')

from bag_files import TOPIC, image_items, scene, seeds_message, stamp_of, write_bag, write_without_chunks
from recordings.test_bag_files import record_more_and_be_killed
from scene_files import save_mask

from xmem_ros.cli.main import main
from xmem_ros.errors import BagError, ParameterError
from xmem_ros.media import FOLDER_RATE
from xmem_ros.recordings import compression, mcap_reader, rosbag
from xmem_ros.recordings import typestore as messages
from xmem_ros.recordings.recording import open_recording
from xmem_ros.recordings.seed_plan import recorded_seeds
from xmem_ros.replay.ros2_bag_play import topics_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COUNT = 4
MAX_MESSAGE_BYTES = 256 * 2**20  # bytes, as in xmem_ros.recordings.limits


@pytest.fixture(scope='module')
def frames():
    return scene(COUNT)


@pytest.fixture
def database(frames, tmp_path):
    """Return the storage file of a bag without metadata."""
    return (write_bag(tmp_path / 'made', image_items(frames), storage='sqlite3') / 'made.db3').rename(
        tmp_path / 'x.db3'
    )


def test_a_bag_whose_messages_have_equal_times_has_the_default_rate(database):
    with sqlite3.connect(database) as rows:
        rows.execute('UPDATE messages SET timestamp = 7')
    with open_recording(database) as recording:
        assert recording.rate == FOLDER_RATE
        assert len(list(recording.frames())) == COUNT


# --- sqlite3


def test_sql_in_a_database_is_not_run(database, tmp_path):
    """Copying a damaged database would run the SQL in its schema."""
    with sqlite3.connect(tmp_path / 'other.db') as other:
        other.execute('CREATE TABLE precious(item)')
    statements = [
        f"ATTACH '{tmp_path / 'other.db'}' AS other",
        'DROP TABLE other.precious',
        f"VACUUM INTO '{tmp_path / 'new'}'",
    ]
    with sqlite3.connect(database) as prepared:
        prepared.execute('PRAGMA writable_schema=ON')
        for number, text in enumerate(statements):
            row = ('table', f'a{number}', f'a{number}', 0, text)
            prepared.execute('INSERT INTO sqlite_master VALUES(?, ?, ?, ?, ?)', row)
    with open_recording(database) as recording:
        assert len(list(recording.frames())) == COUNT
        assert 'is damaged' in recording.damage
    with sqlite3.connect(tmp_path / 'other.db') as other:
        assert other.execute('SELECT name FROM sqlite_master').fetchall() == [('precious',)]
    assert not (tmp_path / 'new').exists()


def test_databases_with_computed_rows_are_refused(database):
    """A view could run forever; a generated column could return a gigabyte per row."""
    endless = 'CREATE VIEW messages AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT id, id AS topic_id, id AS timestamp, id AS data FROM n'  # noqa: E501
    generous = 'CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp, data AS (zeroblob(1000000000)))'
    for sql in (endless, generous):
        with sqlite3.connect(database) as prepared:
            prepared.execute('PRAGMA writable_schema=ON')
            prepared.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'messages'", (sql,))
        with pytest.raises(BagError, match='not a readable bag'):
            open_recording(database)


def test_a_journal_does_not_delete_the_file_that_it_names(frames, tmp_path):
    """SQLite deletes a super-journal once no database needs it."""
    database = write_bag(tmp_path / 'bag', image_items(frames), storage='sqlite3') / 'bag.db3'
    record_more_and_be_killed(database, 'DELETE', 'break off')
    precious = tmp_path / 'precious'
    precious.write_text('kept')
    name = bytes(precious)
    journal = database.with_name('bag.db3-journal')
    end = (
        struct.pack('>I', 2**30 // 4096 + 1)
        + name
        + struct.pack('>II', len(name), sum(name))
        + b'\xd9\xd5\x05\xf9 \xa1c\xd7'
    )
    journal.write_bytes(journal.read_bytes() + end)
    with open_recording(database) as recording:
        assert 'names a super-journal' in recording.damage
    assert precious.read_text() == 'kept'


def test_reading_stops_at_a_row_with_an_invalid_time(database):
    with sqlite3.connect(database) as prepared:
        prepared.execute('UPDATE messages SET timestamp = ? WHERE id = 4', (2**63 - 1,))
    with open_recording(database) as recording:
        assert len(list(recording.frames())) == COUNT - 1
        assert 'times are nanoseconds' in recording.damage
    with sqlite3.connect(database) as prepared:
        prepared.execute("UPDATE messages SET timestamp = 'soon' WHERE id = 4")
    with open_recording(database) as recording:
        assert len(list(recording.frames())) == COUNT - 1
        assert 'is damaged' in recording.damage


# --- decompression bombs


def chunk(data: bytes, size: int | None = None) -> bytes:
    """Return a compressed MCAP chunk."""
    packed = zstd.compress(data)
    head = struct.pack('<QQQI', 0, 0, len(data) if size is None else size, 0) + struct.pack('<I', 4) + b'zstd'
    content = head + struct.pack('<Q', len(packed)) + packed
    return struct.pack('<BQ', 6, len(content)) + content


def test_a_chunk_that_expands_beyond_the_limit_is_not_unpacked(frames, tmp_path):
    path = write_without_chunks(tmp_path / 'bomb.mcap', image_items(frames))
    whole = path.read_bytes()
    place = whole.index(struct.pack('<BQ', 15, 4))  # the record DataEnd
    huge = bytes(MAX_MESSAGE_BYTES + 2**20)
    for size in (len(huge), 10):
        path.write_bytes(whole[:place] + chunk(huge, size))
        tracemalloc.start()
        with open_recording(path) as recording:
            assert len(list(recording.frames())) == COUNT
            assert 'at most' in recording.damage or 'than the allowed' in recording.damage
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 20 * 2**20


def test_an_index_with_repeated_chunks_is_not_used(tmp_path):
    """Otherwise a few kilobytes expand to hundreds of open chunks."""
    path = write_bag(tmp_path / 'bag', image_items(scene(2)), compression='storage') / 'bag.mcap'
    whole = path.read_bytes()
    begin, _, _ = struct.unpack('<QQI', whole[-28:-8])
    place = begin
    while whole[place] != 8:
        place += 9 + struct.unpack_from('<Q', whole, place + 1)[0]
    entry = whole[place : place + 9 + struct.unpack_from('<Q', whole, place + 1)[0]]
    path.write_bytes(whole[:place] + entry * 500 + whole[place:])
    with open_recording(path) as recording:
        assert len(list(recording.frames())) == 2
        assert 'lost its index' in recording.damage


def test_a_compressed_file_that_expands_beyond_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(compression, '_ALWAYS_ALLOWED_BYTES', 2**20, raising=False)
    path = tmp_path / 'bomb.mcap.zstd'
    path.write_bytes(zstd.compress(bytes(50 * 2**20)))
    with pytest.raises(BagError, match=f'its {path.stat().st_size} bytes expand to more than .* if you trust it'):
        open_recording(path)


def test_compressed_files_of_a_bag_are_bounded_together(tmp_path, monkeypatch):
    """Each file is within the limit, but a folder of a hundred would fill the disk."""
    monkeypatch.setattr(compression, '_ALWAYS_ALLOWED_BYTES', 2**20, raising=False)
    (tmp_path / 'bag').mkdir()
    for number in range(20):
        (tmp_path / 'bag' / f'x_{number}.mcap.zstd').write_bytes(zstd.compress(bytes(900_000)))
    written = []
    unpack = compression.decompress_file

    def record(path, target, *more):
        try:
            return unpack(path, target, *more)
        finally:
            written.append(target.stat().st_size)

    monkeypatch.setattr(rosbag, 'decompress_file', record)
    with pytest.raises(BagError, match='not a readable bag'):
        open_recording(tmp_path / 'bag')
    assert len(written) == 20
    assert sum(written) < 3 * 2**20


def test_a_compressed_message_that_expands_beyond_the_limit_is_skipped_and_reported(frames, tmp_path):
    items = image_items(frames)
    items[1] = (TOPIC, items[1][1], (messages.IMAGE, zstd.compress(bytes(MAX_MESSAGE_BYTES + 1))))
    with open_recording(write_bag(tmp_path / 'bag', items)) as recording:
        assert [frame.index for frame in recording.frames()] == [0, 2, 3]
        assert f'expands to more than {MAX_MESSAGE_BYTES} bytes' in recording.faults[0].reason


def test_recorded_seeds_with_too_many_points_are_refused(frames, tmp_path):
    seed = messages.seed(2, points=[(1, 1)], point_labels=[1])
    raw = messages.serialize(seeds_message(0, [seed], [1]))
    # replace the number of points and the points
    point = struct.pack('<fff', 1, 1, 0)
    place = raw.rindex(point)
    count = 120_000
    place -= 4
    assert struct.unpack_from('<I', raw, place) == (1,)
    raw = raw[:place] + struct.pack('<I', count) + point * count + raw[place + 16 :]
    items = [*image_items(frames), ('/xmem/seeds', stamp_of(0), (messages.ACCEPTED_SEEDS, raw))]
    with open_recording(write_bag(tmp_path / 'bag', items)) as recording, pytest.raises(BagError, match='points'):
        recorded_seeds(recording)


# --- metadata and names


def metadata(folder, text):
    folder.mkdir()
    (folder / 'metadata.yaml').write_text(text)
    return folder


LAUGHS = 'a0: &a0 {k: v}\n' + ''.join(f'a{n}: &a{n} {{<<: [{", ".join([f"*a{n - 1}"] * 9)}]}}\n' for n in range(1, 12))
ENDLESS = """
rosbag2_bagfile_information:
  relative_file_paths: [x.mcap]
  topics_with_message_count: [{topic_metadata: {name: /a, type: b/msg/C}, message_count: .inf}]
"""


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        (LAUGHS, 'merge key'),
        ('[' * 100_000, 'nested more|nesting depth'),
        ('x' * 3_000_000, 'at most'),
        ('rosbag2_bagfile_information: 2000-99-99', 'not the metadata of a bag'),
        (
            'rosbag2_bagfile_information: {relative_file_paths: [".."], topics_with_message_count: []}',
            'not a valid file name',
        ),
        (ENDLESS, 'cannot convert float infinity'),
    ],
    ids=['laughs', 'deep', 'long', 'date', 'above', 'endless'],
)
def test_hostile_metadata_is_refused(tmp_path, text, reason):
    folder = metadata(tmp_path / 'bag', text)
    with pytest.raises(BagError, match=reason):
        open_recording(folder)
    with pytest.raises(ParameterError, match=reason):
        topics_of(folder)


def test_metadata_cannot_name_files_outside_its_folder(frames, tmp_path):
    write_bag(tmp_path / 'secret', image_items(frames))
    folder = write_bag(tmp_path / 'bag', image_items(frames)[:1])
    text = (folder / 'metadata.yaml').read_text()
    for path in (tmp_path / 'secret' / 'secret.mcap', '../secret/secret.mcap'):
        (folder / 'metadata.yaml').write_text(text.replace('- bag.mcap', f'- {path}'))
        with open_recording(folder) as recording:
            assert len(list(recording.frames())) == 1
            assert 'files are missing' in recording.damage


def test_a_topic_with_control_characters_in_its_name_is_skipped(frames, tmp_path):
    items = [*image_items(frames), *image_items(frames, '/\x1b]0;owned\x07')]
    path = write_without_chunks(tmp_path / 'odd.mcap', items)
    with open_recording(path) as recording:
        assert [topic.name for topic in recording.topics] == [TOPIC]
        assert '1 topics with an invalid name or type are skipped' in recording.damage


def test_a_bag_with_too_many_topics_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(mcap_reader, 'MAX_TOPICS', 50, raising=False)
    empty = messages.header(1, '')
    path = write_without_chunks(tmp_path / 'many.mcap', [(f'/t{number}', stamp_of(0), empty) for number in range(60)])
    with pytest.raises(BagError, match='more than 50 topics'):
        open_recording(path)


# --- frames in a folder


def test_unusable_frames_of_a_folder_are_skipped_and_the_others_are_tracked(frames, tmp_path, capsys):
    """The last frame is truncated; an earlier one has another size."""
    import cv2

    folder = tmp_path / 'walk'
    folder.mkdir()
    for number, (frame, _) in enumerate(frames):
        cv2.imwrite(str(folder / f'{number:05d}.png'), frame[..., ::-1])
    cv2.imwrite(str(folder / '00002.png'), frames[2][0][:32, ..., ::-1])
    (folder / '00003.png').write_bytes((folder / '00003.png').read_bytes()[:500])
    save_mask(tmp_path / 'mask.png', frames[0][1])
    options = ['--seed', tmp_path / 'mask.png', '--size', 64, '--device', 'cpu', '--out', tmp_path / 'out']
    assert main([*map(str, ['track', folder, *options])]) == 0
    assert sorted(file.name for file in (tmp_path / 'out').iterdir()) == ['00000.png', '00001.png']
    told = capsys.readouterr().err
    assert 'image 2 was left out' in told
    assert 'frame 00002 is 96×32 px' in told
    assert 'image 3 was left out' in told
    assert '00003.png: not a readable image' in told


def test_a_folder_without_a_usable_frame_is_refused(frames, tmp_path, capsys):
    folder = tmp_path / 'walk'
    folder.mkdir()
    (folder / '00000.png').write_bytes(zlib.compress(b'nothing'))
    save_mask(tmp_path / 'mask.png', frames[0][1])
    options = ['--seed', tmp_path / 'mask.png', '--size', 64, '--device', 'cpu', '--out', tmp_path / 'out']
    assert main([*map(str, ['track', folder, *options])]) == 2
    assert '00000.png: not a readable image' in capsys.readouterr().err
