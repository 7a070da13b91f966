# SPDX-License-Identifier: MIT
"""Demonstration: camera over real DDS, figures, processes, and a run with the real node."""

import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from needs import require
from scene_files import BUNDLED, FOOTAGE, save_mask, save_sequence, save_untrained_weights

from xmem_ros import child_process
from xmem_ros.child_process import Child, ProcessError
from xmem_ros.demo.report import ClipResult, Report, contact_sheet, iou
from xmem_ros.demo.scene import RenderedScene
from xmem_ros.demo.truth import box_seed, mask_seeds, scene_seeds
from xmem_ros.errors import SeedError
from xmem_ros.media import Clip
from xmem_ros.objects import ObjectState, TrackedObject

ROOT = Path(__file__).resolve().parents[2]


# --- seeds and truth


def test_the_scene_seeds_its_objects_by_name_and_knows_each_frames_truth():
    scene = RenderedScene((64, 96), frames=4)
    seeds, truth = scene_seeds(scene)
    assert [seed.name for seed in seeds] == scene.names
    for index in range(4):
        _, labels = scene[index]
        for k, name in enumerate(scene.names):
            np.testing.assert_array_equal(truth(index)[name] > 0, labels == k + 1)
    np.testing.assert_array_equal(seeds[1].mask, scene[0][1] == 2)


def test_a_box_is_read_as_x_y_width_height():
    frame = np.zeros((48, 64, 3), np.uint8)
    assert box_seed('4,8,60,40', frame).box == (4, 8, 60, 40)


@pytest.mark.parametrize('text', ['5,8,60,40', '4,9,60,40', '-1,0,5,5', '3,3,0,5', '3,3,5,0', '1,2,3', 'a,b,c,d', ''])
def test_a_box_that_is_none_or_lies_outside_is_refused(text):
    with pytest.raises(SeedError, match='x,y,width,height'):
        box_seed(text, np.zeros((48, 64, 3), np.uint8))


def test_masks_beside_the_seed_are_the_truth_of_the_frames_of_their_names(tmp_path):
    scene = save_sequence(tmp_path, frames=4)
    folder = tmp_path / 'Annotations' / 'toys'
    (folder / '00002.png').unlink()
    clip = Clip(tmp_path / 'JPEGImages' / 'toys')
    seeds, truth = mask_seeds(folder / '00000.png', scene[0][0], clip.stems)
    assert [seed.name for seed in seeds] == ['object 1', 'object 2']
    assert truth(0) == {}
    assert truth(2) == {}
    np.testing.assert_array_equal(truth(3)['object 2'] > 0, scene[3][1] == 2)


def test_void_is_not_an_object_and_255_alone_is(tmp_path):
    frame = np.zeros((48, 64, 3), np.uint8)
    mask = np.zeros((48, 64), np.uint8)
    mask[:10], mask[20:30] = 255, 3
    for name in ('0', '1'):
        save_mask(tmp_path / f'{name}.png', mask)
    seeds, truth = mask_seeds(tmp_path / '0.png', frame, ['0', '1'])
    assert [seed.name for seed in seeds] == ['object']
    assert truth(1)['object'][:, 0].tolist() == [255] * 10 + [0] * 10 + [1] * 10 + [0] * 18
    mask[20:30] = 0
    for name in ('0', '1'):
        save_mask(tmp_path / f'{name}.png', mask)
    seeds, truth = mask_seeds(tmp_path / '0.png', frame, ['0', '1'])
    assert truth(1)['object'][:, 0].tolist() == [1] * 10 + [0] * 38


def test_a_mask_of_another_size_or_without_an_object_is_refused(tmp_path):
    save_mask(tmp_path / 'mask.png', np.ones((48, 65), np.uint8))
    with pytest.raises(SeedError, match=r'mask\.png: the mask is 65×48 px, the first frame 64×48'):
        mask_seeds(tmp_path / 'mask.png', np.zeros((48, 64, 3), np.uint8), [])
    save_mask(tmp_path / 'mask.png', np.zeros((48, 64), np.uint8))
    with pytest.raises(SeedError, match='shows no object'):
        mask_seeds(tmp_path / 'mask.png', np.zeros((48, 64, 3), np.uint8), [])


# --- figures


def test_iou_is_that_worked_out_by_hand():
    mask, truth = np.zeros((2, 10, 10), np.uint8)
    assert iou(mask > 0, truth) == 1
    mask[:, :4], truth[:, 2:8] = 1, 1
    assert iou(mask > 0, truth) == pytest.approx(20 / 80)
    truth[:, 6:] = 255
    assert iou(mask > 0, truth) == pytest.approx(20 / 60)


def tracked_object(number, label=None):
    return TrackedObject(
        number, label or number, f'o{number}', ObjectState.TRACKED, 0.9, (0, 0, 4, 4), 16, (2, 2), 1, 0, 0.1, 0.0
    )


def tracked_frame(delay_ms, numbers=(1,), labels=None):
    image = np.ones((60, 80), np.uint8) if labels is None else labels
    return ClipResult([tracked_object(number) for number in numbers], lambda: image, delay_ms)


def make_report(tracked, published=10):
    return Report(published=published, rate=20.0, ids=[1], labels=[1], names=['cup'], tracked=tracked)


def test_the_table_counts_what_was_tracked_and_what_was_dropped():
    report = make_report({index: tracked_frame(delay) for index, delay in [(0, 10.0), (4, 20.0), (8, 90.0), (9, 30.0)]})
    report.iou = {'cup': [0.5, 1.0]}
    lines = {line[:18].strip(): line[18:].strip() for line in report.table().splitlines()}
    assert lines['frames in'] == '10 at 20.0 frames/s'
    assert lines['tracked'] == '4'
    assert lines['dropped'].split()[0] == '6'
    assert lines['rate'] == '8.0 frames/s'  # 4 of 10 at 20 a second
    # p95 of 10, 20, 30, 90: 85 % of the way from 30 to 90
    assert lines['image to publish'] == '25 ms median, 81 ms p95'
    assert lines['IoU of cup'] == '0.750 mean, 0.500 lowest'
    assert lines['ids stable'] == 'yes: 1'


@pytest.mark.parametrize('numbers', [(), (2,), (1, 2)])
def test_ids_that_change_are_told(numbers):
    report = make_report({0: tracked_frame(1.0), 1: tracked_frame(1.0, numbers)})
    assert 'ids stable        NO: frame 1' in report.table()


def test_the_report_draws_a_video_as_long_as_the_clip_and_six_frames(tmp_path):
    half = np.zeros((60, 80), np.uint8)
    half[:, :40] = 1
    report = make_report({index: tracked_frame(1.0, labels=half) for index in range(0, 10, 2)})
    truth = {4: {'cup': np.ones((60, 80), np.uint8)}}
    frames = [np.full((60, 80, 3), 20 * index, np.uint8) for index in range(10)]
    report.draw(frames, lambda index: truth.get(index, {}), tmp_path, progress=False)
    video = Clip(tmp_path / 'overlay.mp4')
    assert len(list(video)) == 5
    assert video.rate == pytest.approx(10)
    assert report.iou == {'cup': [0.5]}
    sheet = cv2.imread(str(tmp_path / 'frames.png'))
    assert sheet.shape == (2 * 60 + 4, 3 * 80 + 2 * 4, 3)


def test_a_contact_sheet_keeps_order_and_shrinks_large_pictures():
    sheet = contact_sheet([np.full((800, 1280, 3), value, np.uint8) for value in (10, 20, 30, 40)])
    assert sheet.shape == (2 * 400 + 4, 3 * 640 + 2 * 4, 3)
    places = [(10, 10), (10, 700), (10, 1400), (500, 10), (500, 700), (500, 1400), (402, 10)]
    assert [int(sheet[place][0]) for place in places] == [10, 20, 30, 40, 255, 255, 255]


# --- processes


@pytest.fixture
def stubborn(tmp_path, monkeypatch):
    """A module that ignores every polite request to end, and has a child of its own."""
    (tmp_path / 'stubborn.py').write_text(
        textwrap.dedent("""
            import signal, subprocess, sys, time
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
            print(other.pid, flush=True)
            time.sleep(600)
        """)
    )
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{os.environ.get("PYTHONPATH", "")}')
    monkeypatch.setattr(child_process, 'GRACE_S', 0.3)
    return 'stubborn'


def is_alive(number):
    try:
        state = Path(f'/proc/{number}/stat').read_text().rpartition(')')[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != 'Z'


def wait_until(done, seconds=20.0):
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.05)
    return done()


def test_a_child_that_will_not_end_is_made_to_with_its_own_children(tmp_path, stubborn):
    log = tmp_path / 'log'
    with Child(stubborn, [], log) as child:
        assert wait_until(lambda: log.read_text().endswith('\n'))
        grandchild = int(log.read_text())
        assert is_alive(grandchild)
        child.check_running()
    assert child.exit_code == -signal.SIGKILL
    assert wait_until(lambda: not is_alive(grandchild))


@pytest.mark.skipif(sys.platform != 'linux', reason='the kernel of Linux only ends children with their parent')
def test_a_child_ends_even_where_its_parent_is_killed(tmp_path, monkeypatch):
    (tmp_path / 'sleeper.py').write_text('import time; time.sleep(600)')
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{ROOT}:{os.environ.get("PYTHONPATH", "")}')
    script = (
        'import pathlib, time; from xmem_ros.child_process import Child; '
        f'c = Child("sleeper", [], pathlib.Path({str(tmp_path / "log")!r})); '
        'print(c._process.pid, flush=True); time.sleep(600)'
    )
    with subprocess.Popen([sys.executable, '-c', script], stdout=subprocess.PIPE, text=True) as parent:
        number = int(parent.stdout.readline())
        assert is_alive(number)
        parent.kill()
    assert wait_until(lambda: not is_alive(number))


def test_a_child_that_has_ended_is_told_with_the_end_of_its_log(tmp_path, monkeypatch):
    (tmp_path / 'failing.py').write_text('raise SystemExit("no camera at all")')
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{os.environ.get("PYTHONPATH", "")}')
    with Child('failing', [], tmp_path / 'log') as child:
        assert wait_until(lambda: child.exit_code is not None)
        with pytest.raises(ProcessError, match=r'failing ended with exit code 1(.|\n)*no camera at all'):
            child.check_running()


# --- the camera, as a process over real DDS


@pytest.fixture
def listener():
    rclpy = pytest.importorskip('rclpy', reason='ROS 2 is not on the path')
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image

    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('listener', context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    images = []
    qos = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
    node.create_subscription(Image, '/film', images.append, qos)

    def spin_until(done, seconds=60.0):
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.05)
        return done()

    yield node, images, spin_until
    executor.shutdown()
    node.destroy_node()
    context.shutdown()


def camera(tmp_path, *options):
    require('rclpy')
    arguments = ['--topic', '/film', '--frame-id', 'lens', '--wait-for-subscriber', '--log', str(tmp_path / 'stamps')]
    return Child('xmem_ros.demo.camera', [*arguments, *options], tmp_path / 'camera.log')


def stamp_of(image):
    return image.header.stamp.sec * 1_000_000_000 + image.header.stamp.nanosec


def test_the_camera_publishes_every_frame_at_the_clips_rate(tmp_path, listener):
    _, images, spin_until = listener
    with camera(tmp_path, '--frames', '20', '--rate', '25') as process:
        assert spin_until(lambda: process.exit_code is not None)
        spin_until(lambda: len(images) == 20, 5)
    assert process.exit_code == 0, process.tail()
    scene = RenderedScene(frames=20)
    assert len(images) == 20
    for image, (frame, _) in zip(images, scene, strict=True):
        assert (image.encoding, image.height, image.width, image.step) == ('rgb8', 240, 432, 1296)
        assert image.header.frame_id == 'lens'
        assert bytes(image.data) == frame.tobytes()
    stamps = np.array([stamp_of(image) for image in images])
    assert (np.diff(stamps) > 0).all()
    assert (stamps[-1] - stamps[0]) / 1e9 == pytest.approx(19 / 25, abs=0.25)
    logged = [line.split() for line in (tmp_path / 'stamps').read_text().splitlines()]
    assert logged == [[str(stamp), str(index)] for index, stamp in enumerate(stamps)]


def test_the_camera_holds_its_first_frame_until_it_is_told_to_start(tmp_path, listener):
    from std_srvs.srv import Trigger

    node, images, spin_until = listener
    with camera(tmp_path, '--frames', '5', '--hold') as process:
        assert spin_until(lambda: len(images) >= 4)
        first, _ = RenderedScene(frames=1)[0]
        assert {bytes(image.data) for image in images} == {first.tobytes()}
        future = node.create_client(Trigger, '/scene_camera/start').call_async(Trigger.Request())
        assert spin_until(future.done)
        assert future.result().success
        assert spin_until(lambda: process.exit_code is not None)
    logged = [int(line.split()[1]) for line in (tmp_path / 'stamps').read_text().splitlines()]
    held = logged.index(0)
    assert held >= 4
    assert logged == [-1] * held + [0, 1, 2, 3, 4]


def test_the_camera_plays_a_folder_in_a_loop_until_it_is_ended(tmp_path, listener):
    _, images, spin_until = listener
    save_sequence(tmp_path, frames=3)
    with camera(tmp_path, '--clip', str(tmp_path / 'JPEGImages' / 'toys'), '--loop', '--rate', '50') as process:
        assert spin_until(lambda: len(images) >= 8)
        assert process.exit_code is None
    assert process.exit_code == 0, process.tail()
    assert bytes(images[0].data) == bytes(images[3].data) == bytes(images[6].data)
    assert bytes(images[0].data) != bytes(images[1].data)


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (['--clip', 'no/such/clip'], 'no/such/clip: no such video file or folder'),
        (['--objects', '9'], 'it must be 1 to 6'),
        (['--rate', '-1'], 'rate -1.0'),
    ],
)
def test_a_camera_that_cannot_play_says_why(tmp_path, options, text):
    with camera(tmp_path, *options) as process:
        assert wait_until(lambda: process.exit_code is not None, 60)
    assert process.exit_code == 2
    assert text in process.log.read_text()
    assert 'Traceback' not in process.log.read_text()


# --- the whole, with the real node


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """The bundled weights, or, while there are none, weights that at least run."""
    if BUNDLED.is_file():
        return str(BUNDLED)
    return str(save_untrained_weights(tmp_path_factory.mktemp('weights') / 'untrained.safetensors'))


def start_demo(*options):
    require('rclpy')
    command = [sys.executable, '-m', 'xmem_ros.demo.run', '--quiet', *map(str, options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def demonstrate(*options, seconds=400):
    with start_demo(*options) as demo:
        try:
            output, error = demo.communicate(timeout=seconds)
        finally:
            demo.terminate()
    return subprocess.CompletedProcess(demo.args, demo.returncode, output, error)


def row(output, name):
    return next(line[len(name) :].split() for line in output.splitlines() if line.startswith(name))


def test_the_demonstration_follows_the_rendered_scene_through_the_real_node(tmp_path, weights):
    done = demonstrate(
        '--frames', 45, '--rate', 5, '--out', tmp_path, '--device', 'cpu', '--size', 160, '--weights', weights
    )
    assert done.returncode == 0, done.stderr + done.stdout
    tracked, dropped = int(row(done.stdout, 'tracked')[0]), int(row(done.stdout, 'dropped')[0])
    assert int(row(done.stdout, 'frames in')[0]) == 45
    assert tracked + dropped == 45
    assert tracked >= 5
    assert row(done.stdout, 'ids stable')[:4] == ['yes:', '1,', '2,', '3']
    assert float(row(done.stdout, 'image to publish')[0]) > 0
    assert len(list(Clip(tmp_path / 'overlay.mp4'))) == tracked
    assert cv2.imread(str(tmp_path / 'frames.png')).shape == (2 * 240 + 4, 3 * 432 + 8, 3)
    scores = [float(row(done.stdout, f'IoU of {name}')[0]) for name in ('ball', 'mug', 'box')]
    assert all(0 <= score <= 1 and not math.isnan(score) for score in scores)
    if BUNDLED.is_file():
        assert min(scores) > 0.5


@pytest.mark.skipif(not (FOOTAGE / 'davis-val').is_dir(), reason='needs ../shared/data/davis-val, which is not here')
def test_the_demonstration_follows_a_box_in_real_footage(tmp_path, weights):
    clip = FOOTAGE / 'davis-val' / 'JPEGImages' / 'blackswan'
    options = ['--frames', 12, '--rate', 3, '--out', tmp_path, '--device', 'cpu', '--size', 160, '--weights', weights]
    done = demonstrate('--video', clip, '--box', '145,90,350,270', *options)
    assert done.returncode == 0, done.stderr + done.stdout
    assert row(done.stdout, 'ids stable')[:2] == ['yes:', '1']
    assert 'IoU' not in done.stdout
    assert (tmp_path / 'overlay.mp4').stat().st_size > 0


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.skipif(not Path('/proc/self/task').is_dir(), reason='finds children by /proc')
def test_a_demonstration_that_is_interrupted_leaves_no_process_behind(tmp_path, weights, number):
    options = ['--rate', 2, '--out', tmp_path, '--device', 'cpu', '--size', 64, '--weights', weights]
    with start_demo(*options) as demo:
        while not demo.stdout.readline().startswith('seeded'):
            assert demo.poll() is None, demo.stderr.read()
        children = [int(n) for n in Path(f'/proc/{demo.pid}/task/{demo.pid}/children').read_text().split()]
        assert len(children) == 2
        demo.send_signal(number)
        _, error = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert error.endswith('demo: interrupted\n')
    assert not any(is_alive(child) for child in children)
    assert not (tmp_path / 'overlay.mp4').exists()


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (['--video', 'no/such.mp4', '--box', '0,0,9,9'], 'no/such.mp4: no such video file or folder of frames'),
        (['--video', 'CLIP'], 'BOX=x,y,width,height'),
        (['--video', 'CLIP', '--box', '0,0,9,9', '--mask', 'MASK'], 'either a box'),
        (['--video', 'CLIP', '--box', '0,0,97,9'], 'not inside the frame of 96×64 px'),
        (['--box', '0,0,9,9'], 'give a box or a mask only with a video'),
        (['--video', 'CLIP', '--mask', 'LARGE'], 'large.png: the mask is 99×64 px, the first frame 96×64'),
        (['--weights', 'nonsense', '--frames', '3'], 'nonsense'),
    ],
)
def test_what_is_wrong_with_a_demonstration_is_said_without_a_traceback(tmp_path, options, text):
    save_sequence(tmp_path, frames=3)
    save_mask(tmp_path / 'large.png', np.ones((64, 99), np.uint8))
    files = {
        'CLIP': tmp_path / 'JPEGImages' / 'toys',
        'MASK': tmp_path / 'Annotations' / 'toys' / '00000.png',
        'LARGE': tmp_path / 'large.png',
    }
    done = demonstrate(*(files.get(option, option) for option in options), '--out', tmp_path / 'out', seconds=100)
    assert done.returncode == 2
    assert text in done.stderr
    assert 'demo: error: ' in done.stderr
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'out' / 'overlay.mp4').exists()
