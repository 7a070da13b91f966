# SPDX-License-Identifier: MIT
"""Bag files without chunks, with a journal, compressed, without metadata, or oddly named."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from needs import require

require('rosbags.rosbag2')

from bag_files import STEP_NS, image_items, scene, stamp_of, write_bag, write_without_chunks

from xmem_ros.conversions.compressed_images import rgb_of
from xmem_ros.recordings.recording import open_recording
from xmem_ros.recordings.rosbags_version import ROSBAGS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def frames():
    return scene()


def stamps(path) -> list[int]:
    """Return the stamps of a complete bag's images [ns]."""
    with open_recording(path) as recording:
        found = recording.stamps()
        assert (recording.damage, recording.length) == ('', len(found))
    return found


# --- MCAP without chunks


def test_messages_without_chunks_are_read_in_order_of_time(frames, tmp_path):
    items = image_items(frames) + image_items(frames, '/rear/labels')
    items[2], items[3] = items[3], items[2]
    items = [*items[8:], *items[:8]]  # all messages of the other topic are written before those of the camera
    path = write_without_chunks(tmp_path / 'fast.mcap', items)
    assert stamps(path) == [stamp_of(index) for index in range(len(frames))]
    with open_recording(path) as recording:
        both = [received_ns for _, received_ns, _ in recording.raw([])]
    assert both == sorted(received_ns for _, received_ns, _ in items)


def test_a_truncated_file_without_chunks_is_read_to_its_last_complete_message(frames, tmp_path):
    items = image_items(frames)
    items[2], items[3] = items[3], items[2]
    path = write_without_chunks(tmp_path / 'fast.mcap', items)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    with open_recording(path) as recording:
        assert recording.stamps() == [stamp_of(index) for index in range(4)]
        assert 'fast.mcap was cut off' in recording.damage
        assert 'further' not in recording.damage


# --- sqlite3 with a journal

# Imitates a recorder (storage_preset_profile: resilient) that is killed.
RECORDER = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute(f'PRAGMA journal_mode={sys.argv[2]}')
database.execute('PRAGMA wal_autocheckpoint=0')
database.execute('PRAGMA cache_size=1')
rows = database.execute('SELECT topic_id, timestamp, data FROM messages').fetchall()
later = rows[-1][1] + int(sys.argv[3]) - rows[0][1]
database.execute('BEGIN')
for topic, received, data in rows:
    database.execute('INSERT INTO messages(topic_id, timestamp, data) VALUES(?, ?, ?)', (topic, received + later, data))
if sys.argv[4] == 'break off':
    database.execute('UPDATE messages SET data = zeroblob(length(data))')
else:
    database.execute('COMMIT')
print('written', flush=True)
time.sleep(600)
"""


def record_more_and_be_killed(database: Path, journal: str, end: str) -> None:
    """Append a database's messages again, with later times, in a process that is then killed."""
    arguments = [str(database), journal, str(STEP_NS), end]
    with subprocess.Popen([sys.executable, '-c', RECORDER, *arguments], stdout=subprocess.PIPE, text=True) as recorder:
        assert recorder.stdout is not None
        assert recorder.stdout.readline() == 'written\n'
        recorder.kill()


@pytest.mark.parametrize('alone', [False, True], ids=['folder', 'file'])
def test_messages_that_are_only_in_the_journal_of_a_killed_recorder_are_read(frames, tmp_path, alone):
    folder = write_bag(tmp_path / 'bag', image_items(frames), storage='sqlite3')
    (folder / 'metadata.yaml').unlink()  # recorders write it at the end
    record_more_and_be_killed(folder / 'bag.db3', 'WAL', 'commit')
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert len(before['bag.db3-wal']) > 8 * frames[0][0].size, 'the new images are only in the journal'
    with open_recording(folder / 'bag.db3' if alone else folder) as recording:
        assert recording.length == 16
        found = recording.stamps()
        assert recording.damage == '' if alone else 'the recording was not completed' in recording.damage
    assert found == [stamp_of(index) for index in range(8)] * 2
    assert before == {file.name: file.read_bytes() for file in folder.iterdir()}, 'the recording is not changed'


def test_messages_that_a_killed_recorder_had_not_committed_are_not_read(frames, tmp_path):
    folder = write_bag(tmp_path / 'bag', image_items(frames), storage='sqlite3')
    record_more_and_be_killed(folder / 'bag.db3', 'DELETE', 'break off')
    assert (folder / 'bag.db3-journal').stat().st_size
    assert stamps(folder) == [stamp_of(index) for index in range(8)]


def test_a_damaged_database_with_a_journal_is_read_as_far_as_possible(frames, tmp_path):
    folder = write_bag(tmp_path / 'bag', image_items(frames), storage='sqlite3')
    record_more_and_be_killed(folder / 'bag.db3', 'WAL', 'commit')
    log = folder / 'bag.db3-wal'
    log.write_bytes(log.read_bytes()[:-20_000])  # its only transaction is incomplete
    assert stamps(folder / 'bag.db3') == [stamp_of(index) for index in range(8)]
    shutil.copy(folder / 'bag.db3', tmp_path / 'cut.db3')
    shutil.copy(log, tmp_path / 'cut.db3-wal')
    whole = (tmp_path / 'cut.db3').read_bytes()
    (tmp_path / 'cut.db3').write_bytes(whole[: len(whole) // 2])
    with open_recording(tmp_path / 'cut.db3') as recording:
        assert 0 < len(recording.stamps()) < 8
        assert f'{tmp_path / "cut.db3"} was cut off or is damaged' in recording.damage


def test_the_journal_of_a_linked_database_is_found(frames, tmp_path):
    folder = write_bag(tmp_path / 'bag', image_items(frames), storage='sqlite3')
    record_more_and_be_killed(folder / 'bag.db3', 'WAL', 'commit')
    (tmp_path / 'link.db3').symlink_to(folder / 'bag.db3')
    assert stamps(tmp_path / 'link.db3') == [stamp_of(index) for index in range(8)] * 2


SHORT_OF_ROOM = """
import resource, sys
from xmem_ros.recordings.recording import open_recording
from xmem_ros.errors import BagError
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    open_recording(sys.argv[1])
except BagError as error:
    print(error)
"""


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
def test_a_disk_without_room_for_a_copy_is_reported(frames, tmp_path, storage):
    folder = write_bag(tmp_path / 'bag', image_items(frames), storage=storage, compression='file' * (storage == 'mcap'))
    (path,) = (file for file in folder.iterdir() if file.suffix != '.yaml')
    if storage == 'sqlite3':
        record_more_and_be_killed(path, 'WAL', 'commit')
    places = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    command = [sys.executable, '-c', SHORT_OF_ROOM, str(path)]
    done = subprocess.run(command, env=os.environ | {'PYTHONPATH': places}, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(f'{path}: no room to unpack or copy it in'), done.stderr
    assert 'TMPDIR' in done.stdout


# --- compressed


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
@pytest.mark.parametrize('compression', ['file', 'message'])
def test_a_compressed_bag_needs_no_metadata(frames, tmp_path, storage, compression):
    folder = write_bag(tmp_path / 'bag', image_items(frames), storage=storage, compression=compression)
    (file,) = (file for file in folder.iterdir() if file.suffix != '.yaml')
    assert (file.suffix == '.zstd') == (compression == 'file')
    assert stamps(file) == [stamp_of(index) for index in range(8)], 'with metadata.yaml beside it'
    shutil.copy(file, tmp_path)
    assert stamps(tmp_path / file.name) == [stamp_of(index) for index in range(8)], 'on its own'
    (folder / 'metadata.yaml').unlink()
    with open_recording(folder) as recording:
        assert [rgb_of(frame.message).tolist() for frame in recording.frames()] == [f.tolist() for f, _ in frames]


def test_a_file_and_its_unfinished_compressed_copy_are_read_once(frames, tmp_path):
    folder = write_bag(tmp_path / 'bag', image_items(frames), compression='file')
    (file,) = (file for file in folder.iterdir() if file.suffix != '.yaml')
    (folder / 'metadata.yaml').unlink()
    whole = write_bag(tmp_path / 'whole', image_items(frames)) / 'whole.mcap'
    shutil.copy(whole, folder / file.stem)
    file.write_bytes(file.read_bytes()[:1000])
    with open_recording(folder) as recording:
        assert recording.stamps() == [stamp_of(index) for index in range(8)]
        assert '.zstd' not in recording.damage


def test_a_truncated_compressed_file_is_read_as_far_as_possible(tmp_path):
    folder = write_bag(tmp_path / 'bag', image_items(scene(20, size=(240, 320))), compression='file')
    (file,) = (file for file in folder.iterdir() if file.suffix != '.yaml')
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) * 6 // 10])
    with open_recording(file) as recording:
        assert 6 <= len(recording.stamps()) <= 14
        assert f'{file} was cut off or is damaged: ' in recording.damage
        assert f'{file} was cut off or lost its index' in recording.damage


def test_a_damaged_compressed_message_is_skipped_and_reported(frames, tmp_path):
    folder = write_bag(tmp_path / 'bag', image_items(frames), storage='sqlite3', compression='message')
    with sqlite3.connect(folder / 'bag.db3') as database:
        database.execute('UPDATE messages SET data = substr(data, 1, 100) WHERE id = 3')
    for path in (folder, folder / 'bag.db3'):
        with open_recording(path) as recording:
            assert [frame.index for frame in recording.frames()] == [0, 1, 3, 4, 5, 6, 7]
            assert [fault.index for fault in recording.faults] == [2]


def test_files_of_several_recorders_are_merged_by_time(tmp_path):
    """Two recorders of one camera write files whose times overlap."""
    items = image_items(scene(8))
    folder = tmp_path / 'bag'
    folder.mkdir()
    for name, part in (('a', items[:3] + items[5:6]), ('b', items[3:5] + items[6:])):
        write_bag(tmp_path / name, part)
        shutil.copy(tmp_path / name / f'{name}.mcap', folder / f'{name}.mcap')
    with open_recording(folder) as recording:
        assert [frame.stamp_ns for frame in recording.frames()] == [stamp_of(index) for index in range(8)]


# --- several files without metadata


def test_files_without_metadata_are_read_in_order_of_their_times(frames, tmp_path):
    folder = tmp_path / 'bag'
    folder.mkdir()
    items = image_items(frames)
    # two recordings numbered from 0, the later one's name first, and an empty file
    for name, part in [('walk_b_0', items[:3]), ('walk_b_1', items[3:5]), ('walk_a_0', items[5:]), ('walk_0_0', [])]:
        made = write_bag(tmp_path / name, part)
        shutil.copy(made / f'{name}.mcap', folder)
    (folder / 'walk_b_2.mcap').write_bytes(b'')
    with open_recording(folder) as recording:
        assert recording.stamps() == [stamp_of(index) for index in range(8)]
        assert 'walk_b_2.mcap: not a readable bag' in recording.damage


# --- names


@pytest.mark.parametrize('name', ['run#1', 'a%20b', 'what?mode=rw', 'kürzer & länger'])
@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
def test_a_bag_may_have_any_name(frames, tmp_path, monkeypatch, storage, name):
    (tmp_path / 'tmp#').mkdir()
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path / 'tmp#'))
    folder = write_bag(tmp_path / 'bag', image_items(frames), storage=storage).rename(tmp_path / name)
    assert stamps(folder) == [stamp_of(index) for index in range(8)]
    (file,) = (file for file in folder.iterdir() if file.suffix != '.yaml')
    assert stamps(file.rename(file.with_stem(name))) == [stamp_of(index) for index in range(8)]
    if storage == 'sqlite3':
        record_more_and_be_killed(folder / f'{name}.db3', 'WAL', 'commit')
        assert stamps(folder / f'{name}.db3') == [stamp_of(index) for index in range(8)] * 2
    assert list((tmp_path / 'tmp#').iterdir()) == []


# --- other versions of rosbags


@pytest.mark.parametrize('version', ['0.10.11', '0.12.0'])
def test_an_unsupported_version_of_rosbags_is_reported_with_the_required_one(frames, tmp_path, version):
    path = write_bag(tmp_path / 'bag', image_items(frames))
    told = tmp_path / 'site' / f'rosbags-{version}.dist-info' / 'METADATA'  # metadata as pip installs it
    told.parent.mkdir(parents=True)
    told.write_text(f'Metadata-Version: 2.1\nName: rosbags\nVersion: {version}\n')
    places = os.pathsep.join([str(tmp_path / 'site'), str(ROOT), os.environ.get('PYTHONPATH', '')])
    command = [sys.executable, '-m', 'xmem_ros.cli.main', 'track', str(path), '--out', str(tmp_path / 'out')]
    done = subprocess.run(command, env=os.environ | {'PYTHONPATH': places}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f'rosbags: version {version} is installed, but rosbags>=0.11.7,<0.12 is required' in done.stderr
    assert 'readable' not in done.stderr
    assert 'Traceback' not in done.stderr


def test_pip_installs_the_accepted_versions_of_rosbags():
    asked = re.findall(r'"(rosbags(?:[<>=!~][^"]*)?)"', (ROOT / 'pyproject.toml').read_text())
    assert asked == [ROSBAGS] * 3, 'bags, regress, training'
