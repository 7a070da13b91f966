# SPDX-License-Identifier: MIT
"""`xmem-ros track` on bags: outputs, repeatability and errors."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from needs import require

require('rosbags.rosbag2')

from bag_files import LATE_NS, SIZE, TOPIC, image_items, image_message, scene, seeds_message, stamp_of, write_bag
from PIL import Image
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader
from scene_files import save_mask, save_sequence

from xmem_ros.cli.main import main
from xmem_ros.conversions.seeds import MASK
from xmem_ros.evaluation.datasets.options import ReadOptions
from xmem_ros.evaluation.datasets.plain import read_generic
from xmem_ros.offline.tracking import OfflineTracker
from xmem_ros.recordings import typestore
from xmem_ros.training.bag import read_bag as read_footage
from xmem_ros.video.clip import Clip

ROOT = Path(__file__).parents[2]
COUNT = 10


@pytest.fixture(scope='module')
def bag(frames, tmp_path_factory):
    """Write images, late seeds of image 2, and a topic of another type."""
    seeds = [typestore.seed(MASK, name=name, mask=frames[2][1] == value) for value, name in [(1, 'mug'), (2, 'duck')]]
    items = image_items(frames)
    items.append(('/xmem/seeds', stamp_of(4) + LATE_NS + 1, seeds_message(2, seeds, [3, 4])))
    items.append(('/xmem/labels', stamp_of(5), typestore.image(typestore.header(1, ''), frames[0][1], 'mono8')))
    for index in range(COUNT):
        clock = typestore.make('rosgraph_msgs/msg/Clock', clock=typestore.time_message(stamp_of(index)))
        items.append(('/clock', stamp_of(index) + 1, clock))
    return write_bag(tmp_path_factory.mktemp('bags') / 'walk', sorted(items, key=lambda item: item[1]))


def track(path, out, *more):
    options = ['--out', out, '--size', 64, '--device', 'cpu', '--segment', 4, *more]
    return main([str(part) for part in ['track', path, *options]])


def digests(folder):
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob('*'))
        if file.is_file()
    }


def read_bag(path, *, but=()):
    """Read (topic, time, message) with rosbags only, without some topics."""
    with AnyReader([path]) as reader:
        wanted = [connection for connection in reader.connections if connection.topic not in but]
        return [(c.topic, time, reader.deserialize(raw, c.msgtype)) for c, time, raw in reader.messages(wanted)]


def left(folder):
    return sorted(file.name for file in folder.iterdir())


# --- output


def test_a_bag_has_the_recorded_topics_and_the_results_after_each_image(bag, frames, tmp_path, capsys):
    assert track(bag, tmp_path / 'out') == 0
    said = capsys.readouterr()
    assert said.out == f'{COUNT} images tracked: {tmp_path / "out" / "bag"}\n'
    assert said.err == ''
    found = read_bag(tmp_path / 'out' / 'bag')
    topics = [topic for topic, _, _ in found]
    assert topics.count(TOPIC) == topics.count('/xmem/labels') == topics.count('/xmem/objects') == COUNT
    assert (topics.count('/xmem/seeds'), topics.count('/clock')) == (1, COUNT)
    images = [(time, message) for topic, time, message in found if topic == TOPIC]
    for topic in ('/xmem/labels', '/xmem/objects'):
        ours = [(time, message) for name, time, message in found if name == topic]
        assert (
            [time for time, _ in ours] == [time for time, _ in images] == [stamp_of(i) + LATE_NS for i in range(COUNT)]
        )
        assert [message.header for _, message in ours] == [message.header for _, message in images]
    (place,) = [i for i, topic in enumerate(topics) if topic == '/xmem/seeds']
    assert found[place][1] == stamp_of(2) + LATE_NS, 'with its image'
    assert found[place][2].ids.tolist() == [3, 4]
    labels = [message for topic, _, message in found if topic == '/xmem/labels']
    assert labels[1].data.max() == 0
    shown = labels[9].data.reshape(SIZE)
    truth = frames[9][1]
    assert (shown == 1)[truth == 1].mean() > 0.8
    last = [message for topic, _, message in found if topic == '/xmem/objects'][-1]
    assert [(item.id, item.name, item.label) for item in last.objects] == [(3, 'mug', 1), (4, 'duck', 2)]
    assert last.objects[0].area == (shown == 1).sum()


def test_a_bag_can_have_only_the_results_with_labels_as_png_under_another_node_name(bag, tmp_path):
    assert track(bag, tmp_path / 'raw', '--only-ours') == 0
    assert track(bag, tmp_path / 'png', '--only-ours', '--labels', 'png', '--node', '/front/xmem') == 0
    raw = {topic for topic, _, _ in read_bag(tmp_path / 'raw' / 'bag')}
    assert raw == {'/xmem/labels', '/xmem/objects', '/xmem/seeds'}
    found = read_bag(tmp_path / 'png' / 'bag')
    assert {topic for topic, _, _ in found} == {f'/front{topic}' for topic in raw - {'/xmem/labels'}} | {
        '/front/xmem/labels/compressed'
    }
    pictures = [message for topic, _, message in found if topic.endswith('compressed')]
    plain_labels = [message for topic, _, message in read_bag(tmp_path / 'raw' / 'bag') if topic == '/xmem/labels']
    for picture, label in zip(pictures, plain_labels, strict=True):
        np.testing.assert_array_equal(
            cv2.imdecode(picture.data, cv2.IMREAD_UNCHANGED), label.data.reshape(label.height, label.width)
        )


def test_a_tracked_bag_can_be_tracked_again_with_the_same_results(bag, tmp_path):
    assert track(bag, tmp_path / 'one') == 0
    assert track(tmp_path / 'one' / 'bag', tmp_path / 'two') == 0
    assert digests(tmp_path / 'one' / 'bag') == digests(tmp_path / 'two' / 'bag')
    (footage,) = read_footage(tmp_path / 'one' / 'bag', 64)
    assert len(footage.frames) == COUNT - 2, 'training data starts with the first labels'


def test_all_formats_are_written_in_one_run_and_agree(bag, frames, tmp_path):
    require('pycocotools')
    from pycocotools.coco import COCO

    formats = [f'--format={name}' for name in ('bag', 'png', 'coco', 'ytvos', 'overlay')]
    out = tmp_path / 'out'
    assert track(bag, out, *formats) == 0
    names = [f'{index:06d}' for index in range(COUNT)]
    assert left(out) == sorted(
        [
            *(f'{name}.png' for name in names),
            'bag',
            'coco.json',
            'frames.csv',
            'objects.csv',
            'overlay.mp4',
            'track.json',
            'ytvos',
        ]
    )
    masks = [np.array(Image.open(out / f'{name}.png')) for name in names]
    np.testing.assert_array_equal(masks[2], frames[2][1])  # the seeds themselves
    with (out / 'frames.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [(row['name'], int(row['stamp_ns'])) for row in rows] == [
        (name, stamp_of(index)) for index, name in enumerate(names)
    ]
    assert (out / 'objects.csv').read_text() == 'value,id,name\n1,3,mug\n2,4,duck\n'
    coco = COCO(out / 'coco.json')
    assert sorted(item['name'] for item in coco.loadCats(coco.getCatIds())) == ['duck', 'mug']
    for index in range(COUNT):
        shown = np.zeros(SIZE, np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[index])):
            mask = coco.annToMask(annotation)
            assert annotation['area'] == mask.sum()
            assert annotation['bbox'] == list(cv2.boundingRect(mask))
            shown[mask > 0] = annotation['track_id'] - 2
        np.testing.assert_array_equal(shown, masks[index])
    (sequence,) = read_generic(out / 'ytvos', ReadOptions())
    assert (sequence.name, len(sequence.frames)) == ('walk', COUNT - 2)
    pictures = sorted((out / 'ytvos' / 'JPEGImages' / 'walk').iterdir())
    assert [file.stem for file in pictures] == names[2:], 'starts with the first image that shows an object'
    meta = json.loads((out / 'ytvos' / 'meta.json').read_text())['videos']['walk']['objects']
    assert {value: entry['category'] for value, entry in meta.items()} == {'1': 'mug', '2': 'duck'}
    assert meta['1']['frames'][0] == '000002'
    overlay = Clip(out / 'overlay.mp4')
    assert overlay.rate == pytest.approx(30, rel=1e-3)
    assert len(list(overlay)) == COUNT
    summary = json.loads((out / 'track.json').read_text())
    assert (summary['tracked'], summary['left_out'], summary['damage']) == (COUNT, [], '')
    assert summary['topics_left_out'] == ['/xmem/labels', '/xmem/seeds']


def test_a_mask_and_a_box_and_a_file_with_both_give_the_same_seeds(bag, frames, tmp_path):
    save_mask(tmp_path / 'mask.png', np.where(frames[3][1] == 1, 9, 0).astype(np.uint8))
    x, y, width, height = cv2.boundingRect((frames[3][1] == 2).astype(np.uint8))
    box = f'duck={x - 2},{y - 2},{width + 4},{height + 4}'
    stamp = f'{stamp_of(3) // 10**9}.{stamp_of(3) % 10**9:09d}'
    options = ['--seed', tmp_path / 'mask.png', '--box', box, '--format', 'png']
    assert track(bag, tmp_path / 'index', *options, '--at', 3) == 0
    assert track(bag, tmp_path / 'stamp', *options, '--at', stamp) == 0
    (tmp_path / 'seeds.yaml').write_text(
        f'- {{stamp: {stamp}, labels: mask.png}}\n'
        f'- {{frame: 3, objects: [{{name: duck, box: [{box.partition("=")[2]}]}}]}}\n'
        '- {frame: 7, remove: [duck]}\n'
    )
    assert track(bag, tmp_path / 'file', '--seed', tmp_path / 'seeds.yaml', '--format', 'png') == 0
    assert digests(tmp_path / 'index') == digests(tmp_path / 'stamp')
    values = [set(np.unique(np.array(Image.open(tmp_path / 'file' / f'{i:06d}.png')))) for i in range(COUNT)]
    assert values[2] == {0}
    assert values[3] == values[6] == {0, 2, 9}, 'the mask keeps its value, the box gets the next label'
    assert values[7] == {0, 9}
    for index in range(7):
        name = f'{index:06d}.png'
        assert (tmp_path / 'file' / name).read_bytes() == (tmp_path / 'index' / name).read_bytes()


def test_a_parameter_file_applies_and_the_command_line_overrides_it(bag, tmp_path, capsys):
    (tmp_path / 'p.yaml').write_text('xmem: {ros__parameters: {min_score: 1.0, size: 128, max_objects: 1}}')
    assert track(bag, tmp_path / 'out', '--params', tmp_path / 'p.yaml') == 2
    assert 'at most 1 objects are allowed (max_objects)' in capsys.readouterr().err
    (tmp_path / 'p.yaml').write_text('xmem: {ros__parameters: {min_score: 1.0, size: 128}}')
    assert track(bag, tmp_path / 'out', '--params', tmp_path / 'p.yaml') == 0
    objects = [message for topic, _, message in read_bag(tmp_path / 'out' / 'bag') if topic == '/xmem/objects']
    assert {item.state for item in objects[-1].objects} == {2}, 'no score reaches 1'
    assert not (tmp_path / 'nothing').exists()


def test_topics_of_unknown_types_are_copied_unchanged(frames, tmp_path, capsys):
    raw = bytes(range(40))
    items = image_items(frames)
    items.insert(3, ('/secret', items[2][1] + 5, ('my_msgs/msg/Secret', raw)))
    path = write_bag(tmp_path / 'bag', items)
    save_mask(tmp_path / 'mask.png', frames[0][1])
    assert track(path, tmp_path / 'out', '--seed', tmp_path / 'mask.png') == 0
    assert 'my_msgs/msg/Secret was copied without its definition' in capsys.readouterr().err
    with Reader(tmp_path / 'out' / 'bag') as reader:
        wanted = [connection for connection in reader.connections if connection.topic == '/secret']
        assert [(time, data) for _, time, data in reader.messages(wanted)] == [(items[2][1] + 5, raw)]


# --- repeated and resumed runs

KILLED = """
import os, signal, sys
from xmem_ros.offline.run_folder import RunFolder
from xmem_ros.cli.main import main
finish = RunFolder.finish_segment
def finish_and_die(self, *arguments):
    kept = finish(self, *arguments)
    if len(self.segments) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return kept
RunFolder.finish_segment = finish_and_die
main(sys.argv[1:])
"""
KILLED_LATE = """
import os, signal, sys
from xmem_ros.offline.run_folder import RunFolder
from xmem_ros.cli.main import main
RunFolder.deliver = lambda self: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""


def kill_after_two_segments(*arguments, script=KILLED):
    """Run the command line in a process that is killed after two segments, or by the script."""
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    command = [sys.executable, '-c', script, *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | {'PYTHONPATH': path}, capture_output=True, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def break_off(*arguments):
    """Interrupt a run after two segments, as a person does."""
    step = OfflineTracker.step

    def interrupted(self, frame):
        if frame.index == 9:
            raise KeyboardInterrupt
        return step(self, frame)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(OfflineTracker, 'step', interrupted)
        assert main([*map(str, arguments)]) == 130


def options(bag, out):
    formats = [f'--format={name}' for name in ('bag', 'png', 'ytvos', 'overlay')]
    return ['track', bag, '--out', out, '--size', 64, '--device', 'cpu', '--segment', 4, *formats]


def test_two_runs_and_a_killed_and_resumed_one_write_the_same_bytes(bag, tmp_path, monkeypatch, threads):
    for name in ('one', 'two'):
        assert main([*map(str, options(bag, tmp_path / name))]) == 0
    kill_after_two_segments(*options(bag, tmp_path / 'three'))
    assert left(tmp_path) == ['.three.part', 'one', 'two']
    stepped = []
    step = OfflineTracker.step
    monkeypatch.setattr(OfflineTracker, 'step', lambda self, frame: stepped.append(frame.index) or step(self, frame))
    assert main([*map(str, options(bag, tmp_path / 'three'))]) == 0
    assert stepped == [8, 9], 'two segments of four images were complete'
    assert digests(tmp_path / 'one') == digests(tmp_path / 'two') == digests(tmp_path / 'three')
    assert left(tmp_path) == ['one', 'three', 'two']


def test_a_run_killed_while_writing_does_not_track_again(bag, tmp_path, monkeypatch, threads):
    assert main([*map(str, options(bag, tmp_path / 'one'))]) == 0
    kill_after_two_segments(*options(bag, tmp_path / 'two'), script=KILLED_LATE)
    assert left(tmp_path) == ['.two.part', 'one']
    monkeypatch.setattr(OfflineTracker, 'step', None)
    assert main([*map(str, options(bag, tmp_path / 'two'))]) == 0
    assert digests(tmp_path / 'one') == digests(tmp_path / 'two')


def test_a_run_interrupted_from_the_keyboard_can_be_resumed(bag, tmp_path, monkeypatch, capsys):
    step = OfflineTracker.step

    def interrupted(self, frame):
        if frame.index == 6:
            raise KeyboardInterrupt
        return step(self, frame)

    monkeypatch.setattr(OfflineTracker, 'step', interrupted)
    assert track(bag, tmp_path / 'out') == 130
    assert 'give the same command again to continue' in capsys.readouterr().err
    assert left(tmp_path) == ['.out.part']
    stepped = []
    monkeypatch.setattr(OfflineTracker, 'step', lambda self, frame: stepped.append(frame.index) or step(self, frame))
    assert track(bag, tmp_path / 'out') == 0
    assert stepped == [4, 5, 6, 7, 8, 9], 'one segment of four images was complete'


def test_a_run_is_resumed_only_with_the_same_arguments(bag, tmp_path, capsys):
    break_off(*options(bag, tmp_path / 'out'))
    assert main([*map(str, options(bag, tmp_path / 'out')), '--only-ours']) == 2
    said = capsys.readouterr().err
    assert 'was begun with other arguments (only ours: False, now True)' in said
    assert '--restart' in said
    assert left(tmp_path) == ['.out.part']
    assert main([*map(str, options(bag, tmp_path / 'out')), '--only-ours', '--restart']) == 0
    assert left(tmp_path) == ['out']


def test_an_unusable_late_seed_can_be_corrected_without_tracking_everything_again(
    bag, frames, tmp_path, monkeypatch, capsys
):
    save_mask(tmp_path / 'first.png', (frames[1][1] == 1).astype(np.uint8))
    save_mask(tmp_path / 'late.png', (frames[6][1] == 1).astype(np.uint8)[::2, ::2])
    seeds = tmp_path / 'seeds.yaml'
    first = '- {frame: 1, objects: [{name: mug, mask: first.png}]}\n'
    late = '- {frame: 6, objects: [{correct: mug, mask: late.png}]}\n'
    seeds.write_text(first + late)
    command = [*options(bag, tmp_path / 'out'), '--seed', seeds]
    assert main([*map(str, command)]) == 2
    said = capsys.readouterr().err
    assert 'seeds.yaml, entry 2' in said
    assert 'the work so far is kept: correct the seeds' in said
    save_mask(tmp_path / 'late.png', (frames[6][1] == 1).astype(np.uint8))
    seeds.write_text(first.replace('frame: 1', 'frame: 2') + late)
    assert main([*map(str, command)]) == 2, 'applied seeds cannot be changed'
    assert 'seeds of image 1' in capsys.readouterr().err
    seeds.write_text(first + late)
    stepped = []
    step = OfflineTracker.step
    monkeypatch.setattr(OfflineTracker, 'step', lambda self, frame: stepped.append(frame.index) or step(self, frame))
    assert main([*map(str, command)]) == 0
    assert stepped == [4, 5, 6, 7, 8, 9], 'one segment of four images was complete'
    assert main([*map(str, [*options(bag, tmp_path / 'again'), '--seed', seeds])]) == 0
    assert digests(tmp_path / 'out') == digests(tmp_path / 'again')


def test_damaged_work_of_an_interrupted_run_is_refused(bag, tmp_path, capsys):
    break_off(*options(bag, tmp_path / 'out'))
    (memory,) = (tmp_path / '.out.part').glob('memory_*')
    memory.write_bytes(memory.read_bytes()[:-100])
    assert main([*map(str, options(bag, tmp_path / 'out'))]) == 2
    assert 'is damaged' in (said := capsys.readouterr().err)
    assert '--restart' in said


def edited(path, change, compression=zipfile.ZIP_STORED):
    """Write a segment again with another state; change: state → state."""
    with zipfile.ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    entries['state.json'] = json.dumps(change(json.loads(entries['state.json']))).encode()
    with zipfile.ZipFile(path, 'w', compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)


def test_edited_work_of_an_interrupted_run_is_refused(bag, tmp_path, capsys):
    break_off(*options(bag, tmp_path / 'out'))
    segment = sorted((tmp_path / '.out.part').glob('segment_*'))[-1]
    whole = segment.read_bytes()
    changes = [
        lambda _: [],
        lambda state: {**state, 'index': 'four'},
        lambda state: {key: value for key, value in state.items() if key != 'notes'},
        lambda state: {**state, 'notes': {}},
        lambda state: {**state, 'notes': {**state['notes'], 'clock': [1e999]}},
        lambda state: {**state, 'faults': [[1]]},
        lambda state: {key: value for key, value in state.items() if key != 'done'},
    ]
    for change in changes:
        segment.write_bytes(whole)
        edited(segment, change)
        assert main([*map(str, options(bag, tmp_path / 'out'))]) == 2
        assert 'is damaged' in capsys.readouterr().err
    segment.write_bytes(whole)
    edited(segment, lambda state: state, zipfile.ZIP_DEFLATED)
    assert main([*map(str, options(bag, tmp_path / 'out'))]) == 2
    assert 'its entries are compressed' in capsys.readouterr().err
    segment.write_bytes(whole)
    assert main([*map(str, options(bag, tmp_path / 'out'))]) == 0


def test_two_runs_do_not_write_to_one_destination(bag, tmp_path, capsys):
    from xmem_ros.offline.run_folder import RunFolder

    other = RunFolder(tmp_path / 'out', {})
    assert track(bag, tmp_path / 'out') == 2
    assert 'another run is writing there' in capsys.readouterr().err
    other.close()


def test_results_never_replace_files_of_the_user(bag, tmp_path, capsys):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'thesis.tex').write_text('mine')
    assert track(bag, tmp_path / 'out') == 2
    assert 'already exists and is not an empty folder' in capsys.readouterr().err
    assert left(tmp_path / 'out') == ['thesis.tex']


# --- faults of the input


def test_a_truncated_bag_is_tracked_to_its_last_readable_image(frames, tmp_path, capsys):
    large = scene(12, size=(240, 320))
    seeds = seeds_message(0, [typestore.seed(MASK, mask=large[0][1] == 1)], [1])
    items = image_items(large)
    items.insert(1, ('/xmem/seeds', items[0][1] + 1, seeds))
    path = write_bag(tmp_path / 'bag', items)
    whole = (path / 'bag.mcap').read_bytes()
    (tmp_path / 'cut.mcap').write_bytes(whole[: len(whole) * 3 // 4])
    assert track(tmp_path / 'cut.mcap', tmp_path / 'out') == 0
    said = capsys.readouterr()
    assert 'warning' in said.err
    assert 'cut.mcap was cut off' in said.err
    count = json.loads((tmp_path / 'out' / 'track.json').read_text())['tracked']
    assert said.out.startswith(f'{count} images tracked')
    assert 4 <= count <= 9
    assert len([1 for topic, _, _ in read_bag(tmp_path / 'out' / 'bag') if topic == '/xmem/labels']) == count


def test_a_bag_truncated_to_its_header_is_reported_as_cut_off(frames, tmp_path, capsys):
    whole = write_bag(tmp_path / 'bag', image_items(frames)) / 'bag.mcap'
    (tmp_path / 'tiny.mcap').write_bytes(whole.read_bytes()[:300])
    assert track(tmp_path / 'tiny.mcap', tmp_path / 'out') == 2
    assert 'tiny.mcap was cut off' in capsys.readouterr().err
    assert left(tmp_path) == ['bag', 'tiny.mcap']


def test_unusable_images_are_skipped_and_named(frames, tmp_path, capsys):
    items = image_items(frames)
    raw = typestore.serialize(image_message(3, frames[3][0]))
    items[3] = (TOPIC, items[3][1], (typestore.IMAGE, raw[:500]))
    broken = image_message(6, frames[6][0])
    broken.height = 100_000
    items[6] = (TOPIC, items[6][1], broken)
    save_mask(tmp_path / 'mask.png', frames[0][1])
    path = write_bag(tmp_path / 'bag', items)
    assert track(path, tmp_path / 'out', '--seed', tmp_path / 'mask.png', '--format', 'png', '--format', 'bag') == 0
    said = capsys.readouterr()
    assert f'{COUNT - 2} masks' in said.out
    assert 'image 3 was left out: not a sensor_msgs/msg/Image' in said.err
    assert 'image 6 was left out: the image is cut off' in said.err
    assert len(list((tmp_path / 'out').glob('*.png'))) == COUNT - 2
    summary = json.loads((tmp_path / 'out' / 'track.json').read_text())
    assert [item['index'] for item in summary['left_out']] == [3, 6]
    topics = [topic for topic, _, _ in read_bag(tmp_path / 'out' / 'bag', but=(TOPIC,))]
    assert topics.count('/xmem/labels') == COUNT - 2


def useless(folder, frames):
    """Return name, input, options and expected error."""
    (folder / 'empty.mcap').write_bytes(b'')
    (folder / 'text.db3').write_text('no bag')
    save_mask(folder / 'mask.png', frames[0][1])
    save_mask(folder / 'small.png', np.ones((8, 8), np.uint8))
    bag = write_bag(folder / 'bag', image_items(frames))
    broken = [(TOPIC, time, (typestore.IMAGE, b'\x00\x01\x00\x00')) for _, time, _ in image_items(frames)]
    none = write_bag(folder / 'none', broken)
    seed = ['--seed', folder / 'mask.png']
    return [
        (folder / 'empty.mcap', seed, 'empty.mcap: not a readable bag'),
        (folder / 'text.db3', seed, 'text.db3: not a readable bag'),
        (folder / 'absent', seed, 'absent: no such file or folder; give a bag'),
        (none, seed, 'none cannot be used: not a sensor_msgs/msg/Image'),
        (bag, [], 'bag: the bag has no recorded seeds; give --seed MASK'),
        (bag, [*seed, '--image-topic', '/x'], 'no topic /x; topics with images: /camera/image_raw'),
        (bag, ['--seeds-topic', '/y'], 'no topic /y'),
        (bag, ['--seeds-topic', '/y', *seed], 'give either --seeds-topic'),
        (bag, [*seed, '--at', 99], 'mask.png: there is no image 99'),
        (bag, [*seed, '--at', '1.5'], 'mask.png: no image of'),
        (bag, [*seed, '--at', 'noon'], "'noon' is not an image"),
        (bag, ['--seed', folder / 'small.png'], "small.png: image 000000: seed 1 '1' (mask): the mask is 8×8"),
        (bag, ['--at', 3], '--at requires a mask or a box'),
        (bag, [*seed, '--only-ours', '--format', 'png'], '--only-ours and --labels require --format bag'),
        (bag, ['--box', 'cup=1,2,3'], "'cup=1,2,3' is not a box"),
        (bag, ['--box', 'cup=90,60,40,40'], 'box cup: image 000000: '),
        (bag, [*seed, '--node', '/my node'], "--node '/my node' is not a node name"),
        (bag, [*seed, '--params', folder / 'none.yaml'], 'none.yaml: no such parameter file'),
        (bag, [*seed, '--weights', 'nonsense'], 'nonsense'),
    ]


def test_unusable_input_is_named_with_exit_code_2_and_leaves_no_files(frames, tmp_path, capsys):
    for number, (path, more, text) in enumerate(useless(tmp_path, frames)):
        before = left(tmp_path)
        assert track(path, tmp_path / f'out{number}', *more) == 2, text
        said = capsys.readouterr().err
        assert text in said
        assert 'Traceback' not in said
        assert left(tmp_path) == before, text


# --- without rosbags or ROS

BLOCKED = """
import sys
for name in {blocked}:
    sys.modules[name] = None
from xmem_ros.cli.main import main
code = main(sys.argv[1:])
print(sorted(name for name in ('rclpy', 'sensor_msgs', 'std_msgs') if sys.modules.get(name)))
sys.exit(code)
"""


def run_without(blocked, *arguments):
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    command = [sys.executable, '-c', BLOCKED.format(blocked=blocked), *map(str, arguments)]
    return subprocess.run(
        command, env=os.environ | {'PYTHONPATH': path}, capture_output=True, text=True, timeout=300, check=False
    )


def test_bags_are_tracked_without_ros(bag, tmp_path):
    blocked = ['rclpy', 'sensor_msgs', 'std_msgs', 'builtin_interfaces', 'xmem_ros.msg', 'xmem_ros.srv']
    done = run_without(blocked, *options(bag, tmp_path / 'out'))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == '[]'


def test_without_rosbags_folders_are_tracked_and_bags_are_refused(bag, tmp_path):
    save_sequence(tmp_path, frames=3)
    folder, mask = tmp_path / 'JPEGImages' / 'toys', tmp_path / 'Annotations' / 'toys' / '00000.png'
    command = ['track', folder, '--seed', mask, '--out', tmp_path / 'out', '--device', 'cpu', '--size', 64]
    done = run_without(['rosbags'], *command)
    assert done.returncode == 0, done.stderr
    assert left(tmp_path / 'out') == ['00000.png', '00001.png', '00002.png']
    done = run_without(['rosbags'], *options(bag, tmp_path / 'bag'))
    assert done.returncode == 2
    assert 'pip install' in done.stderr


def test_a_format_whose_library_is_missing_is_refused_at_once(bag, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'pycocotools', None)
    monkeypatch.delitem(sys.modules, 'pycocotools.mask', raising=False)
    assert main([*map(str, options(bag, tmp_path / 'out')), '--format', 'coco']) == 2
    assert 'pip install pycocotools, or choose another format (--format)' in capsys.readouterr().err
    assert left(tmp_path) == []


def test_results_of_a_folder_of_frames_can_be_written_as_a_bag(tmp_path):
    save_sequence(tmp_path, frames=3)
    folder, mask = tmp_path / 'JPEGImages' / 'toys', tmp_path / 'Annotations' / 'toys' / '00000.png'
    assert track(folder, tmp_path / 'out', '--seed', mask, '--format', 'bag') == 0
    found = read_bag(tmp_path / 'out' / 'bag')
    assert [topic for topic, _, _ in found] == ['/xmem/seeds', *['/xmem/labels', '/xmem/objects'] * 3]
