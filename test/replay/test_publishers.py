# SPDX-License-Identifier: MIT
"""Publishing of recorded topics over real DDS: late and blocking subscribers."""

from __future__ import annotations

import os

import pytest
from needs import require

require('rclpy', 'xmem_ros.msg', 'rosbags.rosbag2')

import rclpy
from node_harness import wait_until
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile
from rclpy.serialization import serialize_message
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from std_msgs.msg import String

from xmem_ros.errors import OutputError
from xmem_ros.replay import topics as replay_topics
from xmem_ros.replay.source import RecordedMessage
from xmem_ros.replay.topics import ReplayPublishers, publisher_qos

TOPIC = f'/late_{os.getpid()}'
KIND = 'std_msgs/msg/String'


def offered(depth=1, *, latched=True, whole=False):
    """Return the QoS of a recorded publisher."""
    history = QosHistory.KEEP_ALL if whole else QosHistory.KEEP_LAST
    durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
    never = QosTime(0, 0)
    reliable, automatic = QosReliability.RELIABLE, QosLiveliness.AUTOMATIC
    return Qos(history, depth, reliable, durability, never, never, automatic, never, False)


@pytest.fixture
def nodes():
    context = rclpy.Context()
    rclpy.init(context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    speaker, listener = (rclpy.create_node(name, context=context) for name in ('speaker', 'listener'))
    executor.add_node(listener)
    yield speaker, listener, executor
    executor.shutdown()
    for node in (speaker, listener):
        node.destroy_node()
    rclpy.shutdown(context=context)


def say(topics, number):
    data = serialize_message(String(data=str(number)))
    topics.publish(RecordedMessage(TOPIC, KIND, number, data))


@pytest.mark.parametrize('recorded', [[offered()] * 120, [offered(0, whole=True)]], ids=['120 publishers', 'keep all'])
def test_late_subscribers_receive_all_latched_messages(nodes, recorded):
    """Static transforms of 120 broadcasters, each with depth 1."""
    speaker, listener, executor = nodes
    topics = ReplayPublishers(speaker, {TOPIC: KIND}, {TOPIC: recorded}, {})
    for number in range(120):
        say(topics, number)
    heard = []
    deep = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    listener.create_subscription(String, TOPIC, lambda message: heard.append(message.data), deep)

    def all_are_heard():
        executor.spin_once(timeout_sec=0.1)
        return len(heard) >= 120

    wait_until(all_are_heard, 'the earlier messages', 30.0)
    assert heard == [str(number) for number in range(120)]


@pytest.mark.parametrize(
    ('recorded', 'history', 'depth', 'durability'),
    [
        ([], 'KEEP_LAST', 10, 'VOLATILE'),
        ([offered(50, latched=False), offered(20, latched=False)], 'KEEP_LAST', 50, 'VOLATILE'),
        ([offered()], 'KEEP_LAST', 100, 'TRANSIENT_LOCAL'),
        ([offered(150), offered(7, latched=False), offered(1)], 'KEEP_LAST', 151, 'TRANSIENT_LOCAL'),
        ([offered(), offered(0, whole=True)], 'KEEP_ALL', None, 'TRANSIENT_LOCAL'),
    ],
)
def test_qos_combines_that_of_all_recorded_publishers(recorded, history, depth, durability):
    profile = publisher_qos(recorded)
    assert (profile.history.name, profile.durability.name) == (history, durability)
    assert depth is None or profile.depth == depth


@pytest.mark.skipif(
    'fastrtps' not in rclpy.get_rmw_implementation_identifier(), reason='other middlewares have other limits'
)
def test_a_subscriber_that_blocks_a_keep_all_topic_is_reported(nodes, monkeypatch):
    monkeypatch.setattr(replay_topics, 'ACK_TIMEOUT_S', 0.1)
    speaker, listener, _ = nodes
    topics = ReplayPublishers(speaker, {TOPIC: KIND}, {TOPIC: [offered(0, latched=False, whole=True)]}, {})
    listener.create_subscription(String, TOPIC, print, QoSProfile(history=HistoryPolicy.KEEP_ALL))
    wait_until(lambda: topics.subscribers[TOPIC], 'the listener')

    def say_more_than_fits():
        for number in range(30_000):  # Fast DDS stores 5000 on each side
            say(topics, number)

    with pytest.raises(OutputError, match=f'{TOPIC}: a subscriber does not receive its messages'):
        say_more_than_fits()
