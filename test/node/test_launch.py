# SPDX-License-Identifier: MIT
"""The launch file, loaded and started. Needs a ROS 2 installation: launch is not on PyPI."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from launch_runs import LAUNCHER, START_S
from needs import require

# Not launch itself: from the checkout's root, its folder of that name is importable as a namespace.
require('launch.actions', 'launch_ros.actions')

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILE = ROOT / 'launch' / 'track.launch.py'
ARGUMENTS = [
    'image',
    'image_transport',
    'stream',
    'depth_image',
    'camera_info',
    'seed_detections',
    'cameras',
    'name',
    'namespace',
    'params_file',
    'weights',
    'device',
    'load_on_start',
    'save_period',
    'respawn',
    'use_sim_time',
    'autostart',
    'manager',
    'web',
    'web_host',
    'web_port',
    'web_token_file',
    'log_level',
]


def test_every_argument_is_declared_with_a_description_and_a_default() -> None:
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    declared = get_launch_description_from_python_launch_file(str(LAUNCH_FILE)).get_launch_arguments()
    assert [argument.name for argument in declared] == ARGUMENTS
    for argument in declared:
        assert argument.default_value is not None
        assert argument.description
        assert argument.description != 'no description given'


def test_two_cameras_take_all_arguments_of_one() -> None:
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    two = LAUNCH_FILE.with_name('two_cameras.launch.py')
    included = get_launch_description_from_python_launch_file(str(two)).get_launch_arguments()
    names = {argument.name for argument in included}
    of_camera = {'image', 'stream', 'depth_image', 'camera_info', 'seed_detections'}
    assert names >= set(ARGUMENTS) - {'cameras'} - of_camera
    assert names >= {f'rear_{name}' for name in of_camera - {'image'}} | {'front', 'rear'}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / 'launch.log'


@pytest.fixture
def launched(tmp_path: Path, log: Path) -> Iterator[subprocess.Popen[str]]:
    """The running launch file, with the node on the scene camera's topic."""
    process = subprocess.Popen(
        [sys.executable, '-c', LAUNCHER, str(LAUNCH_FILE), 'image:=/scene/image', 'namespace:=robot', 'device:=cpu'],
        stdout=log.open('w'),
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {'ROS_LOG_DIR': str(tmp_path)},
        start_new_session=True,
    )
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    print(log.read_text())


def test_the_launched_node_tracks_the_remapped_camera_and_ends_on_interrupt(
    launched: subprocess.Popen[str], log: Path
) -> None:
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from rclpy.utilities import get_rmw_implementation_identifier

    from xmem_ros.msg import TrackedObjectArray

    camera = subprocess.Popen(
        [sys.executable, '-m', 'xmem_ros.demo.camera', '--topic', '/scene/image', '--loop'],
        stdout=subprocess.DEVNULL,
    )
    rclpy.init()
    try:
        node = rclpy.create_node('listener')
        received: list[TrackedObjectArray] = []
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        node.create_subscription(TrackedObjectArray, '/robot/xmem/objects', received.append, qos)
        deadline = time.monotonic() + START_S
        while not received and time.monotonic() < deadline and launched.poll() is None and camera.poll() is None:
            rclpy.spin_once(node, timeout_sec=0.2)
        assert camera.poll() is None, 'the camera died'
        assert launched.poll() is None, 'launch ended'
        assert received, f'nothing came within {START_S:.0f} s ({get_rmw_implementation_identifier()})'
        assert received[0].header.stamp.sec > 0
        assert received[0].objects == []
        node.destroy_node()
    finally:
        rclpy.shutdown()
        camera.terminate()
        camera.wait(10)
    os.killpg(launched.pid, signal.SIGINT)  # to the group, as a terminal does: launch relies on that
    assert launched.wait(20) == 0
    assert 'process has finished cleanly' in log.read_text()
    assert 'escalating' not in log.read_text()


def test_two_cameras_are_tracked_and_start_again_after_a_crash(tmp_path: Path, log: Path) -> None:
    two = LAUNCH_FILE.with_name('two_cameras.launch.py')
    arguments = [
        'front:=/a/image',
        'rear:=/b/image',
        'name:=tracker',
        'namespace:=robot',
        'device:=cpu',
        'image_transport:=compressed',
        'respawn:=true',
    ]
    process = subprocess.Popen(
        [sys.executable, '-c', LAUNCHER, str(two), *arguments],
        stdout=log.open('w'),
        stderr=subprocess.STDOUT,
        env=os.environ | {'ROS_LOG_DIR': str(tmp_path)},
        start_new_session=True,
    )
    try:
        for number in (1, 2):
            for topic in ('/a/image/compressed', '/b/image/compressed'):
                deadline = time.monotonic() + START_S
                while log.read_text().count(f'active: waiting for images on {topic}') < number:
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.1)
            assert 'robot.front.tracker' in log.read_text()
            if number == 1:
                pids = re.findall(r'process started with pid \[(\d+)\]', log.read_text())
                os.kill(int(pids[-1]), signal.SIGKILL)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_the_lifecycle_manager_waits_while_the_node_configures(tmp_path: Path, log: Path) -> None:
    # In place of nav2's, a program that prints its parameters.
    package = 'nav2_lifecycle_manager'
    index = tmp_path / 'share' / 'ament_index' / 'resource_index' / 'packages'
    program = tmp_path / 'lib' / package / 'lifecycle_manager'
    for folder in (index, program.parent):
        folder.mkdir(parents=True)
    (index / package).touch()
    program.write_text('#!/bin/sh\nfor part; do if [ -f "$part" ]; then cat "$part"; fi; done; echo all printed\n')
    program.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ['AMENT_PREFIX_PATH']])
    process = subprocess.Popen(
        [sys.executable, '-c', LAUNCHER, str(LAUNCH_FILE), 'manager:=true', 'name:=tracker'],
        stdout=log.open('w'),
        stderr=subprocess.STDOUT,
        env=os.environ | {'ROS_LOG_DIR': str(tmp_path), 'AMENT_PREFIX_PATH': path},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + START_S
        while 'all printed' not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        assert 'service_timeout: 600.0' in log.read_text()
        assert '- tracker' in log.read_text()
        os.killpg(process.pid, signal.SIGINT)
        process.wait(20)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
