# SPDX-License-Identifier: MIT
"""A node that takes long to configure: it answers, reports its progress, and ends at once."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path

import pytest
from needs import require

require('rclpy', 'onnxruntime', 'onnxscript')

import node_harness as robots
from node_harness import Robot, wait_until

from xmem_ros.errors import ErrorCode

END_S = 8.0  # under a second on an idle machine; a busy one may stall for several
SLOW = {'engine': 'onnxruntime', 'device': 'cpu', 'prepare': '480x640', 'diagnostics_period': 0.2}


@pytest.fixture(params=[True, False], ids=['by itself', 'by a client'])
def robot(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A node that exports ONNX models while it is configured, which takes ten seconds and more."""
    monkeypatch.setenv('XMEM_ROS_ONNX', str(tmp_path))
    process = robots.QuickNodeProcess({**SLOW, 'autostart': request.param}, ['-r', '__ns:=/slow'])
    robot = Robot('/slow')
    robot.process = process
    try:
        if not request.param:
            robot.request_transition('configure')
        yield robot
    finally:
        with contextlib.suppress(AssertionError):
            process.close()
        robot.close()


def exporting(values: dict[str, str]) -> bool:
    return values['lifecycle state'] == 'configuring' and 'exporting' in values.get('configuring', '')


def test_while_it_configures_a_node_answers_and_says_how_far_it_is(robot: Robot) -> None:
    found = robot.diagnostics(exporting, 'the export', robots.START_S)
    assert found['code'] == 'configuring'
    assert 'configuring: exporting ONNX models for images of' in found['message']
    assert robot.state() == 'configuring'
    refused = robot.reset()
    assert refused.error_code == ErrorCode.NOT_ACTIVE
    assert 'still configuring (exporting ONNX models' in refused.message
    result = robot.set_parameter('size', 120)
    assert not result.successful
    assert 'wait for its end' in result.reason
    assert robot.set_parameter('min_score', 0.5).successful
    assert not robot.change_state('configure')
    robot.process.says('the transition configure was refused: the node is configuring')


@pytest.mark.parametrize('sign', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_node_that_configures(robot: Robot, sign: signal.Signals) -> None:
    robot.diagnostics(exporting, 'the export', robots.START_S)
    begun = time.monotonic()
    assert robot.process.interrupt(sign) == 0
    assert time.monotonic() - begun < END_S
    assert 'Traceback' not in robot.process.output
    # A node that leaves without a goodbye is seen until its lease ends, 20 s later.
    name = ('xmem', robot.namespace)
    wait_until(lambda: name not in robot.node.get_node_names_and_namespaces(), 'the node to be gone', 10)
