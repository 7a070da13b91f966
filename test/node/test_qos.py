# SPDX-License-Identifier: MIT
"""QoS of the image subscription, from parameters and the user's overrides."""

from __future__ import annotations

import re

import pytest

rclpy = pytest.importorskip('rclpy', reason='rclpy is not installed: source a ROS 2 or run make build')

from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy

from xmem_ros.node.node import XMemNode

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


@pytest.fixture
def make_node():
    rclpy.init()
    nodes = []

    def make(**overrides: object) -> XMemNode:
        given = [Parameter(name, value=value) for name, value in {'device': 'cpu', **overrides}.items()]
        nodes.append(XMemNode(parameter_overrides=given))
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()
        node.destroy_node()
    rclpy.shutdown()


def profile_of(node: XMemNode):
    return node._images._subscription.qos_profile


def test_the_qos_follows_the_queue_parameter_at_each_activation(make_node) -> None:
    node = make_node()
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    assert profile_of(node).depth == 1
    assert node.trigger_deactivate() == SUCCESS
    assert node.trigger_cleanup() == SUCCESS
    changes = [Parameter('queue', value='all'), Parameter('queue_depth', value=50)]
    assert node.set_parameters_atomically(changes).successful
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    assert profile_of(node).depth == 50
    assert profile_of(node).reliability == ReliabilityPolicy.RELIABLE


def test_qos_overrides_of_the_user_apply(make_node) -> None:
    node = make_node(
        **{
            'qos_overrides./image.subscription.reliability': 'best_effort',
            'qos_overrides./image.subscription.depth': 3,
        }
    )
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    assert profile_of(node).reliability == ReliabilityPolicy.BEST_EFFORT
    assert profile_of(node).depth == 3


@pytest.mark.parametrize(
    ('policy', 'value', 'text'),
    [
        ('reliability', 'relible', "is 'relible'; allowed: .*best_effort"),
        ('depth', 'abc', 'allowed: a whole number'),
        ('durabilty', 'volatile', "unknown policy 'durabilty'"),
    ],
)
def test_an_invalid_qos_override_is_named(make_node, policy: str, value: str, text: str) -> None:
    node = make_node(**{f'qos_overrides./image.subscription.{policy}': value})
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == FAILURE
    assert re.search(text, node.fault)
