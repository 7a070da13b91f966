# SPDX-License-Identifier: MIT
"""What of a bag goes back into the graph, and when: order, times and QoS, without a node."""

from __future__ import annotations

import time

import pytest

pytest.importorskip('rclpy', reason='rclpy is not importable: run make build, or source ROS 2')
pytest.importorskip('xmem_ros.msg', reason='the messages are not built: run make build')
pytest.importorskip('rosbags', reason="rosbags is not installed: pip install 'xmem_ros[bags]'")

from xmem_ros.bags.live_clock import BagTime
from xmem_ros.bags.live_source import LiveMessage
from xmem_ros.bags.live_topics import companions_first

MS = 1_000_000


def image(at_ms, data=b''):
    return LiveMessage('/image', 'sensor_msgs/msg/Image', at_ms * MS, data, at_ms * MS)


def info(at_ms, stamp_ms):
    return LiveMessage('/info', 'sensor_msgs/msg/CameraInfo', at_ms * MS, b'', stamp_ms * MS)


def transform(at_ms):
    return LiveMessage('/tf', 'tf2_msgs/msg/TFMessage', at_ms * MS, b'')


def test_camera_infos_that_were_recorded_late_come_first_and_time_never_goes_back():
    recorded = [message for at in (1000, 1100, 1200) for message in (image(at), transform(at + 20), info(at + 40, at))]
    ordered = list(companions_first(recorded, '/image'))
    assert [message.topic for message in ordered] == ['/info', '/image', '/tf'] * 3
    times = [message.received_ns // MS for message in ordered]
    assert times == [1000, 1000, 1020, 1100, 1100, 1120, 1200, 1200, 1220]


def test_the_time_of_a_bag_waits_for_messages_out_of_order_and_follows_a_new_beginning():
    bag = BagTime()
    assert [bag.reach(at * MS) // MS for at in (5000, 5040, 5030, 5050)] == [5000, 5040, 5040, 5050]
    assert [bag.reach(at * MS) // MS for at in (1000, 1010)] == [1000, 1010]


def test_a_rate_holds_from_each_beginning_on():
    """A bag of 100 ms at a fifth of its speed, twice: each takes half a second."""
    bag = BagTime(0.2)
    begun = time.monotonic()
    for at in (5000, 5050, 5100, 1000, 1050, 1100):
        bag.reach(at * MS)
    assert time.monotonic() - begun >= 2 * 0.1 / 0.2
