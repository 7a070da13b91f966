# SPDX-License-Identifier: MIT
"""Conversion of tracked objects, for messages of ROS and of bags."""

import dataclasses
import math
import subprocess
import sys

import pytest
from needs import require

require('rosbags.rosbag2')

from xmem_ros.conversions.objects import duration_message, object_message, object_of, seconds_of
from xmem_ros.objects import ObjectState, TrackedObject
from xmem_ros.recordings import typestore

CUP = TrackedObject(
    id=3,
    label=254,
    name='Tässchen',
    state=ObjectState.TRACKED,
    score=0.75,
    box=(10, 20, 30, 40),
    area=77,
    centroid=(12.5, 30.25),
    frames_since_seed=90,
    frames_since_seen=0,
    time_since_seed=3.000033,
    time_since_seen=0.0,
)
HIDDEN = dataclasses.replace(
    CUP, state=ObjectState.LOST, box=None, area=0, frames_since_seen=60, time_since_seen=2.000001
)


@pytest.mark.parametrize('item', [CUP, HIDDEN])
def test_an_object_survives_a_round_trip_through_its_message(item):
    assert object_of(object_message(item, typestore.make)) == item


def test_an_object_that_was_never_seen_has_no_centroid():
    nowhere = dataclasses.replace(HIDDEN, centroid=(math.nan, math.nan))
    assert all(map(math.isnan, object_of(object_message(nowhere, typestore.make)).centroid))


def test_objects_are_serialized_alike_for_ros_and_bags():
    serialization = pytest.importorskip('rclpy.serialization', reason='rclpy is not importable')
    generated = pytest.importorskip('xmem_ros.msg', reason='the messages are not built')
    ours = typestore.objects_message(typestore.header(1_500_000_000, 'camera'), [CUP, HIDDEN])
    read = serialization.deserialize_message(typestore.serialize(ours), generated.TrackedObjectArray)
    assert [object_of(item) for item in read.objects] == [CUP, HIDDEN]
    assert (read.header.frame_id, read.header.stamp.sec, read.header.stamp.nanosec) == ('camera', 1, 500_000_000)
    again = typestore.deserialize(serialization.serialize_message(read), typestore.OBJECTS)
    assert [object_of(item) for item in again.objects] == [CUP, HIDDEN]


@pytest.mark.parametrize(
    ('seconds', 'sec', 'nanosec'),
    [(0.0, 0, 0), (0.0333333, 0, 33_333_000), (1.9999999, 2, 0), (-0.25, -1, 750_000_000), (1e12, 2**31 - 1, 0)],
)
def test_a_duration_is_exact_to_the_microsecond_and_bounded(seconds, sec, nanosec):
    message = duration_message(seconds, typestore.make)
    assert (message.sec, message.nanosec) == (sec, nanosec)
    if abs(seconds) < 2**31:
        assert seconds_of(message) == pytest.approx(seconds, abs=5e-7)


def test_an_unknown_state_is_refused():
    message = object_message(CUP, typestore.make)
    message.state = 9
    with pytest.raises(ValueError, match='9 is not a valid ObjectState'):
        object_of(message)


def test_neither_the_conversion_nor_the_keys_of_diagnostics_need_ros():
    code = (
        'import sys, xmem_ros.conversions.objects, xmem_ros.node.diagnostic_keys\n'
        'print(sorted({name.partition(".")[0] for name in sys.modules} & {"rclpy", "torch", "sensor_msgs"}))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == '[]'
