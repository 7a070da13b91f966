# SPDX-License-Identifier: MIT
"""The node's memory: its size is logged at configuration, and memory files survive a restart."""

import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg')

import node_harness as robots
from node_harness import iou, mask_seed, pixels_of, wait_until
from sensor_msgs.msg import Image

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.errors import ErrorCode, MemoryFileError, ParameterError
from xmem_ros.msg import Seed, TrackedObjectArray
from xmem_ros.stream.memory_files import memory_file, memory_folder

SCENE = RenderedScene((120, 216), objects=3)


def settings(folder, **more):
    return {'size': 120, 'max_objects': 4, 'memory_folder': str(folder), **more}


def test_a_restarted_node_continues_with_the_same_ids(tmp_path):
    with robots.running(settings(tmp_path)) as robot:
        labels = robot.listen(Image, '~/labels')
        robot.wait_matched('~/labels')
        robot.show_and_wait(SCENE[0][0], labels)
        assert robot.seed(mask_seed(SCENE[0][1], 'thing', kind=Seed.LABELS)).success
        for number in range(1, 6):
            robot.show_and_wait(SCENE[number][0], labels)
        assert robot.remove(1).success
        answer = robot.save_memory('shift')
        assert answer.success, answer.message
        path = tmp_path / 'shift.safetensors'
        assert answer.message == f'2 objects saved to {path}'
        assert (answer.path, answer.size, list(answer.ids)) == (str(path), path.stat().st_size, [2, 3])
        assert '4:3' in robot.process.output
        assert 'MB for images of 16:9' in robot.process.output
    with robots.running(settings(tmp_path)) as robot:
        labels = robot.listen(Image, '~/labels')
        objects = robot.listen(TrackedObjectArray, '~/objects')
        robot.wait_matched('~/objects')
        robot.wait_matched('~/labels')
        answer = robot.load_memory('shift.safetensors')
        assert answer.success, answer.message
        assert answer.message.endswith('ids 2, 3')
        assert (answer.path, list(answer.ids), list(answer.labels)) == (str(path), [2, 3], [2, 3])
        robot.wait_matched('~/object_3/box')
        shown = pixels_of(robot.show_and_wait(SCENE[6][0], labels))
        wait_until(lambda: objects and objects[-1].header == labels[-1].header, 'the objects')
        assert [(item.id, item.name) for item in objects[-1].objects] == [(2, 'thing_2'), (3, 'thing_3')]
        for item in objects[-1].objects:
            assert iou(shown == item.label, SCENE[6][1] == item.id) > 0.6
        assert list(robot.seed(mask_seed(SCENE[6][1] == 1)).ids) == [4]


@pytest.fixture(scope='module')
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp('memory')
    with robots.running(settings(folder)) as robot:
        robot.folder = folder
        robot.labels = robot.listen(Image, '~/labels')
        robot.wait_matched('~/labels')
        yield robot


@pytest.fixture
def robot(running):
    assert running.reset().success
    running.show_and_wait(SCENE[0][0], running.labels)
    assert running.seed(mask_seed(SCENE[0][1] == 1, 'cup')).success
    return running


def followed(robot):
    """Return whether the object is still tracked."""
    shown = pixels_of(robot.show_and_wait(SCENE[1][0], robot.labels))
    return set(np.unique(shown)) == {0, 1} and iou(shown == 1, SCENE[1][1] == 1) > 0.6


@pytest.mark.parametrize('name', ['', '../up', '/etc/passwd', 'a/b', '.hidden', 'x' * 200, 'a\nb', '..'])
def test_file_names_that_leave_the_folder_are_refused(robot, name):
    for call in (robot.save_memory, robot.load_memory):
        answer = call(name)
        assert (answer.success, answer.error_code) == (False, ErrorCode.INVALID_FILE_NAME)
        assert 'cannot be used: give a plain file name' in answer.message
    assert followed(robot)


def test_a_missing_file_is_named(robot):
    answer = robot.load_memory('nothing')
    assert (answer.success, answer.error_code) == (False, ErrorCode.NO_SUCH_FILE)
    assert f'{robot.folder}/nothing.safetensors: no such file' in answer.message
    assert followed(robot)


def test_a_truncated_file_is_refused_and_the_objects_stay(robot):
    assert robot.save_memory('whole').success
    data = (robot.folder / 'whole.safetensors').read_bytes()
    (robot.folder / 'half.safetensors').write_bytes(data[: len(data) // 2])
    answer = robot.load_memory('half')
    assert (answer.success, answer.error_code) == (False, ErrorCode.DAMAGED_FILE)
    assert 'it may be cut off' in answer.message
    assert followed(robot)


def test_a_link_out_of_the_folder_is_refused(robot, tmp_path):
    (tmp_path / 'secret.safetensors').write_bytes(b'x')
    link = robot.folder / 'link.safetensors'
    if not link.is_symlink():
        link.symlink_to(tmp_path / 'secret.safetensors')
    for call in (robot.save_memory, robot.load_memory):
        answer = call('link')
        assert (answer.success, answer.error_code) == (False, ErrorCode.INVALID_FILE_NAME)
        assert 'is a link' in answer.message
    assert (tmp_path / 'secret.safetensors').read_bytes() == b'x'


def test_memory_stays_within_the_budget(tmp_path):
    with robots.running(settings(tmp_path, **{'memory.budget_mb': 9.0})) as robot:
        labels = robot.listen(Image, '~/labels')
        robot.wait_matched('~/labels')
        robot.show_and_wait(SCENE[0][0], labels)
        assert robot.seed(mask_seed(SCENE[0][1] == 1)).success
        values = robot.diagnostics(lambda values: values.get('memory (bytes)', '0') != '0', 'memory')
        assert 8e6 < int(values['memory (bytes)']) <= 9e6


def test_a_budget_that_is_too_small_ends_the_node_with_the_minimum(tmp_path):
    node = robots.QuickNodeProcess(settings(tmp_path, **{'memory.budget_mb': 0.5}))
    try:
        assert node.exit_code() == 1
        assert 'memory.budget_mb is 0.5' in node.output
        assert 'MB at least' in node.output
    finally:
        node.close()


def test_the_memory_folder_is_the_parameters_or_in_ros_home(tmp_path, monkeypatch):
    monkeypatch.delenv('ROS_HOME', raising=False)
    monkeypatch.setenv('HOME', str(tmp_path))
    assert memory_folder('') == tmp_path / '.ros' / 'xmem_ros'
    monkeypatch.setenv('ROS_HOME', str(tmp_path / 'ros'))
    assert memory_folder('') == tmp_path / 'ros' / 'xmem_ros'
    assert memory_file('~/mine', 'a.b-c_1') == tmp_path / 'mine' / 'a.b-c_1.safetensors'
    (tmp_path / 'file').write_text('')
    with pytest.raises(ParameterError, match='not a folder'):
        memory_folder(str(tmp_path / 'file'))
    with pytest.raises(ParameterError, match='absolute path'):
        memory_folder('relative')
    with pytest.raises(MemoryFileError):
        memory_file(str(tmp_path), '..')
    (tmp_path / 'a.safetensors').write_bytes(b'x')
    (tmp_path / 'b.safetensors').symlink_to('a.safetensors')
    with pytest.raises(MemoryFileError, match='is a link'):
        memory_file(str(tmp_path), 'b')
    for folder in ('/' + 'x' * 5000, '~nobody-of-that-name/x', '/a\0b'):
        with pytest.raises(ParameterError, match='memory_folder is'):
            memory_folder(folder)
