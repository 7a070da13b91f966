# SPDX-License-Identifier: MIT
"""`xmem-ros track --both-ways`: the masks of each pass, removals, resets, resuming and errors."""

from __future__ import annotations

import csv
import json
import signal

import cv2
import numpy as np
import pytest
from bag_runs import elsewhere
from needs import require
from PIL import Image
from scene_files import save_mask

from xmem_ros.cli.main import main
from xmem_ros.offline import backwards
from xmem_ros.offline.segments import Segments
from xmem_ros.offline.tracking import OfflineTracker
from xmem_ros.recordings.recording import open_recording
from xmem_ros.video.clip import Clip
from xmem_ros.video.writer import VideoWriter

COUNT = 10


def track(path, out, *more):
    options = ['--out', out, '--size', 64, '--device', 'cpu', '--segment', 3, *more]
    return main([str(part) for part in ['track', path, *options]])


def masks(folder):
    """Read the masks of all images, in order."""
    return [np.array(Image.open(file)) for file in sorted(folder.glob('*.png'))]


def write_folder(folder, images):
    """Write images H×W×3 uint8 RGB as PNG files."""
    folder.mkdir()
    for index, image in enumerate(images):
        cv2.imwrite(str(folder / f'{index:05d}.png'), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return folder


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob('*')) if file.is_file()}


@pytest.fixture
def images(frames, tmp_path):
    """Folder of ten images, with the masks 0.png to 9.png beside it."""
    for index, (_, labels) in enumerate(frames):
        save_mask(tmp_path / f'{index}.png', labels)
    return write_folder(tmp_path / 'images', [image for image, _ in frames])


@pytest.fixture
def small_spool(monkeypatch):
    """Let three images wait on disk at most."""
    monkeypatch.setattr(backwards, 'SPOOL_BYTES', 3 * 64 * 96 * 3)


def test_images_before_the_seed_have_the_masks_of_the_video_played_backwards(frames, tmp_path, small_spool):
    require('av')
    with VideoWriter(tmp_path / 'clip.mp4', 30) as video:
        for image, _ in frames:
            video.write(image)
    images = [image for _, image in Clip(tmp_path / 'clip.mp4')]
    save_mask(tmp_path / 'mask.png', frames[6][1])
    reverse = write_folder(tmp_path / 'reverse', images[6::-1])
    seed = ('--seed', tmp_path / 'mask.png')
    assert track(tmp_path / 'clip.mp4', tmp_path / 'both', *seed, '--at', 6, '--both-ways') == 0
    assert track(tmp_path / 'clip.mp4', tmp_path / 'forward', *seed, '--at', 6) == 0
    assert track(reverse, tmp_path / 'backward', *seed) == 0
    both = masks(tmp_path / 'both')
    np.testing.assert_array_equal(both[:7], masks(tmp_path / 'backward')[::-1])
    np.testing.assert_array_equal(both[6:], masks(tmp_path / 'forward')[6:])
    for value in (1, 2):
        shown, truth = both[0] == value, frames[0][1] == value
        assert (shown & truth).sum() / (shown | truth).sum() > 0.7


def test_between_two_seeds_masks_come_from_the_earlier_and_then_from_the_later(frames, images, tmp_path):
    (tmp_path / 'seeds.yaml').write_text(
        '- {frame: 2, objects: [{name: mug, mask: 2.png}]}\n- {frame: 8, objects: [{correct: mug, mask: 8.png}]}\n'
    )
    for index in (2, 8):
        save_mask(tmp_path / f'{index}.png', (frames[index][1] == 1).astype(np.uint8))
    seeds = ('--seed', tmp_path / 'seeds.yaml')
    assert track(images, tmp_path / 'both', *seeds, '--both-ways') == 0
    assert track(images, tmp_path / 'forward', *seeds) == 0
    reverse = write_folder(tmp_path / 'reverse', [image for image, _ in frames[8::-1]])
    (tmp_path / 'reverse.yaml').write_text(
        '- {frame: 0, objects: [{name: mug, mask: 8.png}]}\n- {frame: 6, objects: [{correct: mug, mask: 2.png}]}\n'
    )
    assert track(reverse, tmp_path / 'backward', '--seed', tmp_path / 'reverse.yaml') == 0
    both, forward = masks(tmp_path / 'both'), masks(tmp_path / 'forward')
    backward = masks(tmp_path / 'backward')[::-1]
    agreement = [(forward[i] & backward[i]).sum() / (forward[i] | backward[i]).sum() for i in range(3, 8)]
    change = 3 + int(np.argmax(agreement))
    assert len(set(agreement)) == len(agreement), 'no choice between equal ones'
    np.testing.assert_array_equal(both[:2], backward[:2])
    np.testing.assert_array_equal(both[2 : change + 1], forward[2 : change + 1])
    np.testing.assert_array_equal(both[change + 1 : 8], backward[change + 1 : 8])
    np.testing.assert_array_equal(both[8:], forward[8:])


def test_all_formats_have_the_joined_masks_under_the_ids_of_a_forward_run(frames, bag, tmp_path):
    require('rosbags.rosbag2')
    require('pycocotools')
    from pycocotools.coco import COCO
    from rosbags.highlevel import AnyReader

    from xmem_ros.recordings import typestore

    save_mask(tmp_path / 'mask.png', frames[5][1])
    formats = [f'--format={name}' for name in ('bag', 'png', 'coco', 'ytvos', 'mots', 'overlay')]
    out = tmp_path / 'out'
    assert track(bag, out, '--seed', tmp_path / 'mask.png', '--at', 5, '--both-ways', *formats) == 0
    found = masks(out)
    assert all(set(np.unique(mask)) == {0, 1, 2} for mask in found)
    with (out / 'objects.csv').open() as file:
        assert [(row['value'], row['id']) for row in csv.DictReader(file)] == [('1', '1'), ('2', '2')]
    coco = COCO(out / 'coco.json')
    for index, mask in enumerate(found):
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[index])):
            np.testing.assert_array_equal(coco.annToMask(annotation) > 0, mask == annotation['track_id'])
    assert len(list((out / 'ytvos' / 'Annotations' / 'bag').iterdir())) == COUNT
    assert len((out / 'mots.txt').read_text().splitlines()) == 2 * COUNT
    assert len(list(Clip(out / 'overlay.mp4'))) == COUNT
    with AnyReader([out / 'bag'], default_typestore=typestore.typestore()) as reader:
        wanted = [c for c in reader.connections if c.topic in ('/xmem/labels', '/xmem/objects')]
        messages = [(c.topic, reader.deserialize(raw, c.msgtype)) for c, _, raw in reader.messages(wanted)]
    labels = [message.data.reshape(64, 96) for topic, message in messages if topic == '/xmem/labels']
    objects = [message.objects for topic, message in messages if topic == '/xmem/objects']
    assert [item.frames_since_seed for item, _ in objects] == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]
    times = [item.time_since_seed.nanosec / 1e9 for item, _ in objects]
    np.testing.assert_allclose(times, [abs(index - 5) / 30 for index in range(COUNT)], atol=1e-5)
    assert [item.state for item, _ in objects] == [1] * 5 + [0] + [1] * 4
    for index in range(COUNT):
        assert [(item.id, item.area) for item in objects[index]] == [(i, (labels[index] == i).sum()) for i in (1, 2)]
        if index != 5:  # where the mask file has the seed itself
            np.testing.assert_array_equal(labels[index], found[index])


def test_an_object_that_takes_the_place_of_a_removed_one_has_its_own_label_backwards(frames, bag, tmp_path):
    require('rosbags.rosbag2')
    from rosbags.highlevel import AnyReader

    from xmem_ros.recordings import typestore

    for index, value in ((1, 1), (6, 2)):
        save_mask(tmp_path / f'{index}.png', (frames[index][1] == value).astype(np.uint8))
    (tmp_path / 'seeds.yaml').write_text(
        '- {frame: 1, objects: [{name: mug, mask: 1.png}]}\n'
        '- {frame: 6, remove: [mug], objects: [{name: duck, mask: 6.png}]}\n'
    )
    (tmp_path / 'one.yaml').write_text('/**:\n  ros__parameters:\n    max_objects: 1\n')
    options = ('--seed', tmp_path / 'seeds.yaml', '--params', tmp_path / 'one.yaml', '--both-ways')
    assert track(bag, tmp_path / 'out', *options) == 0
    with AnyReader([tmp_path / 'out' / 'bag'], default_typestore=typestore.typestore()) as reader:
        wanted = [c for c in reader.connections if c.topic in ('/xmem/objects', '/xmem/seeds')]
        messages = [(c.topic, reader.deserialize(raw, c.msgtype)) for c, _, raw in reader.messages(wanted)]
    objects = [message.objects for topic, message in messages if topic == '/xmem/objects']
    named = [[(item.id, item.name, item.label) for item in found] for found in objects]
    assert named == [[(1, 'mug', 1), (2, 'duck', 2)]] * 6 + [[(2, 'duck', 2)]] * 4
    seeds = [message for topic, message in messages if topic == '/xmem/seeds']
    assert [(message.ids.tolist(), message.labels.tolist()) for message in seeds] == [([1], [1]), ([2], [2])]


def test_recorded_objects_are_not_tracked_back_beyond_a_reset_of_the_node(frames, tmp_path):
    require('rosbags.rosbag2')
    from bag_files import LATE_NS, image_items, seeds_message, stamp_of, write_bag
    from rosbags.highlevel import AnyReader

    from xmem_ros.conversions.seeds import MASK
    from xmem_ros.recordings import typestore

    items = image_items(frames)
    for index, value, object_id, name in ((2, 1, 1, 'old'), (5, 1, 1, 'new'), (8, 2, 2, 'late')):
        seed = typestore.seed(MASK, name=name, mask=frames[index][1] == value)
        items.append(('/xmem/seeds', stamp_of(index) + LATE_NS + 1, seeds_message(index, [seed], [object_id])))
    path = write_bag(tmp_path / 'walk', sorted(items, key=lambda item: item[1]))
    assert track(path, tmp_path / 'out', '--both-ways') == 0
    with AnyReader([tmp_path / 'out' / 'bag'], default_typestore=typestore.typestore()) as reader:
        wanted = [c for c in reader.connections if c.topic == '/xmem/objects']
        objects = [reader.deserialize(raw, c.msgtype).objects for c, _, raw in reader.messages(wanted)]
    named = [[(item.id, item.name) for item in found] for found in objects]
    assert named == [[(1, 'old')]] * 5 + [[(1, 'new'), (2, 'late')]] * 5


@pytest.mark.parametrize(('policy', 'first'), [('keep', 0), ('reset', 5)])
def test_stamps_that_jump_back_keep_or_reset_objects_backwards_too(frames, tmp_path, policy, first):
    require('rosbags.rosbag2')
    from bag_files import TOPIC, image_items, write_bag

    items = [(TOPIC, time + (10**10 if index >= 5 else 0), m) for index, (_, time, m) in enumerate(image_items(frames))]
    for index in range(5):
        items[index][2].header.stamp.sec += 100
    path = write_bag(tmp_path / 'walk', items)
    save_mask(tmp_path / 'mask.png', frames[7][1])
    (tmp_path / 'jump.yaml').write_text(f'/**:\n  ros__parameters:\n    on_time_jump: {policy}\n')
    options = ('--seed', tmp_path / 'mask.png', '--at', 7, '--params', tmp_path / 'jump.yaml', '--both-ways')
    assert track(path, tmp_path / 'out', *options, '--format', 'png') == 0
    shown = [index for index, mask in enumerate(masks(tmp_path / 'out')) if mask.any()]
    assert shown == list(range(first, COUNT))
    notes = json.loads((tmp_path / 'out' / 'track.json').read_text())['notes']
    assert len(notes) == 1, 'forwards there is no object yet'
    assert notes[0].startswith('backwards: image 000004: stamps jumped back by')


# --- repeated, interrupted and refused runs

KILLED = """
import os, signal, sys
from xmem_ros.offline import run
from xmem_ros.offline.run_folder import RunFolder
from xmem_ros.offline.segments import Segments
from xmem_ros.cli.main import main
place = sys.argv.pop(1)
die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
finish = Segments.finish_segment
def finish_and_die(self, *arguments):
    kept = finish(self, *arguments)
    if type(self) is Segments and len(self.segments) == int(place):
        die()
    return kept
if place == 'turning':
    run.ReversedRecording = die
elif place == 'writing':
    run.write_results = die
else:
    Segments.finish_segment = finish_and_die
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ('place', 'expected'),
    [('turning', 8), ('1', 5), ('3', 0), ('writing', 0)],
    ids=['before the backward pass', 'in it', 'after it', 'while results are written'],
)
def test_a_killed_run_is_resumed_and_writes_the_same_bytes(frames, images, tmp_path, stepped, place, expected):
    (tmp_path / 'seeds.yaml').write_text(
        '- {frame: 3, labels: 3.png}\n- {frame: 7, objects: [{correct: "1", mask: one.png}]}\n'
    )
    save_mask(tmp_path / 'one.png', (frames[7][1] == 1).astype(np.uint8))
    options = ('--seed', tmp_path / 'seeds.yaml', '--both-ways', '--format', 'png', '--format', 'overlay')
    assert track(images, tmp_path / 'one', *options) == 0
    assert track(images, tmp_path / 'two', *options) == 0
    given = ['track', images, '--out', tmp_path / 'three', '--size', 64, '--device', 'cpu', '--segment', 3, *options]
    done = elsewhere(KILLED, place, *map(str, given))
    assert done.returncode == -signal.SIGKILL, done.stderr
    stepped.clear()
    assert track(images, tmp_path / 'three', *options) == 0
    assert len(stepped) == expected, 'the backward pass has eight images'
    assert contents(tmp_path / 'one') == contents(tmp_path / 'two') == contents(tmp_path / 'three')
    assert not (tmp_path / '.three.part').exists()


def test_a_run_is_resumed_only_in_the_same_directions(images, tmp_path, monkeypatch, capsys):
    def interrupted(self, frame):
        if frame.index == 8:
            raise KeyboardInterrupt
        return step(self, frame)

    step = OfflineTracker.step
    with monkeypatch.context() as patched:
        patched.setattr(OfflineTracker, 'step', interrupted)
        assert track(images, tmp_path / 'out', '--seed', tmp_path / '3.png', '--at', 3) == 130
    assert track(images, tmp_path / 'out', '--seed', tmp_path / '3.png', '--at', 3, '--both-ways') == 2
    assert 'was begun with other arguments (both ways: False, now True)' in capsys.readouterr().err


def test_damaged_work_of_the_backward_pass_is_refused(images, tmp_path, monkeypatch, capsys):
    finish = Segments.finish_segment

    def finish_and_end(self, *arguments):
        kept = finish(self, *arguments)
        if type(self) is Segments:
            raise KeyboardInterrupt
        return kept

    seed = ('--seed', tmp_path / '5.png', '--at', 5, '--both-ways')
    with monkeypatch.context() as patched:
        patched.setattr(Segments, 'finish_segment', finish_and_end)
        assert track(images, tmp_path / 'out', *seed) == 130
    (memory,) = (tmp_path / '.out.part').glob('backward_memory_*')
    memory.write_bytes(memory.read_bytes()[:-100])
    assert track(images, tmp_path / 'out', *seed) == 2
    assert 'is damaged' in (said := capsys.readouterr().err)
    assert '--restart' in said


def test_the_warning_about_images_before_the_first_seed_names_the_option(images, tmp_path, capsys):
    assert track(images, tmp_path / 'forward', '--seed', tmp_path / '3.png', '--at', 3) == 0
    said = capsys.readouterr().err
    assert 'images 0 to 2 precede the first seed, so no object is tracked there (--both-ways' in said
    assert track(images, tmp_path / 'both', '--seed', tmp_path / '3.png', '--at', 3, '--both-ways') == 0
    assert capsys.readouterr().err == ''


def test_seeds_on_the_first_image_give_the_masks_of_a_forward_run_and_a_warning(images, tmp_path, capsys, stepped):
    assert track(images, tmp_path / 'forward', '--seed', tmp_path / '0.png') == 0
    stepped.clear()
    assert track(images, tmp_path / 'both', '--seed', tmp_path / '0.png', '--both-ways') == 0
    assert len(stepped) == COUNT
    assert 'no image precedes the seeds' in capsys.readouterr().err
    assert contents(tmp_path / 'forward') == contents(tmp_path / 'both')


def test_more_objects_than_labels_are_refused(images, tmp_path, capsys):
    entries = [{'frame': i, 'objects': [{'box': [9, 9, 9, 9]} for _ in range(128)]} for i in range(2)]
    entries[1]['remove'] = [f'{i}' for i in range(1, 129)]
    (tmp_path / 'seeds.yaml').write_text(json.dumps(entries))
    (tmp_path / 'most.yaml').write_text('/**:\n  ros__parameters:\n    max_objects: 254\n')
    options = ('--seed', tmp_path / 'seeds.yaml', '--params', tmp_path / 'most.yaml', '--both-ways')
    assert track(images, tmp_path / 'out', *options) == 2
    assert 'the seeds have 256 objects; tracked both ways' in capsys.readouterr().err
    assert not (tmp_path / '.out.part').exists()


# --- reading backwards


@pytest.mark.parametrize('compressed', [False, True])
def test_a_bag_is_read_backwards_without_the_images_that_cannot_be_read(frames, tmp_path, small_spool, compressed):
    require('rosbags.rosbag2')
    from bag_files import TOPIC, image_items, write_bag

    items = image_items(frames, compressed=compressed)
    items[4] = (TOPIC, items[4][1], (items[4][2].__msgtype__, b'\x00\x01\x00\x00'))
    (tmp_path / 'spool').mkdir()
    most = 0
    with open_recording(write_bag(tmp_path / 'bag', items)) as recording:
        forward = [frame for frame in recording.frames() if frame.index <= 8]
        reverse = backwards.ReversedRecording(recording, 8, tmp_path / 'spool')
        found = []
        for frame in reverse.frames():
            found.append(frame)
            most = max(most, sum(file.stat().st_size for file in (tmp_path / 'spool').iterdir()))
        later = [frame.index for frame in reverse.frames(3)]
    assert [frame.index for frame in found] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert later == [3, 5, 6, 7, 8]
    assert [frame.name for frame in found] == [frame.name for frame in forward[::-1]]
    for one, other in zip(found, forward[::-1], strict=True):
        np.testing.assert_array_equal(one.message.data, other.message.data)
        assert one.stamp_ns + other.stamp_ns == found[0].stamp_ns + forward[-1].stamp_ns
    assert 0 < most <= backwards.SPOOL_BYTES
    assert not list((tmp_path / 'spool').iterdir())
