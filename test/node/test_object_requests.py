# SPDX-License-Identifier: MIT
"""The action ~/wait_visible and the service ~/get_mask, over real DDS."""

from __future__ import annotations

import time

import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg')

import node_harness as robots
import rgbd_scene as scene
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration
from node_harness import mask_seed, pixels_of, wait_until
from rclpy.action import ActionClient
from sensor_msgs.msg import Image
from space_harness import DepthCamera, points

from xmem_ros.action import WaitVisible
from xmem_ros.errors import ErrorCode
from xmem_ros.srv import GetMask

BLANK = np.full(scene.SIZE, 130, np.uint8)


class Waiter:
    """Client of the action."""

    def __init__(self, robot) -> None:
        self._client = ActionClient(robot.node, WaitVisible, f'{robot.prefix}/wait_visible')
        assert self._client.wait_for_server(30.0)

    def start(self, **goal):
        """Send a goal; return its handle and the list of its feedback."""
        heard = []
        sent = self._client.send_goal_async(WaitVisible.Goal(**goal), feedback_callback=heard.append)
        wait_until(sent.done, 'the acceptance')
        return sent.result(), heard

    def end(self, handle):
        """Wait for the end; return status and result."""
        future = handle.get_result_async()
        wait_until(future.done, 'the result')
        return future.result().status, future.result().result


@pytest.fixture(scope='module')
def running():
    with robots.running({'depth.enabled': True, 'max_objects': 3}) as robot:
        robot.labels = robot.listen(Image, '~/labels')
        robot.wait_matched('~/labels')
        robot.depth = DepthCamera(robot)
        robot.waiter = Waiter(robot)
        yield robot


@pytest.fixture
def robot(running):
    """The node with ball and box in view, after one tracked frame."""
    assert running.reset().success
    running.depth.show(0, running.labels)
    truth = scene.view(0).labels
    assert running.seed(mask_seed(truth == scene.BALL, 'ball'), mask_seed(truth == scene.BOX, 'box')).success
    running.depth.show(1, running.labels)
    return running


def hide(robot) -> None:
    for _ in range(3):
        robot.show_and_wait(BLANK, robot.labels, encoding='mono8')


def get_mask(robot, **request):
    return robot.call(GetMask, '~/get_mask', GetMask.Request(**request))


def test_the_mask_of_an_object_comes_with_its_image_points_and_box(robot):
    answer = get_mask(robot, name='box')
    assert answer.success, answer.message
    view, inside = scene.view(1), pixels_of(answer.mask)
    assert answer.header == robot.labels[-1].header == answer.mask.header
    assert np.array_equal(inside > 0, pixels_of(robot.labels[-1]) == answer.object.label)
    x, y, width, height = (getattr(answer.object.box, side) for side in ('x_offset', 'y_offset', 'width', 'height'))
    crop = np.frombuffer(answer.image.data, np.uint8).reshape(answer.image.height, answer.image.width, 3)
    assert np.array_equal(crop[..., 0], view.image[y : y + height, x : x + width])
    assert answer.has_depth
    assert (view.distance(points(answer.cloud), scene.BOX) < 0.02).mean() >= 0.98
    assert answer.cloud.header.frame_id == answer.box.header.frame_id == 'camera_optical'
    centre, size = answer.box.pose.position, answer.box_size
    assert centre.y == pytest.approx(scene.BOX_CENTRE[1], abs=0.01)
    assert (size.x, size.y) == pytest.approx(tuple(scene.BOX_SIZE[:2]), abs=0.05)


def test_requests_that_cannot_be_answered_say_why(robot):
    answers = {
        'neither': get_mask(robot),
        'both': get_mask(robot, id=1, name='ball'),
        'an id': get_mask(robot, id=9),
        'a name': get_mask(robot, name='bal'),
        'a frame': get_mask(robot, id=1, target_frame='map'),
    }
    assert {what: ErrorCode(answer.error_code) for what, answer in answers.items()} == {
        'neither': ErrorCode.INVALID_REQUEST,
        'both': ErrorCode.INVALID_REQUEST,
        'an id': ErrorCode.UNKNOWN_ID,
        'a name': ErrorCode.UNKNOWN_ID,
        'a frame': ErrorCode.INVALID_IMAGE,
    }
    assert answers['a name'].message == "no object has the name 'bal'; tracked: 1 ball, 2 box"
    hide(robot)
    robot.depth.show(None, robot.labels)
    hidden = get_mask(robot, id=1)
    assert (hidden.success, hidden.error_code) == (False, ErrorCode.NOT_VISIBLE)


def test_a_visible_object_ends_the_goal_at_once(robot):
    handle, _ = robot.waiter.start(name='ball')
    status, result = robot.waiter.end(handle)
    assert (status, result.success, result.error_code) == (GoalStatus.STATUS_SUCCEEDED, True, ErrorCode.NONE)
    assert (result.object.id, result.object.name, result.header) == (1, 'ball', robot.labels[-1].header)


def test_a_goal_waits_with_feedback_until_the_object_is_seeded_and_tracked(robot):
    assert robot.remove(2).success
    handle, feedback = robot.waiter.start(name='box', timeout=Duration(sec=60))
    robot.depth.show(2, robot.labels)
    wait_until(lambda: feedback, 'feedback')
    assert not feedback[-1].feedback.known
    assert robot.seed(mask_seed(scene.view(2).labels == scene.BOX, 'box')).success
    robot.depth.show(3, robot.labels)
    status, result = robot.waiter.end(handle)
    assert (status, result.object.name, result.object.id) == (GoalStatus.STATUS_SUCCEEDED, 'box', 3)


def test_a_hidden_object_is_waited_for_until_the_time_out(robot):
    hide(robot)
    begun = time.monotonic()
    handle, feedback = robot.waiter.start(id=1, timeout=Duration(sec=1))
    robot.show_and_wait(BLANK, robot.labels, encoding='mono8')
    status, result = robot.waiter.end(handle)
    assert time.monotonic() - begun >= 1
    assert (status, result.success, result.error_code) == (GoalStatus.STATUS_ABORTED, False, ErrorCode.NOT_VISIBLE)
    assert result.message.startswith('the time-out was reached: object 1 is OCCLUDED')
    assert feedback[-1].feedback.known
    assert feedback[-1].feedback.object.state == feedback[-1].feedback.object.OCCLUDED


def test_a_goal_can_be_cancelled(robot):
    handle, _ = robot.waiter.start(name='cup')
    cancelled = handle.cancel_goal_async()
    wait_until(cancelled.done, 'the cancellation')
    status, result = robot.waiter.end(handle)
    assert (status, result.success) == (GoalStatus.STATUS_CANCELED, False)


@pytest.mark.parametrize(
    ('goal', 'code'),
    [
        ({}, ErrorCode.INVALID_REQUEST),
        ({'id': 1, 'name': 'ball'}, ErrorCode.INVALID_REQUEST),
        ({'id': 1, 'min_score': 2.0}, ErrorCode.INVALID_REQUEST),
        ({'id': 1, 'min_score': float('nan')}, ErrorCode.INVALID_REQUEST),
        ({'id': 9}, ErrorCode.UNKNOWN_ID),
    ],
)
def test_an_impossible_goal_is_aborted_with_the_reason(robot, goal, code):
    status, result = robot.waiter.end(robot.waiter.start(**goal)[0])
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, code)
    assert result.message


def test_a_removed_object_ends_its_goals(robot):
    hide(robot)
    handle, _ = robot.waiter.start(id=1)
    assert robot.remove(1).success
    status, result = robot.waiter.end(handle)
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.UNKNOWN_ID)


def test_deactivation_ends_the_goals_and_an_inactive_node_refuses_them(robot):
    handle, _ = robot.waiter.start(name='cup')
    assert robot.change_state('deactivate')
    try:
        for goal in (handle, robot.waiter.start(name='ball')[0]):
            status, result = robot.waiter.end(goal)
            assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.NOT_ACTIVE)
        assert get_mask(robot, id=1).error_code == ErrorCode.NOT_ACTIVE
    finally:
        assert robot.change_state('activate')
        robot.wait_camera()
