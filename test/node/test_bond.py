# SPDX-License-Identifier: MIT
"""Bond with a lifecycle manager. Needs bondpy, which is not on PyPI."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from needs import require

require('rclpy', 'xmem_ros.msg', 'bondpy.bondpy')

import node_harness as robots
from bond.msg import Status
from bondpy.bondpy import Bond
from node_harness import Robot, wait_until


@pytest.fixture
def robot():
    with robots.running({'size': 64, 'autostart': False}) as robot:
        yield robot


def managed(robot: Robot) -> tuple[Bond, list[str]]:
    """Activate the node as nav2's manager does; return its end of the bond, and events."""
    events: list[str] = []
    assert robot.change_state('configure')
    assert robot.change_state('activate')
    topic = f'{robot.namespace}/bond'
    bond: Any = Bond(
        robot.node, topic, 'xmem', on_broken=lambda: events.append('broken'), on_formed=lambda: events.append('formed')
    )
    bond.heartbeat_period, bond.heartbeat_timeout = 0.1, 4.0
    bond.start()
    wait_until(lambda: 'formed' in events, 'the bond')
    robot.process.says('bond formed')
    return bond, events


def test_a_deactivation_breaks_the_bond_and_an_activation_forms_a_new_one(robot: Robot) -> None:
    _, events = managed(robot)
    assert robot.change_state('deactivate')
    wait_until(lambda: 'broken' in events, 'the broken bond', 3)
    assert robot.change_state('cleanup')
    managed(robot)
    assert robot.process.interrupt() == 0
    assert 'Traceback' not in robot.process.output


def test_a_manager_notices_a_node_that_hangs(robot: Robot) -> None:
    bond, events = managed(robot)
    heard = robot.listen(Status, f'{robot.namespace}/bond')
    # bondpy watches the heartbeat only from the second one on.
    wait_until(lambda: len([one for one in heard if one.instance_id != bond.instance_id]) > 2, 'heartbeats')
    os.kill(robot.process.process.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: 'broken' in events, 'the broken bond', 10)
    finally:
        os.kill(robot.process.process.pid, signal.SIGCONT)
