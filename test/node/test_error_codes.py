# SPDX-License-Identifier: MIT
"""Error codes of every service of the real node, and the client's errors for them."""

import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg')

import node_harness as robots
from builtin_interfaces.msg import Time
from node_harness import box_seed, mask_seed, points_seed, wait_until
from sensor_msgs.msg import Image

from xmem_ros import errors
from xmem_ros.client.calls import checked
from xmem_ros.demo.scene import RenderedScene
from xmem_ros.errors import ErrorCode
from xmem_ros.srv import PreviewSeed, RemoveObjects

SCENE = RenderedScene((120, 216), objects=3)
CUP = SCENE[0][1] == 1
HISTORY, HELD, MOST = 4, 1, 3
ODD = Time(sec=5)  # of no image


def calls(robot):
    """Valid calls of every service."""
    return {
        'seed': lambda: robot.seed(mask_seed(CUP)),
        'preview': lambda: robot.call(PreviewSeed, '~/preview_seed', PreviewSeed.Request(seed=mask_seed(CUP))),
        'remove': lambda: robot.remove(1),
        'reset': robot.reset,
        'hold': robot.hold,
        'save': lambda: robot.save_memory('good'),
        'load': lambda: robot.load_memory('good'),
    }


def codes(answers):
    return {what: ErrorCode(answer.error_code) for what, answer in answers.items()}


@pytest.fixture(scope='module')
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp('memory')
    settings = {'size': 120, 'max_objects': MOST, 'history': HISTORY, 'held': HELD, 'memory_folder': str(folder)}
    with robots.running(settings) as robot:
        robot.folder = folder
        robot.labels = robot.listen(Image, '~/labels')
        robot.wait_matched('~/labels')
        yield robot


@pytest.fixture
def robot(running):
    """A node with the object 1 and the memory file `good`."""
    running.first = running.show_and_wait(SCENE[0][0], running.labels).header.stamp
    assert running.reset().success
    assert running.seed(mask_seed(CUP)).success
    assert running.save_memory('good').success
    return running


def test_every_service_of_an_inactive_node_names_the_transition_to_request(robot):
    assert robot.change_state('deactivate')
    try:
        answers = {what: call() for what, call in calls(robot).items()}
    finally:
        assert robot.change_state('activate')
        robot.wait_camera()
    assert codes(answers) == dict.fromkeys(answers, ErrorCode.NOT_ACTIVE)
    for answer in answers.values():
        assert not answer.success
        assert 'take the transition activate' in answer.message
        with pytest.raises(errors.NodeInactiveError, match='take the transition activate'):
            checked(answer)


def test_every_service_returns_the_code_none_on_success(robot):
    order = ('seed', 'preview', 'hold', 'save', 'load', 'remove', 'reset')
    answers = {what: calls(robot)[what]() for what in order}
    assert codes(answers) == dict.fromkeys(order, ErrorCode.NONE)
    assert all(answer.success for answer in answers.values())
    assert list(answers['reset'].removed) == [2]


def test_each_kind_of_unusable_seed_has_its_code(robot):
    unreadable = mask_seed(CUP)
    unreadable.mask.encoding = 'unheard_of'
    refused = {
        'no seed': ((), {}, ErrorCode.INVALID_REQUEST),
        'an empty mask': ((mask_seed(np.zeros_like(CUP)),), {}, ErrorCode.INVALID_SEED),
        'an encoding': ((unreadable,), {}, ErrorCode.INVALID_SEED),
        'a box outside': ((box_seed(500, 500, 9, 9),), {}, ErrorCode.INVALID_SEED),
        'a point outside': ((points_seed([(999, 9)], [1]),), {}, ErrorCode.INVALID_SEED),
        'an id': ((mask_seed(CUP, object_id=9),), {}, ErrorCode.UNKNOWN_ID),
        'objects': ((mask_seed(CUP),) * MOST, {}, ErrorCode.TOO_MANY_OBJECTS),
        'seeds': ((mask_seed(CUP),) * (MOST + 1), {}, ErrorCode.TOO_MANY_OBJECTS),
        'a stamp': ((mask_seed(CUP),), {'stamp': ODD}, ErrorCode.STAMP_NOT_HELD),
        'a negative stamp': ((mask_seed(CUP),), {'stamp': Time(sec=-5)}, ErrorCode.STAMP_NOT_HELD),
    }
    answers = {what: robot.seed(*seeds, **options) for what, (seeds, options, _) in refused.items()}
    assert codes(answers) == {what: code for what, (*_, code) in refused.items()}
    assert not any(answer.success or answer.ids for answer in answers.values())
    assert list(robot.reset().removed) == [1]


def test_a_seed_for_an_unreadable_image_has_the_code_of_the_image(robot):
    sent = robot.show(SCENE[1][0], encoding='rgb8', data=[1, 2, 3])  # cut off after three bytes
    answer = wait_until(
        lambda: (
            (answer := robot.seed(mask_seed(CUP), stamp=sent.header.stamp)).error_code != ErrorCode.STAMP_NOT_HELD
            and answer
        ),
        'the image to be there',
    )
    assert (answer.success, answer.error_code) == (False, ErrorCode.INVALID_IMAGE)


def test_removal_distinguishes_an_unknown_id_from_an_invalid_request(robot):
    answers = {
        'unknown': robot.remove(1, 9),
        'none': robot.remove(),
        'both': robot.call(RemoveObjects, '~/remove', RemoveObjects.Request(ids=[1], all=True)),
    }
    assert codes(answers) == {
        'unknown': ErrorCode.UNKNOWN_ID,
        'none': ErrorCode.INVALID_REQUEST,
        'both': ErrorCode.INVALID_REQUEST,
    }
    assert list(robot.remove(1).removed) == [1]


def test_hold_returns_the_stamp_the_duration_and_the_available_span(robot):
    answer = robot.hold(robot.first)
    assert answer.success
    assert answer.stamp == robot.first
    assert (answer.duration.sec, answer.duration.nanosec) == (600, 0)
    last = [robot.show_and_wait(SCENE[index][0], robot.labels).header.stamp for index in range(1, HISTORY + 2)]
    assert robot.seed(mask_seed(CUP), stamp=robot.first).success
    gone = robot.hold(last[0])
    assert (gone.success, gone.error_code) == (False, ErrorCode.STAMP_NOT_HELD)
    assert (gone.oldest, gone.newest) == (last[-HISTORY], last[-1])
    assert robot.hold().stamp == last[-1]  # makes room
    assert robot.seed(mask_seed(CUP), stamp=robot.first).error_code == ErrorCode.STAMP_NOT_HELD


def test_each_fault_of_a_memory_file_has_its_code(robot):
    whole = (robot.folder / 'good.safetensors').read_bytes()
    (robot.folder / 'cut.safetensors').write_bytes(whole[: len(whole) // 2])
    (robot.folder / 'full.safetensors').mkdir(exist_ok=True)
    answers = {
        'save: a path': robot.save_memory('../good'),
        'load: a path': robot.load_memory('../good'),
        'load: nothing': robot.load_memory('nothing'),
        'load: cut off': robot.load_memory('cut'),
        'save: onto a folder': robot.save_memory('full'),
    }
    assert codes(answers) == {
        'save: a path': ErrorCode.INVALID_FILE_NAME,
        'load: a path': ErrorCode.INVALID_FILE_NAME,
        'load: nothing': ErrorCode.NO_SUCH_FILE,
        'load: cut off': ErrorCode.DAMAGED_FILE,
        'save: onto a folder': ErrorCode.FILE_NOT_WRITTEN,
    }
    assert list(robot.reset().removed) == [1]


def test_settings_can_forbid_hold_and_make_a_memory_file_incompatible(robot):
    settings = {'size': 120, 'max_objects': 1, 'held': 0, 'memory_folder': str(robot.folder)}
    robot.show_and_wait(SCENE[1][0], robot.labels)
    assert robot.seed(mask_seed(SCENE[1][1] == 2)).success
    assert robot.save_memory('two').success
    with robots.running(settings) as other:
        early = {'seed': other.seed(mask_seed(CUP)), 'hold': other.hold()}
        assert codes(early) == {'seed': ErrorCode.NO_IMAGE, 'hold': ErrorCode.FORBIDDEN_BY_PARAMETER}
        assert 'the parameter held is 0' in early['hold'].message
        assert other.load_memory('two').error_code == ErrorCode.INCOMPATIBLE_FILE
        other.show(SCENE[0][0], encoding='rgb8')
        wait_until(lambda: other.seed(mask_seed(CUP)).success, 'the image to be there')


def test_an_internal_error_has_the_code_internal():
    from types import SimpleNamespace

    from xmem_ros.node.rclpy_workarounds import mark_failed
    from xmem_ros.srv import HoldImage

    response = HoldImage.Response(success=True)
    mark_failed(SimpleNamespace(), response, 'RuntimeError: odd')
    assert (response.success, response.error_code, response.message) == (False, 1, 'RuntimeError: odd')
    with pytest.raises(errors.NodeError, match='odd'):
        checked(response)


# --- the table


def test_every_code_but_none_maps_to_an_error_with_that_code():
    for code in set(ErrorCode) - {ErrorCode.NONE}:
        error = errors.error_of(code, 'said')
        assert (errors.error_code(error), str(error)) == (code, 'said')


def test_an_error_without_a_code_has_the_code_of_its_nearest_base():
    class OddSeedError(errors.StampNotHeldError):
        pass

    assert errors.error_code(OddSeedError('odd')) == ErrorCode.STAMP_NOT_HELD
    assert errors.error_code(errors.XMemError('odd')) == ErrorCode.INTERNAL
    assert errors.error_code(ZeroDivisionError()) == ErrorCode.INTERNAL


def test_an_unknown_code_gives_an_error_that_names_it():
    error = errors.error_of(999, 'said')
    assert type(error) is errors.NodeError
    assert str(error) == 'said (unknown error code 999)'
