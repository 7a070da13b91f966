# SPDX-License-Identifier: MIT
"""Health in /diagnostics: levels and stable codes that a supervisor can act on."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg')

import node_harness as robots
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from node_harness import Robot, mask_seed, wait_until
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.errors import ErrorCode
from xmem_ros.node.health import Code, Level

FRAME, TRUTH = RenderedScene((120, 216), objects=2)[0]
EMPTY = np.full_like(FRAME, 127)
LEVELS = {Level.OK: DiagnosticStatus.OK, Level.WARN: DiagnosticStatus.WARN, Level.ERROR: DiagnosticStatus.ERROR}


@pytest.fixture
def robot() -> Iterator[Robot]:
    parameters = {'size': 120, 'autostart': False, 'diagnostics_period': 0.2, 'no_image_warning_after': 1.0}
    with robots.running(parameters) as robot:
        yield robot


def healthy(robot: Robot, code: Code) -> dict[str, str]:
    """Wait for a code; return the values of its status, whose level is checked."""
    values = robot.diagnostics(lambda values: values['code'] == code.value, code.value)
    heard = robot.listen(DiagnosticArray, '/diagnostics', QoSProfile(depth=10))
    statuses = [message.status[0] for message in heard if message.status[0].name.startswith(robot.prefix[1:])]
    levels = {s.level for s in statuses if any((v.key, v.value) == ('code', code.value) for v in s.values)}
    assert levels == {LEVELS[code.level]}
    return values


def activate(robot: Robot) -> list[Image]:
    assert robot.change_state('configure')
    assert robot.change_state('activate')
    labels = robot.listen(Image, '~/labels')
    robot.wait_camera()
    robot.wait_matched('~/labels')
    return labels


def test_a_supervisor_is_told_what_the_node_is_doing_and_lacks(robot: Robot) -> None:
    assert healthy(robot, Code.UNCONFIGURED)['lifecycle state'] == 'unconfigured'
    assert robot.set_parameter('weights', 'gigantic').successful
    assert not robot.change_state('configure')
    assert "unknown weights 'gigantic'" in healthy(robot, Code.TRANSITION_FAILED)['message']
    assert robot.set_parameter('weights', 'compact').successful
    assert robot.set_parameter('lost_after', 0.0).successful

    labels = activate(robot)
    assert 'no image on' in healthy(robot, Code.NO_IMAGES)['message']
    robot.show_and_wait(FRAME, labels)
    healthy(robot, Code.OK)
    assert robot.seed(mask_seed(TRUTH == 1), mask_seed(TRUTH == 2)).success
    robot.show_and_wait(FRAME, labels)
    assert 'tracking' in healthy(robot, Code.OK)['message']
    for _ in range(3):
        robot.show_and_wait(EMPTY, labels)
    assert healthy(robot, Code.ALL_OBJECTS_LOST)['message'] == 'all 2 objects are lost'

    robot.show(FRAME, step=3)
    healthy(robot, Code.UNREADABLE_IMAGES)
    assert robot.change_state('deactivate')
    healthy(robot, Code.INACTIVE)


def test_a_node_that_tracks_too_few_of_its_images_says_so(robot: Robot) -> None:
    labels = activate(robot)
    assert robot.set_parameter('min_rate', 1000.0).successful
    robot.show_and_wait(FRAME, labels)
    stop = threading.Event()

    def flood() -> None:
        while not stop.wait(0.006):  # faster than it tracks, and slowly enough for the middleware
            robot.show(FRAME)

    sender = threading.Thread(target=flood)
    sender.start()
    try:
        values = healthy(robot, Code.TOO_SLOW)  # after RATE_WINDOW_S
    finally:
        stop.set()
        sender.join()
    assert 'min_rate is 1000: lower size, or use a faster device' in values['message']
    assert int(values['dropped']) > 0


def test_a_finalized_node_gives_no_advice_that_cannot_be_followed(robot: Robot) -> None:
    request = ChangeState.Request()
    request.transition.id = Transition.TRANSITION_UNCONFIGURED_SHUTDOWN
    assert robot.call(ChangeState, '~/change_state', request).success
    assert robot.state() == 'finalized'
    healthy(robot, Code.FINALIZED)
    refused = robot.reset()
    assert refused.error_code == ErrorCode.NOT_ACTIVE
    assert 'finalized and cannot be used again: end its process' in refused.message
    assert 'ros2 lifecycle' not in refused.message


def test_a_lifecycle_manager_is_told_of_a_node_that_starts_itself() -> None:
    with robots.running({'size': 64}) as robot:
        wait_until(lambda: robot.state() == 'active', 'the active node')
        assert not robot.change_state('configure')  # as nav2's manager does first
        robot.process.says('the transition configure was refused: the node is active. It starts itself')
        robot.process.says('autostart: false')
        assert robot.state() == 'active'
