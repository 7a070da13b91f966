# SPDX-License-Identifier: MIT
"""Recordings: complete, compressed, truncated and unusable bags, videos and folders."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from needs import require

require('rosbags.rosbag2')

from bag_files import LATE_NS, TOPIC, image_items, image_message, scene, seeds_message, stamp_of, write_bag
from scene_files import save_frame

from xmem_ros.conversions.compressed_images import rgb_of
from xmem_ros.errors import BagError, FrameError
from xmem_ros.recordings import typestore
from xmem_ros.recordings.recording import CLIP_START_NS, open_recording
from xmem_ros.recordings.seed_plan import recorded_seeds
from xmem_ros.video.writer import VideoWriter

ROOT = Path(__file__).parents[2]
LARGE = (240, 320)  # a few images of this size fill a chunk of an MCAP file


@pytest.fixture(scope='module')
def frames():
    return scene()


@pytest.fixture(scope='module')
def long_bag(tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp('bags') / 'long', image_items(scene(20, size=LARGE)))


def test_the_definitions_installed_by_pip_equal_the_interfaces():
    copies = {file.name: file.read_bytes() for file in (ROOT / 'xmem_ros' / 'recordings' / 'definitions').glob('*.msg')}
    assert copies == {file.name: file.read_bytes() for file in (ROOT / 'msg').glob('*.msg')}


def test_rclpy_and_rosbags_read_each_others_messages():
    rclpy = pytest.importorskip('rclpy.serialization', reason='rclpy is not importable')
    generated = pytest.importorskip('xmem_ros.msg', reason='the messages are not built')
    seed = typestore.seed(2, object_id=3, name='cup', points=[(1.5, 2)], point_labels=[1])
    ours = typestore.accepted_seeds(typestore.header(stamp_of(3), 'camera'), [seed], [3], [1])
    read = rclpy.deserialize_message(typestore.serialize(ours), generated.AcceptedSeeds)
    assert (read.header.stamp.sec, read.header.frame_id, list(read.ids)) == (1_700_000_000, 'camera', [3])
    assert (read.seeds[0].name, read.seeds[0].points[0].x, list(read.seeds[0].point_labels)) == ('cup', 1.5, [1])
    again = typestore.deserialize(rclpy.serialize_message(read), typestore.ACCEPTED_SEEDS)
    assert again.seeds[0].id == 3


@pytest.mark.parametrize(
    ('storage', 'compression'),
    [
        ('mcap', ''),
        ('mcap', 'file'),
        ('mcap', 'message'),
        ('mcap', 'storage'),
        ('sqlite3', ''),
        ('sqlite3', 'file'),
        ('sqlite3', 'message'),
    ],
)
def test_every_storage_and_compression_gives_the_same_images(frames, tmp_path, storage, compression):
    path = write_bag(tmp_path / 'bag', image_items(frames), storage=storage, compression=compression)
    with open_recording(path) as recording:
        assert (recording.image_topic, recording.length, recording.damage) == (TOPIC, len(frames), '')
        assert recording.rate == pytest.approx(30, rel=1e-3)
        read = list(recording.frames())
        assert [frame.index for frame in recording.frames(5)] == [5, 6, 7]
        assert recording.stamps() == [stamp_of(index) for index in range(len(frames))]
    assert [frame.stamp_ns for frame in read] == [stamp_of(index) for index in range(len(frames))]
    assert [frame.received_ns - frame.stamp_ns for frame in read] == [LATE_NS] * len(frames)
    for frame, (pixels, _) in zip(read, frames, strict=True):
        np.testing.assert_array_equal(rgb_of(frame.message), pixels)


def test_a_bag_in_several_files_is_read_in_their_order(frames, tmp_path):
    folder = write_bag(tmp_path / 'bag', image_items(frames)[:5])
    other = write_bag(tmp_path / 'rest', image_items(frames)[5:])
    shutil.copy(other / 'rest.mcap', folder / 'bag_1.mcap')
    metadata = yaml.safe_load((folder / 'metadata.yaml').read_text())
    told = metadata['rosbag2_bagfile_information']
    told['relative_file_paths'] = ['bag.mcap', 'bag_1.mcap']
    told['message_count'] = told['topics_with_message_count'][0]['message_count'] = len(frames)
    (folder / 'metadata.yaml').write_text(yaml.safe_dump(metadata))
    with open_recording(folder) as recording:
        assert (recording.length, recording.damage) == (len(frames), '')
        assert recording.stamps() == [stamp_of(index) for index in range(len(frames))]
    (folder / 'bag_1.mcap').unlink()
    with open_recording(folder) as recording:
        assert len(recording.stamps()) == 5
        assert 'some storage files are missing' in recording.damage


@pytest.mark.parametrize('suffix', ['mcap', 'db3'])
def test_a_file_of_a_bag_is_read_alone(frames, tmp_path, suffix):
    storage = 'mcap' if suffix == 'mcap' else 'sqlite3'
    path = write_bag(tmp_path / 'bag', image_items(frames), storage=storage)
    with open_recording(path / f'bag.{suffix}') as recording:
        assert len(list(recording.frames())) == len(frames)


def test_compressed_images_are_read(frames, tmp_path):
    path = write_bag(tmp_path / 'bag', image_items(frames, f'{TOPIC}/compressed', compressed=True))
    with open_recording(path) as recording:
        first = next(recording.frames())
    assert np.abs(rgb_of(first.message).astype(int) - frames[0][0]).mean() < 6  # of 255; JPEG quality is 95


def test_one_of_several_image_topics_has_to_be_named(frames, tmp_path):
    items = image_items(frames) + image_items(frames[:3], '/rear/image')
    path = write_bag(tmp_path / 'bag', sorted(items, key=lambda item: item[1]))
    with pytest.raises(BagError, match=r'/camera/image_raw \(8\), /rear/image \(3\); name one image topic'):
        open_recording(path)
    with open_recording(path, '/rear/image') as recording:
        assert recording.length == 3


def test_topics_of_the_node_and_depth_topics_are_not_chosen_by_default(frames, tmp_path):
    items = image_items(frames)
    for topic in ('/xmem/labels', '/xmem/overlay', '/xmem/object_1/mask', '/camera/depth/image'):
        items += image_items(frames[:1], topic)
    items += image_items(frames[:1], '/xmem/labels/compressed', compressed=True)
    with open_recording(write_bag(tmp_path / 'bag', items)) as recording:
        assert recording.image_topic == TOPIC


@pytest.mark.parametrize(
    ('topic', 'text'),
    [
        ('/nothing', r'no topic /nothing; topics with images: /camera/image_raw'),
        ('/xmem/seeds', r'/xmem/seeds is xmem_ros/msg/AcceptedSeeds; images are'),
    ],
)
def test_a_wrong_topic_is_reported_with_the_available_ones(frames, tmp_path, topic, text):
    seeds = typestore.accepted_seeds(typestore.header(1, ''), [], [], [])
    path = write_bag(tmp_path / 'bag', [*image_items(frames), ('/xmem/seeds', stamp_of(0), seeds)])
    with pytest.raises(BagError, match=text):
        open_recording(path, topic)


def test_a_bag_without_images_is_refused_with_its_topics(tmp_path):
    seeds = typestore.accepted_seeds(typestore.header(1, ''), [], [], [])
    path = write_bag(tmp_path / 'bag', [('/xmem/seeds', 1, seeds)])
    with pytest.raises(BagError, match=r'bag: no images in this bag .* it has /xmem/seeds'):
        open_recording(path)


# --- truncated


def test_a_truncated_file_is_read_to_its_last_complete_message(long_bag, tmp_path):
    whole = (long_bag / 'long.mcap').read_bytes()
    path = tmp_path / 'cut.mcap'
    read = []
    for share in (0.3, 0.6, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        with open_recording(path) as recording:
            frames = list(recording.frames())
            assert 'cut.mcap was cut off' in recording.damage
            assert [frame.index for frame in frames] == list(range(len(frames)))
        read.append(len(frames))
        assert read[-1] == int(20 * share)  # also from an incomplete chunk of five images
    assert read == sorted(set(read))
    index = len(whole) - 200
    for damaged in (whole[:-1], whole[:index] + bytes(100) + whole[index + 100 :]):
        path.write_bytes(damaged)
        with open_recording(path) as recording:
            assert len(list(recording.frames())) == 20
            assert 'lost its index' in recording.damage


def test_a_truncated_compressed_file_is_read_to_its_last_complete_chunk(tmp_path):
    made = write_bag(tmp_path / 'bag', image_items(scene(20, size=LARGE)), compression='storage')
    whole = (made / 'bag.mcap').read_bytes()
    (tmp_path / 'cut.mcap').write_bytes(whole[: len(whole) * 6 // 10])
    with open_recording(tmp_path / 'cut.mcap') as recording:
        assert len(list(recording.frames())) == 10, 'two chunks of five images'
        assert 'cut.mcap was cut off' in recording.damage


def test_a_truncated_database_is_read_as_far_as_possible(tmp_path):
    made = write_bag(tmp_path / 'bag', image_items(scene(20, size=LARGE)), storage='sqlite3')
    whole = (made / 'bag.db3').read_bytes()
    for path in (made / 'bag.db3', tmp_path / 'alone.db3'):
        path.write_bytes(whole[: len(whole) * 6 // 10])
        with open_recording(path if path.parent == tmp_path else made) as recording:
            frames = list(recording.frames())
            assert f'{path.name} was cut off or is damaged' in recording.damage
        assert 9 <= len(frames) <= 12
        assert [frame.index for frame in frames] == list(range(len(frames)))
    (tmp_path / 'alone.db3').write_bytes(whole[:3000])
    with pytest.raises(BagError, match='not a readable bag'):
        open_recording(tmp_path / 'alone.db3')


def test_zeros_after_a_power_cut_are_not_read_as_images(long_bag, tmp_path):
    whole = (long_bag / 'long.mcap').read_bytes()
    half = len(whole) // 2
    path = tmp_path / 'cut.mcap'
    path.write_bytes(whole[:half] + bytes(len(whole) // 4))
    with open_recording(path) as recording:
        assert 5 <= len(list(recording.frames())) <= 10
        assert 'was cut off' in recording.damage


def test_a_folder_of_an_unfinished_recording_is_read_file_by_file(frames, long_bag, tmp_path):
    folder = tmp_path / 'bag'
    folder.mkdir()
    items = image_items(frames)
    for number, part in [(2, items[:3]), (10, items[3:6])]:
        made = write_bag(tmp_path / f'part{number}', part)
        shutil.copy(made / f'part{number}.mcap', folder / f'bag_{number}.mcap')
    (folder / 'bag_11.mcap').write_bytes((long_bag / 'long.mcap').read_bytes()[:3_000_000])
    with open_recording(folder) as recording:
        read = list(recording.frames())
        assert 'metadata.yaml is missing' in recording.damage
        assert 'bag_11.mcap was cut off' in recording.damage
    small = [frame for frame in read if rgb_of(frame.message).shape[:2] != LARGE]
    assert len(read) > len(small)
    assert [frame.stamp_ns for frame in small] == [stamp_of(index) for index in range(6)]
    np.testing.assert_array_equal(rgb_of(small[3].message), frames[3][0])


def test_a_database_without_metadata_is_read(frames, tmp_path):
    path = write_bag(tmp_path / 'bag', image_items(frames), storage='sqlite3')
    (path / 'metadata.yaml').unlink()
    with open_recording(path) as recording:
        assert len(list(recording.frames())) == len(frames)


def test_images_in_a_damaged_chunk_are_named_and_the_others_keep_their_numbers(tmp_path):
    path = write_bag(tmp_path / 'bag', image_items(scene(20, size=LARGE)), compression='storage')
    file = path / 'bag.mcap'
    whole = bytearray(file.read_bytes())
    begin = [place for place in range(len(whole) - 4) if whole[place : place + 4] == b'\x28\xb5\x2f\xfd'][1]  # of zstd
    whole[begin + 100 : begin + 200] = bytes(100)
    file.write_bytes(whole)
    with open_recording(path) as recording:
        assert recording.damage == ''
        found = [(frame.index, frame.stamp_ns) for frame in recording.frames()]
        lost = [fault.index for fault in recording.faults]
        assert 0 < len(lost) < 20
        assert found == [(index, stamp_of(index)) for index in range(20) if index not in lost]
        assert f'{20 - len(lost)} of the 20 images on {TOPIC} could be read' in recording.damage


def test_recorded_seeds_in_a_damaged_chunk_are_counted(tmp_path):
    frames = scene(20, size=LARGE)
    items = image_items(frames)
    for index in (10, 0):
        seed = typestore.seed(1, name='cup', mask=frames[index][1])
        items.insert(index, ('/xmem/seeds', items[index][1], seeds_message(index, [seed], [1])))
    path = write_bag(tmp_path / 'bag', items, compression='storage')
    file = path / 'bag.mcap'
    whole = file.read_bytes()
    begins = [place for place in range(len(whole) - 4) if whole[place : place + 4] == b'\x28\xb5\x2f\xfd']  # of zstd
    said = []
    for begin in begins[1:]:
        file.write_bytes(whole[: begin + 100] + bytes(100) + whole[begin + 200 :])
        with open_recording(path) as recording:
            plan = recorded_seeds(recording)
            assert len(plan) == (1 if recording.notes else 2)
            said += recording.notes
    assert said == [f'{path}: 1 of the 2 messages on /xmem/seeds could be read']


# --- not bags


def broken_database(path: Path) -> None:
    sqlite3.connect(path).execute('CREATE TABLE shopping(item TEXT)').connection.commit()


@pytest.mark.parametrize(
    ('name', 'make'),
    [
        ('empty.mcap', lambda path: path.write_bytes(b'')),
        ('text.mcap', lambda path: path.write_text('not a bag\n' * 100)),
        ('magic.mcap', lambda path: path.write_bytes(b'\x89MCAP0\r\n')),
        ('twice.mcap', lambda path: path.write_bytes(b'\x89MCAP0\r\n' * 2)),
        ('empty.db3', lambda path: path.write_bytes(b'')),
        ('text.db3', lambda path: path.write_text('not a bag\n' * 100)),
        ('other.db3', broken_database),
    ],
)
def test_files_that_are_not_bags_are_refused_by_name(tmp_path, name, make):
    make(tmp_path / name)
    with pytest.raises(BagError, match=rf'{name}: (not a readable bag|no images)'):
        open_recording(tmp_path / name)


@pytest.mark.parametrize(
    ('metadata', 'text'), [('', 'not a readable bag'), ('rosbag2_bagfile_information: 3', 'not a readable bag')]
)
def test_a_folder_with_only_invalid_metadata_is_refused(tmp_path, metadata, text):
    (tmp_path / 'bag').mkdir()
    (tmp_path / 'bag' / 'metadata.yaml').write_text(metadata)
    with pytest.raises(BagError, match=text):
        open_recording(tmp_path / 'bag')


def test_missing_files_ros_1_bags_and_compressed_folders_are_refused_with_a_remedy(tmp_path):
    with pytest.raises(BagError, match='absent: no such file or folder; give a bag'):
        open_recording(tmp_path / 'absent')
    for name, text in [
        ('old.bag', 'rosbags-convert'),
        ('bag.zstd', 'zstd -d'),
        ('bag.mcap.zstd', 'not a readable'),
    ]:
        (tmp_path / name).write_bytes(b'1')
        with pytest.raises(BagError, match=text):
            open_recording(tmp_path / name)


def test_messages_that_are_not_images_are_skipped_and_reported(frames, tmp_path):
    items = image_items(frames)
    whole = typestore.serialize(image_message(2, frames[2][0]))
    items[2] = (TOPIC, items[2][1], (typestore.IMAGE, whole[: len(whole) // 2]))
    items[5] = (TOPIC, items[5][1], (typestore.IMAGE, b'\x00\x01'))
    items[6] = (TOPIC, items[6][1], (typestore.IMAGE, b''))
    with open_recording(write_bag(tmp_path / 'bag', items)) as recording:
        assert [frame.index for frame in recording.frames()] == [0, 1, 3, 4, 7]
        assert [fault.index for fault in recording.faults] == [2, 5, 6]
        assert all('not a sensor_msgs/msg/Image' in fault.reason for fault in recording.faults)
        assert recording.stamps()[2] == -1


# --- videos and folders


def test_a_folder_and_a_video_are_read_as_recordings(frames, tmp_path):
    for index, (pixels, _) in enumerate(frames):
        save_frame(tmp_path / 'frames' / f'{index:03d}.jpg', pixels)
    with VideoWriter(tmp_path / 'film.mp4', 10.0) as video:
        for pixels, _ in frames:
            video.write(pixels)
    for name, rate, stem in [('frames', 30.0, '003'), ('film.mp4', 10.0, '00003')]:
        with open_recording(tmp_path / name) as recording:
            read = list(recording.frames(3))
            assert recording.length == len(frames)
            assert recording.rate == pytest.approx(rate)
        assert read[0].name == stem
        assert read[0].stamp_ns == CLIP_START_NS + round(3e9 / rate)
    expected = cv2.cvtColor(cv2.imread(str(tmp_path / 'frames' / '003.jpg')), cv2.COLOR_BGR2RGB)
    with open_recording(tmp_path / 'frames') as recording:
        np.testing.assert_array_equal(rgb_of(next(recording.frames(3)).message), expected)


def test_a_clip_has_no_topic(frames, tmp_path):
    save_frame(tmp_path / 'frames' / '0.jpg', frames[0][0])
    with pytest.raises(BagError, match='not a bag, so it has no topic /image'):
        open_recording(tmp_path / 'frames', '/image')
    (tmp_path / 'none').mkdir()
    with pytest.raises(FrameError, match='no images in this folder'):
        open_recording(tmp_path / 'none')


# --- messages of other versions


def write_with(path, topic, msgtype, definition, raw, frames):
    """Write a bag of images and one message with the given definition."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        of = writer.add_connection(topic, msgtype, msgdef=definition, rihs01='RIHS01_' + '0' * 64)
        images = writer.add_connection(TOPIC, typestore.IMAGE, typestore=typestore.typestore())
        for _, received_ns, message in image_items(frames):
            writer.write(images, received_ns, typestore.serialize(message))
        writer.write(of, stamp_of(0) + LATE_NS + 1, raw)
    return path


def test_seeds_recorded_with_other_fields_are_refused(frames, tmp_path):
    definition = 'uint32[] ids\nuint8[] labels\n'
    path = write_with(tmp_path / 'bag', '/xmem/seeds', typestore.ACCEPTED_SEEDS, definition, bytes(64), frames)
    with (
        open_recording(path) as recording,
        pytest.raises(BagError, match='by another version .* seeds of your own'),
    ):
        recorded_seeds(recording)


def test_comments_in_a_recorded_definition_are_ignored(frames, tmp_path):
    definition, _ = typestore.typestore().generate_msgdef(typestore.ACCEPTED_SEEDS, ros_version=2)
    seeds = typestore.accepted_seeds(typestore.header(stamp_of(0), ''), [], [], [])
    raw = typestore.serialize(seeds)
    definition = f'# older words\n{definition}'
    path = write_with(tmp_path / 'bag', '/xmem/seeds', typestore.ACCEPTED_SEEDS, definition, raw, frames)
    with open_recording(path) as recording:
        assert [entry.stamp_ns for entry in recorded_seeds(recording)] == [stamp_of(0)]


def test_a_bag_with_objects_of_an_older_version_is_read(frames, tmp_path):
    definition = 'float32 processing_ms\n'
    path = write_with(tmp_path / 'bag', '/xmem/objects', typestore.OBJECTS, definition, bytes(8), frames)
    with open_recording(path) as recording:
        assert len(list(recording.frames())) == len(frames)
        assert recorded_seeds(recording) == []
