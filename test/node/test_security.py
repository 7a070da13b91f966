# SPDX-License-Identifier: MIT
"""config/sros2/policy.xml allows every topic, service and action that the node has."""

from __future__ import annotations

import importlib.util
from fnmatch import fnmatchcase
from pathlib import Path
from xml.etree import ElementTree

import pytest
from needs import require

require('rclpy', 'xmem_ros.msg')

import node_harness as robots
from node_harness import wait_until
from rclpy.action.graph import get_action_server_names_and_types_by_node

POLICY = ElementTree.parse(Path(__file__).parents[2] / 'config' / 'sros2' / 'policy.xml')
PARAMETERS = {
    'depth.enabled': True,
    'depth.publish_tf': importlib.util.find_spec('tf2_msgs') is not None,
    'depth.target_frame': 'map' if importlib.util.find_spec('tf2_ros') is not None else '',
    'seed_detections.enabled': importlib.util.find_spec('vision_msgs') is not None,
    'use_sim_time': True,
}


def allowed(kind: str, qualifier: str, namespace: str) -> list[str]:
    """Return the expressions of the node's profile, as if the node were in a namespace."""
    profile = POLICY.find(".//enclave[@path='/xmem']/profiles/profile")
    texts = [item.text for rule in profile.findall(kind) if rule.get(qualifier) == 'ALLOW' for item in rule]
    node = profile.get('node')
    return [
        text.replace('~', f'{namespace}/{node}')
        if text.startswith('~')
        else text
        if text.startswith('/')
        else f'{namespace}/{text}'
        for text in texts
    ]


@pytest.fixture(scope='module', params=['raw', 'compressedDepth'])
def running(request):
    with robots.running(PARAMETERS | {'depth.image_transport': request.param}) as robot:
        wait_until(lambda: robot.node.count_publishers(f'{robot.prefix}/motions'), 'the topics')
        yield robot


def names_by(robot, function) -> set[str]:
    return {name for name, _ in function('xmem', robot.namespace) if '/_action/' not in name}


@pytest.mark.parametrize(
    ('kind', 'qualifier', 'of_node'),
    [
        ('topics', 'publish', 'get_publisher_names_and_types_by_node'),
        ('topics', 'subscribe', 'get_subscriber_names_and_types_by_node'),
        ('services', 'reply', 'get_service_names_and_types_by_node'),
    ],
)
def test_every_name_of_the_node_is_allowed(running, kind, qualifier, of_node):
    found = names_by(running, getattr(running.node, of_node))
    assert found
    expressions = allowed(kind, qualifier, running.namespace)
    assert not {name for name in found if not any(fnmatchcase(name, expression) for expression in expressions)}


def test_every_action_of_the_node_is_allowed(running):
    found = {name for name, _ in get_action_server_names_and_types_by_node(running.node, 'xmem', running.namespace)}
    assert found == set(allowed('actions', 'execute', running.namespace))


def test_the_node_asks_for_nothing_of_others(running):
    assert not names_by(running, running.node.get_client_names_and_types_by_node)


def test_the_policy_denies_what_is_not_the_nodes():
    expressions = allowed('topics', 'publish', '')
    assert not [
        topic
        for topic in ('/cmd_vel', '/other/labels', '/image')
        if any(fnmatchcase(topic, expression) for expression in expressions)
    ]
