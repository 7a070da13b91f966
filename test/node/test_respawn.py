# SPDX-License-Identifier: MIT
"""A node that is killed and started again continues with its objects."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from needs import require

require('rclpy', 'xmem_ros.msg')

import node_harness as robots
from node_harness import NodeProcess, iou, mask_seed, pixels_of, wait_until
from sensor_msgs.msg import Image

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.msg import Seed, TrackedObjectArray, TrackingEvent

SCENE = RenderedScene((120, 216), objects=3)


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        'size': 120,
        'memory_folder': str(folder),
        'load_on_start': 'robot',
        'save_period': 0.5,
        'diagnostics_period': 0.2,
        **more,
    }


def test_a_killed_node_continues_with_its_objects(tmp_path: Path) -> None:
    file = tmp_path / 'robot.safetensors'
    with robots.running(settings(tmp_path)) as robot:
        robot.process.says(f'there is no {file} yet; starting without objects')
        labels = robot.listen(Image, '~/labels')
        robot.wait_matched('~/labels')
        robot.show_and_wait(SCENE[0][0], labels)
        assert robot.seed(mask_seed(SCENE[0][1], 'thing', kind=Seed.LABELS)).success
        for number in range(1, 6):
            robot.show_and_wait(SCENE[number][0], labels)
        assert robot.remove(1).success
        wait_until(file.exists, 'the memory file')
        first = file.stat().st_mtime_ns
        wait_until(lambda: file.stat().st_mtime_ns > first, 'a newer memory file')
        wait_until(lambda: not list(tmp_path.glob('*.part')), 'the end of a write')
        robot.process.process.send_signal(signal.SIGKILL)
        robot.process.exit_code()
    with robots.running(settings(tmp_path)) as robot:
        labels = robot.listen(Image, '~/labels')
        objects = robot.listen(TrackedObjectArray, '~/objects')
        robot.process.says(f'2 objects loaded from {file}: ids 2, 3')
        events = robot.listen(TrackingEvent, '~/events', robots.LATCHED)
        wait_until(lambda: [event.kind for event in events] == [TrackingEvent.START, TrackingEvent.LOAD], 'the load')
        assert list(events[1].ids) == [2, 3]
        robot.wait_matched('~/objects')
        robot.wait_matched('~/labels')
        shown = pixels_of(robot.show_and_wait(SCENE[6][0], labels))
        wait_until(lambda: objects and objects[-1].header == labels[-1].header, 'the objects')
        assert [(item.id, item.name) for item in objects[-1].objects] == [(2, 'thing_2'), (3, 'thing_3')]
        for item in objects[-1].objects:
            assert iou(shown == item.label, SCENE[6][1] == item.id) > 0.6
        # A cleanup forgets the objects, although the file has them.
        assert robot.change_state('deactivate')
        assert robot.change_state('cleanup')
        assert robot.change_state('configure')
        assert robot.change_state('activate')
        robot.wait_camera()
        sent = robot.show_and_wait(SCENE[6][0], labels)
        wait_until(lambda: objects[-1].header == sent.header, 'the objects')
        assert objects[-1].objects == []


def test_the_last_state_is_saved_when_tracking_stops(tmp_path: Path) -> None:
    file = tmp_path / 'robot.safetensors'
    with robots.running(settings(tmp_path, save_period=3600.0)) as robot:
        labels = robot.listen(Image, '~/labels')
        robot.wait_matched('~/labels')
        robot.show_and_wait(SCENE[0][0], labels)
        assert robot.seed(mask_seed(SCENE[0][1] == 1)).success
        wait_until(file.exists, 'the memory file')
        first = file.stat().st_mtime_ns
        robot.show_and_wait(SCENE[1][0], labels)
        assert robot.change_state('deactivate')
        wait_until(lambda: file.stat().st_mtime_ns > first, 'a newer memory file')


def test_a_damaged_memory_file_is_reported_and_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / 'robot.safetensors'
    file.write_bytes(b'not a memory file')
    with robots.running(settings(tmp_path)) as robot:
        values = robot.diagnostics(lambda values: values['code'] == 'memory_not_loaded', 'the damaged file')
        assert str(file) in values['message']
        labels = robot.listen(Image, '~/labels')
        robot.wait_matched('~/labels')
        robot.show_and_wait(SCENE[0][0], labels)
        assert robot.seed(mask_seed(SCENE[0][1] == 1)).success
        robot.show_and_wait(SCENE[1][0], labels)
        assert robot.change_state('deactivate')
    assert file.read_bytes() == b'not a memory file'


def test_without_a_period_the_file_is_only_read(tmp_path: Path) -> None:
    with robots.running(settings(tmp_path, save_period=0.0)) as robot:
        labels = robot.listen(Image, '~/labels')
        robot.wait_matched('~/labels')
        robot.show_and_wait(SCENE[0][0], labels)
        assert robot.seed(mask_seed(SCENE[0][1] == 1)).success
        assert robot.change_state('deactivate')
    assert not list(tmp_path.iterdir())


def test_two_nodes_of_a_process_do_not_keep_the_same_file(tmp_path: Path) -> None:
    process = NodeProcess(settings(tmp_path), ['-r', '__ns:=/pair'], options=['--cameras', 'one', 'two'])
    try:
        process.says('active: waiting for images on /pair/one/image', robots.START_S)
        process.says(f'load_on_start: {tmp_path}/robot.safetensors is kept by /pair/one/xmem already')
    finally:
        process.close()
