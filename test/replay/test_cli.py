# SPDX-License-Identifier: MIT
"""`xmem-ros replay` as a process, with the real node."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg', 'rosbags.rosbag2')

import bag_files
import node_harness as robots
from bag_files import TOPIC, image_items, image_message, stamp_of, write_bag
from scene_files import save_frame, save_mask

from xmem_ros.cli.main import main
from xmem_ros.media import read_mask
from xmem_ros.recordings.recording import open_recording
from xmem_ros.recordings.seed_plan import recorded_seeds

FRAMES = bag_files.scene(6, objects=2)
TRUTH = FRAMES[0][1]
END_S = 120.0  # [s] time limit of a process, on a busy machine
COMMAND = (sys.executable, '-m', 'xmem_ros.cli.main', 'replay')


@pytest.fixture(scope='module')
def robot():
    # the recordings are shorter than the default threshold, and some are replayed twice
    settings = {'device': 'cpu', 'size': 64, 'diagnostics_period': 0.2, 'time_jump_threshold': 0.0}
    with robots.running(settings) as robot:
        robot.node.destroy_publisher(robot.images)
        yield robot


@pytest.fixture
def bag(tmp_path):
    items = image_items(FRAMES)
    items[3] = (TOPIC, items[3][1], dataclasses.replace(image_message(3, FRAMES[3][0]), encoding='rainbow'))
    tide = ('moon_msgs/msg/Tide', b'\0\1\0\0\3\0\0\0')
    old = ('/robot/xmem/labels', stamp_of(9), image_message(5, FRAMES[5][0]))
    return write_bag(tmp_path / 'drive', [*items, ('/tide', stamp_of(9), tide), old])


@pytest.fixture
def mask(tmp_path) -> Path:
    save_mask(tmp_path / 'mask.png', TRUTH)
    return tmp_path / 'mask.png'


def run(robot, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments), '--node', robot.prefix]
    return subprocess.run(command, capture_output=True, text=True, timeout=END_S, check=False)


def test_masks_bag_and_video_are_written_and_skipped_images_and_topics_are_named(robot, bag, mask, tmp_path):
    out = tmp_path / 'out'
    formats = [part for name in ('png', 'bag', 'overlay') for part in ('--format', name)]
    done = run(robot, bag, '--seed', mask, '--out', out, *formats)
    assert done.returncode == 0, done.stderr
    assert f'5 of 6 images tracked on {robot.namespace}/image; from image to masks' in done.stdout
    assert 'warning: image 3 was left out: dropped by the node' in done.stderr
    assert 'warning: /tide is not published: moon_msgs/msg/Tide is not installed' in done.stderr
    assert 'not published: /robot/xmem/labels: a recorded output of the tracker (it lies below /robot' in done.stdout
    written = {path.name for path in out.iterdir()}
    pictures = {f'{index:06d}.png' for index in (0, 1, 2, 4, 5)}
    assert written == {*pictures, 'frames.csv', 'objects.csv', 'bag', 'overlay.mp4'}
    assert (read_mask(out / '000000.png') == TRUTH).all()  # the seed itself
    with open_recording(out / 'bag', f'{robot.prefix}/labels') as recording:
        frames = list(recording.frames())
        (seeds,) = recorded_seeds(recording)
    assert [frame.stamp_ns for frame in frames] == [stamp_of(index) for index in (0, 1, 2, 4, 5)]
    last = frames[-1].message
    assert (last.data.reshape(last.height, last.width) == read_mask(out / '000005.png')).all()
    assert (seeds.stamp_ns, seeds.ids) == (stamp_of(0), (1, 2))
    assert not list(tmp_path.glob('.out*'))


def test_an_unusable_destination_is_refused_before_the_node_is_reset(robot, bag, mask, tmp_path):
    assert run(robot, bag, '--seed', mask).returncode == 0
    done = run(robot, bag, '--no-seeds', '--out', tmp_path)
    assert done.returncode == 2
    assert 'already exists and is not an empty folder' in done.stderr
    done = run(robot, bag, '--no-seeds', '--keep', '--out', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    assert read_mask(tmp_path / 'out' / '000000.png').any()


def test_a_folder_of_frames_is_replayed_with_seeds_from_a_file(robot, tmp_path):
    for index, (frame, labels) in enumerate(FRAMES):
        save_frame(tmp_path / 'frames' / f'view_{index}.jpg', frame)
        save_mask(tmp_path / f'{index}.png', np.where(labels == 1, 255, 0).astype(np.uint8))
    seeds = tmp_path / 'seeds.yaml'
    entries = ['{frame: 0, objects: [{name: toy, mask: 0.png}]}', '{frame: 3, objects: [{correct: toy, mask: 3.png}]}']
    seeds.write_text(''.join(f'- {entry}\n' for entry in entries))
    done = run(robot, tmp_path / 'frames', '--seed', seeds, '--out', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    assert (read_mask(tmp_path / 'out' / 'view_3.png') == (FRAMES[3][1] == 1)).all()
    assert (read_mask(tmp_path / 'out' / 'view_5.png') == 1).any()


def test_after_an_error_nothing_is_written(robot, bag, tmp_path):
    save_mask(tmp_path / 'small.png', np.full((5, 7), 255, np.uint8))
    done = run(robot, bag, '--seed', tmp_path / 'small.png', '--out', tmp_path / 'out')
    assert done.returncode == 2
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f'xmem-ros replay: error: {tmp_path / "small.png"}: image 0: seeds[0]')
    assert 'Traceback' not in done.stderr
    assert not list(tmp_path.glob('*out*'))


@pytest.mark.parametrize(
    ('arguments', 'text'),
    [
        (['{bag}'], 'the bag has no recorded seeds'),
        (['{bag}', '--no-seeds', '--box', 'a=1,2,3,4'], '--no-seeds excludes --seed'),
        (['{bag}', '--no-seeds', '--format', 'png'], '--format requires --out'),
        (['{bag}', '--no-seeds', '--remap', 'image:=/x'], 'give FROM:=TO'),
        (['{bag}', '--no-seeds', '--image-topic', '/other'], 'no topic /other'),
        (['{bag}', '--no-seeds', '--node', 'a b'], 'is not a valid node name'),
        (['{bag}', '--no-seeds', '--node', '/nobody', '--timeout', '1'], 'no node /nobody was found within 1 s'),
        (['{bag}/nowhere', '--no-seeds'], 'no such'),
    ],
)
def test_invalid_commands_are_refused_in_one_line(bag, capsys, arguments, text):
    assert main(['replay', *(argument.format(bag=bag) for argument in arguments)]) == 2
    said = capsys.readouterr().err
    assert said.startswith('xmem-ros replay: error: ')
    assert text in said


def test_the_command_line_and_its_help_work_without_ros() -> None:
    code = (
        'import sys; sys.modules["rclpy"] = None\n'
        'from xmem_ros.cli.main import make_parser\n'
        'print(make_parser().parse_args(["replay", "x"]).node)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=END_S, check=False)
    assert done.stdout == '/xmem\n', done.stderr
