# SPDX-License-Identifier: MIT
"""replay.launch.py with a stand-in for `ros2 bag`, which is not on PyPI. Needs launch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from needs import require

# `import launch` alone would succeed at the root of the checkout, where a folder has this name.
require('launch.actions', 'launch_ros.actions')

from launch_runs import LAUNCHER, START_S
from node_harness import wait_until

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILE = ROOT / 'launch' / 'replay.launch.py'
ARGUMENTS = [
    *('bag', 'image', 'rate', 'start_offset', 'loop', 'on_time_jump', 'lockstep', 'seed', 'record', 'rviz', 'keep'),
    *('use_sim_time', 'namespace', 'params_file', 'weights', 'device', 'queue', 'log_level'),
]
TOPICS = {
    '/camera/image_raw': 'sensor_msgs/msg/Image',
    '/robot/xmem/objects': 'xmem_ros/msg/TrackedObjectArray',
    '/robot/xmem/labels': 'sensor_msgs/msg/Image',
    '/robot/xmem/object_1/mask': 'sensor_msgs/msg/Image',
    '/diagnostics': 'diagnostic_msgs/msg/DiagnosticArray',
    '/clock': 'rosgraph_msgs/msg/Clock',
    '/rosout': 'rcl_interfaces/msg/Log',
    '/parameter_events': 'rcl_interfaces/msg/ParameterEvent',
}
OF_THE_RUN = ('/clock', '/rosout', '/parameter_events')  # not played

# Logs its arguments. As player it publishes one image and ends when that is tracked, unless --loop
# is given; as recorder it runs until it is interrupted.
STAND_IN = """
#!{python}
import json, os, signal, sys, time
arguments = sys.argv[1:]
with open(os.environ['STAND_IN_LOG'], 'a') as log:
    log.write(json.dumps(arguments) + chr(10))
if arguments[:2] == ['bag', 'record'] or '--loop' in arguments:
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    signal.pause()
import rclpy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from xmem_ros.msg import TrackedObjectArray
rclpy.init(args=[])
node = rclpy.create_node('player')
images = node.create_publisher(Image, '/camera/image_raw', 10)
heard = []
node.create_subscription(TrackedObjectArray, '/robot/xmem/objects', heard.append, 10)
image = Image(height=24, width=32, encoding='rgb8', step=96, data=bytes(24 * 96))
image.header.stamp.sec = 1
while not heard:
    images.publish(image)
    rclpy.spin_once(node, timeout_sec=0.2)
rclpy.shutdown()
"""


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    """Write the files of a bag that the launch file reads."""
    folder = tmp_path / 'drive'
    folder.mkdir()
    topics = [
        f'    - {{topic_metadata: {{name: {name}, type: {kind}, serialization_format: cdr}}, message_count: 1}}'
        for name, kind in TOPICS.items()
    ]
    lines = ['rosbag2_bagfile_information:', '  version: 5', '  topics_with_message_count:', *topics]
    (folder / 'metadata.yaml').write_text('\n'.join(lines) + '\n')
    return folder


class Launched:
    """A started launch file, its output, and the arguments of `ros2 bag`."""

    def __init__(self, folder: Path, arguments: list[str], *, installed: Collection[str] = ('ros2bag',)) -> None:
        self._output, self._told = folder / 'launch.log', folder / 'told.jsonl'
        programs, prefix = folder / 'bin', folder / 'prefix'
        programs.mkdir(exist_ok=True)
        stand_in = programs / 'ros2'
        stand_in.write_text(textwrap.dedent(STAND_IN).lstrip().format(python=sys.executable))
        stand_in.chmod(0o755)
        packages = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages'
        packages.mkdir(parents=True, exist_ok=True)
        for name in installed:
            (packages / name).touch()
        environment = {
            'PATH': f'{programs}{os.pathsep}{os.environ["PATH"]}',
            'AMENT_PREFIX_PATH': f'{os.environ["AMENT_PREFIX_PATH"]}{os.pathsep}{prefix}',
            'ROS_LOG_DIR': str(folder),
            'STAND_IN_LOG': str(self._told),
        }
        self.process = subprocess.Popen(
            [sys.executable, '-c', LAUNCHER, str(LAUNCH_FILE), *arguments],
            stdout=self._output.open('w'),
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            start_new_session=True,
        )

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def told(self) -> list[list[str]]:
        return [json.loads(line) for line in self._told.read_text().splitlines()] if self._told.exists() else []

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        print(self.output)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[SimpleNamespace]:
    started: list[Launched] = []

    def start(*arguments: str, **options: Collection[str]) -> Launched:
        started.append(Launched(tmp_path, list(arguments), **options))
        return started[-1]

    yield SimpleNamespace(start=start)
    for item in started:
        item.close()


def test_every_argument_is_declared_with_a_description_and_all_but_the_bag_with_a_default() -> None:
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    declared = get_launch_description_from_python_launch_file(str(LAUNCH_FILE)).get_launch_arguments()
    assert [argument.name for argument in declared] == ARGUMENTS
    for argument in declared:
        assert (argument.default_value is None) == (argument.name == 'bag')
        assert argument.description
        assert argument.description != 'no description given'


def test_the_bag_starts_when_the_node_is_active_and_everything_ends_after_it(launch, bag, tmp_path) -> None:
    record = tmp_path / 'out'
    run = launch.start(
        f'bag:={bag}', 'namespace:=robot', 'device:=cpu', 'rate:=0.5', 'start_offset:=2', f'record:={record}'
    )
    assert run.process.wait(START_S) == 0, run.output
    recorded, played = sorted(run.told, key=lambda told: told[1] == 'play')
    assert played[:3] == ['bag', 'play', str(bag)]
    assert played[3:] == [
        *('--disable-keyboard-controls', '--rate', '0.5', '--start-offset', '2', '--clock', '100', '--topics'),
        *(topic for topic in TOPICS if topic not in OF_THE_RUN),
        '--remap',
        '/robot/xmem/objects:=/recorded/robot/xmem/objects',
        '/robot/xmem/labels:=/recorded/robot/xmem/labels',
        '/robot/xmem/object_1/mask:=/recorded/robot/xmem/object_1/mask',
        '/diagnostics:=/recorded/diagnostics',
    ]
    assert recorded == [
        *('bag', 'record', '--output', str(record), '--regex', '^(/robot/xmem/.*|/camera/image_raw)$'),
        '--use-sim-time',
    ]
    active = run.output.index('active: waiting for images on /camera/image_raw')
    assert active < run.output.index('[bag_play-')
    assert 'the bag ended' in run.output
    assert 'escalating' not in run.output


def test_with_loop_the_bag_repeats_until_it_is_interrupted(launch, bag) -> None:
    run = launch.start(f'bag:={bag}', 'device:=cpu', 'loop:=true', 'use_sim_time:=false', 'on_time_jump:=reset')
    wait_until(lambda: run.told or run.process.poll() is not None, 'the player', START_S)
    assert run.process.poll() is None, run.output
    assert '--loop' in run.told[0]
    assert '--clock' not in run.told[0]
    assert '/clock' in run.told[0]  # the recorded clock, as the player publishes none
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.process.wait(30) == 0
    assert 'escalating' not in run.output


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['bag:=nowhere'], 'bag:=nowhere does not exist'),
        (['bag:={bag}', 'image:=/depth'], 'one of: /camera/image_raw'),
        (['bag:={bag}', 'rate:=fast'], 'rate:=fast is out of range: give a number of at least 0.001'),
        (['bag:={bag}', 'seed:=mask.png'], 'add lockstep:=true'),
        (['bag:={bag}', 'start_offset:=-1'], 'start_offset:=-1 is out of range: give a number of at least 0'),
        (['bag:={bag}', 'lockstep:=true', 'start_offset:=1'], 'start_offset is not allowed with lockstep:=true'),
        (['bag:={bag}', 'lockstep:=true', 'loop:=true'], 'loop is not allowed with lockstep:=true'),
        (['bag:={bag}', 'record:={bag}'], 'exists: give the name of a new folder'),
    ],
)
def test_invalid_arguments_are_refused_before_anything_starts(launch, bag, arguments, expected) -> None:
    run = launch.start(*(argument.format(bag=bag) for argument in arguments))
    assert run.process.wait(START_S) == 1
    assert expected in run.output
    assert not run.told
    assert 'xmem_node' not in run.output


def test_a_lockstep_replay_does_not_need_ros2_bag(launch, tmp_path) -> None:
    """The real node and `xmem-ros replay`, with a bag of six images and a mask."""
    require('rosbags.rosbag2')
    import bag_files
    from scene_files import save_mask

    frames = bag_files.scene(6, objects=2)
    bag = bag_files.write_bag(tmp_path / 'real', bag_files.image_items(frames))
    save_mask(tmp_path / 'mask.png', frames[0][1])
    arguments = [f'bag:={bag}', f'seed:={tmp_path / "mask.png"}', 'lockstep:=true', 'namespace:=robot', 'device:=cpu']
    arguments += ['rate:=1', 'start_offset:=0']
    run = launch.start(*arguments, installed=())
    assert run.process.wait(START_S) == 0, run.output
    assert f'6 of 6 images tracked on {bag_files.TOPIC}' in run.output
    assert 'the bag ended' in run.output


def test_a_rate_limits_the_speed_of_a_lockstep_replay(launch, tmp_path) -> None:
    """Six images at 1/30 s and rate 0.05: the last mask comes 5 · 20 / 30 s after the first."""
    require('rosbags.rosbag2')
    import bag_files
    from scene_files import save_mask

    frames = bag_files.scene(6)
    bag = bag_files.write_bag(tmp_path / 'real', bag_files.image_items(frames))
    save_mask(tmp_path / 'mask.png', frames[0][1])
    run = launch.start(f'bag:={bag}', f'seed:={tmp_path / "mask.png"}', 'lockstep:=true', 'device:=cpu', 'rate:=0.05')
    wait_until(lambda: 'active: waiting for images' in run.output, 'the node', START_S)
    begun = time.monotonic()
    wait_until(lambda: '6 of 6 images tracked' in run.output, 'the replay', START_S)
    assert time.monotonic() - begun > 5 * 20 / 30


def test_a_missing_ros2_bag_is_reported_with_the_package_to_install(launch, bag) -> None:
    run = launch.start(f'bag:={bag}', installed=())
    assert run.process.wait(START_S) == 1
    assert 'ros2 bag is not installed' in run.output


@pytest.mark.parametrize('name', ['drive_0.mcap', 'drive_0.mcap.zstd'])
def test_a_missing_mcap_plugin_is_reported_with_the_package_to_install(launch, bag, name) -> None:
    (bag / name).touch()
    for given in (bag, bag / name):
        run = launch.start(f'bag:={given}')
        assert run.process.wait(START_S) == 1
        assert f'{given} is an MCAP bag' in run.output
        assert 'rosbag2-storage-mcap, or use lockstep:=true' in run.output
        assert not run.told


def test_mcap_bags_are_played_if_the_plugin_is_installed(launch, bag) -> None:
    (bag / 'drive_0.mcap').touch()
    run = launch.start(f'bag:={bag}', 'device:=cpu', 'namespace:=robot', installed=('ros2bag', 'rosbag2_storage_mcap'))
    assert run.process.wait(START_S) == 0
    assert run.told[0][:3] == ['bag', 'play', str(bag)]
