# SPDX-License-Identifier: MIT
"""Lock-step replay with faults of the bag, the node or the options."""

from __future__ import annotations

import dataclasses
import signal
from types import SimpleNamespace

import bag_files
import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg', 'rosbags.rosbag2')

import node_harness as robots
from bag_files import TOPIC, image_items, image_message, stamp_of, write_bag
from node_harness import wait_until
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock

from xmem_ros.conversions.seeds import MASK
from xmem_ros.errors import (
    BagError,
    NodeInactiveError,
    NodeMissingError,
    NodeTimeoutError,
    ParameterError,
    SeedError,
)
from xmem_ros.recordings import typestore
from xmem_ros.recordings.seed_plan import PlannedSeeds
from xmem_ros.replay.lockstep import replay
from xmem_ros.replay.topics import parse_remaps

FRAMES = bag_files.scene(6, objects=2)
PATIENCE_S = 60.0  # time limit on a busy machine
SHORT_S = 3.0  # time limit of waits that must fail


@pytest.fixture(scope='module')
def robot():
    # the recordings are shorter than the default threshold, and some are replayed twice
    settings = {'device': 'cpu', 'size': 64, 'diagnostics_period': 0.2, 'time_jump_threshold': 0.0}
    with robots.running(settings) as robot:
        robot.node.destroy_publisher(robot.images)
        wait_until(lambda: not robot.node.count_publishers(f'{robot.namespace}/image'), 'the camera to leave the graph')
        yield robot


@pytest.fixture(scope='module')
def compressed():
    """A node that takes compressed images."""
    with robots.running({'device': 'cpu', 'size': 64, 'image_transport': 'compressed', 'autostart': False}) as robot:
        assert robot.change_state('configure')
        assert robot.change_state('activate')
        yield robot


@pytest.fixture
def bag(tmp_path):
    return write_bag(tmp_path / 'bag', image_items(FRAMES))


def first_mask(value=1, **fields):
    seed = typestore.seed(MASK, name='toy', mask=FRAMES[0][1] == value)
    return PlannedSeeds((seed,), (value,), **{'index': 0, **fields})


def follow(robot, bag, plan=(), timeout=PATIENCE_S, **options):
    with replay(bag, robot.prefix, plan=plan, timeout=timeout, **options) as frames:
        return list(frames), frames.report


def wait_briefly(frames):
    """Shorten the time limit of a wait that must fail."""
    frames._node.timeout = frames._node.link.timeout = SHORT_S


# --- the bag


def test_unusable_images_are_reported_and_the_replay_continues(robot, tmp_path):
    """An image is truncated, one has an unknown encoding, and one is not a message."""
    items = image_items(FRAMES)
    short = dataclasses.replace(image_message(1, FRAMES[1][0]), data=np.zeros(10, np.uint8))
    unknown = dataclasses.replace(image_message(3, FRAMES[3][0]), encoding='rainbow')
    for index, message in ((1, short), (3, unknown), (4, (typestore.IMAGE, b'\0\1\0\0\7'))):
        items[index] = (TOPIC, items[index][1], message)
    live, report = follow(robot, write_bag(tmp_path / 'bag', items), [first_mask()])
    assert [frame.index for frame in live] == [0, 2, 5]
    assert [(item.index, item.stamp_ns) for item in report.dropped] == [(1, stamp_of(1)), (3, stamp_of(3)), (4, None)]
    assert (report.images, report.tracked) == (6, 3)
    assert len(live[-1].objects) == 1


def test_seeds_of_an_image_that_the_node_drops_are_refused_or_recorded_as_missed(robot, tmp_path):
    items = image_items(FRAMES)
    items[0] = (TOPIC, items[0][1], dataclasses.replace(image_message(0, FRAMES[0][0]), encoding='rainbow'))
    bag = write_bag(tmp_path / 'bag', items)
    with pytest.raises(SeedError, match='image 0: the node dropped the image'):
        follow(robot, bag, [first_mask()])
    live, report = follow(robot, bag, [first_mask(recorded=True)])
    assert len(live) == 5
    assert 'image 0: the node dropped the image' in report.missed[0]


def test_seeds_of_an_image_that_is_damaged_in_the_bag_are_refused(robot, tmp_path):
    items = image_items(FRAMES)
    items[2] = (TOPIC, items[2][1], (typestore.IMAGE, b'\0\1\0\0\7'))
    bag = write_bag(tmp_path / 'bag', items)
    with pytest.raises(SeedError, match='image 2: damaged in the bag'):
        follow(robot, bag, [first_mask(index=2)])


def test_seeds_start_new_objects_after_the_node_was_reset_by_stamps_that_jump_back(robot, tmp_path):
    """Two rounds of the same images, each with a seed of the same object."""
    later = 60_000_000_000
    items = image_items(FRAMES) + [(topic, at + later, message) for topic, at, message in image_items(FRAMES)]
    bag = write_bag(tmp_path / 'bag', items)
    plan = [first_mask(), first_mask(index=6)]
    assert robot.set_parameter('on_time_jump', 'reset').successful
    try:
        live, _ = follow(robot, bag, plan)
    finally:
        assert robot.set_parameter('on_time_jump', 'keep').successful
    assert [len(frame.objects) for frame in live] == [0, 1, 1, 1, 1, 1] * 2
    assert [dict(frame.plan_ids) for frame in live] == [{1: 1}] * 12


def test_a_truncated_bag_is_replayed_to_its_last_readable_image(robot, tmp_path):
    whole = write_bag(tmp_path / 'bag', image_items(FRAMES)) / 'bag.mcap'
    cut = tmp_path / 'cut.mcap'
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    live, report = follow(robot, cut, [first_mask(), first_mask(index=5)])
    assert 0 < len(live) < len(FRAMES)
    assert 'was cut off' in report.damage
    assert report.missed == ['seeds: the recording ends before image 5']


def test_topics_whose_types_are_not_installed_are_skipped_and_named(robot, tmp_path):
    tide = ('moon_msgs/msg/Tide', b'\0\1\0\0\3\0\0\0')
    other = ('sensor_msgs/msg/CameraInfo', b'\0\1\0\0\3\0\0\0')  # as if another distribution defined it differently
    items = [*image_items(FRAMES), ('/tide', stamp_of(9), tide), ('/camera_info', stamp_of(9), other)]
    live, report = follow(robot, write_bag(tmp_path / 'bag', items))
    assert len(live) == len(FRAMES)
    assert report.left_out == {
        '/tide': 'moon_msgs/msg/Tide is not installed',
        '/camera_info': 'its messages do not match the installed sensor_msgs/msg/CameraInfo',
    }
    assert report.foreign == {'/tide', '/camera_info'}


def test_recorded_service_events_are_published_unchanged(robot, tmp_path):
    from rclpy.serialization import serialize_message
    from std_srvs.srv import SetBool

    if not hasattr(SetBool, 'Event'):
        pytest.skip('this ROS has no service events')
    event = SetBool.Event()
    event.info.sequence_number = 77
    recorded = ('std_srvs/srv/SetBool_Event', serialize_message(event))
    bag = write_bag(tmp_path / 'bag', [*image_items(FRAMES), ('/arm/_service_event', stamp_of(9), recorded)])
    heard = robot.listen(SetBool.Event, f'{robot.namespace}/arm/_service_event', QoSProfile(depth=10))
    remaps = {'/arm/_service_event': f'{robot.namespace}/arm/_service_event'}
    with replay(bag, robot.prefix, plan=[], remaps=remaps, timeout=PATIENCE_S) as frames:
        wait_until(lambda: frames.subscribers['/arm/_service_event'], 'the replay to find its listener')
        list(frames)
        assert frames.report.left_out == {}
    wait_until(lambda: heard, 'the event')
    assert heard[0].info.sequence_number == 77


def test_another_camera_on_the_topic_of_the_node_is_not_published(robot, tmp_path):
    """The node's image topic is also in the bag, but another one is replayed."""
    other = bag_files.scene(6, objects=2, size=(80, 112))
    items = image_items(FRAMES) + image_items(other, f'{robot.namespace}/image')
    bag = write_bag(tmp_path / 'bag', sorted(items, key=lambda item: item[1]))
    live, report = follow(robot, bag, image_topic=TOPIC)
    assert [frame.labels.shape for frame in live] == [FRAMES[0][1].shape] * 6
    assert report.left_out == {f'{robot.namespace}/image': f'the replayed images use {robot.namespace}/image'}


def test_an_unreadable_bag_is_named(robot, tmp_path):
    with pytest.raises(BagError, match='nowhere'):
        replay(tmp_path / 'nowhere', robot.prefix)


# --- the node


def test_a_missing_node_is_named_with_the_available_ones(robot, bag):
    with pytest.raises(NodeMissingError, match=rf'no node /nobody was found .*{robot.prefix}'):
        replay(bag, '/nobody', plan=[], timeout=SHORT_S)


def test_an_inactive_node_is_reported_with_the_commands_to_activate_it(robot, bag):
    assert robot.change_state('deactivate')
    try:
        with pytest.raises(NodeInactiveError, match='is inactive.*ros2 lifecycle set'):
            replay(bag, robot.prefix, plan=[], timeout=PATIENCE_S)
    finally:
        assert robot.change_state('activate')


def test_a_node_that_is_deactivated_during_the_replay_is_reported(robot, bag):
    try:
        with replay(bag, robot.prefix, plan=[], timeout=PATIENCE_S) as frames:
            next(frames)
            assert robot.change_state('deactivate')
            with pytest.raises(NodeInactiveError, match='is inactive'):
                next(frames)
    finally:
        assert robot.change_state('activate')


def test_a_hanging_node_is_distinguished_from_one_without_images_and_one_that_ended(bag):
    with robots.running({'device': 'cpu', 'size': 64}) as robot:
        with replay(bag, robot.prefix, plan=[], timeout=PATIENCE_S) as frames:
            next(frames)
            wait_briefly(frames)
            robot.process.process.send_signal(signal.SIGSTOP)
            try:
                with pytest.raises(NodeTimeoutError, match='and no /diagnostics'):
                    next(frames)
            finally:
                robot.process.process.send_signal(signal.SIGCONT)
        with replay(bag, robot.prefix, plan=[], timeout=PATIENCE_S) as frames:
            next(frames)
            robot.process.interrupt()
            with pytest.raises(NodeMissingError, match='disappeared during the replay'):
                list(frames)


def test_images_that_do_not_reach_the_node_are_reported_with_topic_and_qos(robot, bag):
    text = rf'no image reaches {robot.prefix}: images are published on {robot.namespace}/image by .*RELIABLE'
    with replay(bag, robot.prefix, plan=[], timeout=PATIENCE_S) as frames:
        next(frames)
        wait_briefly(frames)
        frames._publishers._publishers[TOPIC] = SimpleNamespace(
            publish=lambda _: None
        )  # as if the network lost the image
        with pytest.raises(NodeTimeoutError, match=text):
            next(frames)


def test_raw_images_are_refused_for_a_node_that_takes_compressed_ones(compressed, bag):
    with pytest.raises(ParameterError, match='does not subscribe to .*start it with image_transport:=raw'):
        replay(bag, compressed.prefix, plan=[], timeout=PATIENCE_S)


def test_compressed_images_reach_a_node_that_takes_them(compressed, tmp_path):
    bag = write_bag(tmp_path / 'bag', image_items(FRAMES, '/cam/image/compressed', compressed=True))
    live, report = follow(compressed, bag, [first_mask()])
    assert report.topic == f'{compressed.namespace}/image/compressed'
    assert len(live) == len(FRAMES)
    assert (live[-1].labels == 1).any()


# --- options


def test_seeds_refused_by_the_node_end_the_replay_with_its_message(robot, bag):
    wrong = typestore.seed(MASK, mask=np.ones((5, 7), bool))
    with pytest.raises(SeedError, match='given by hand: image 0: .*5'):
        follow(robot, bag, [PlannedSeeds((wrong,), (1,), index=0, source='given by hand')])


def test_seeds_of_an_image_beyond_the_bag_are_refused_at_once(robot, bag):
    with pytest.raises(SeedError, match='there is no image 99'):
        replay(bag, robot.prefix, plan=[first_mask(index=99)])


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        ({'rate': -1.0}, 'rate is -1.0'),
        ({'rate': float('nan')}, 'rate is nan'),
        ({'timeout': 0}, 'timeout is 0'),
        ({'most': -1}, 'most is -1'),
        ({'most': 2.5}, 'most is 2.5'),
    ],
)
def test_options_out_of_range_are_refused(bag, options, text):
    with pytest.raises(ParameterError, match=text):
        replay(bag, plan=[], **options)


@pytest.mark.parametrize('rule', ['/a', '/a:=b', 'a:=/b', '/a:=/', ':='])
def test_a_remap_without_two_full_topic_names_is_refused(rule):
    with pytest.raises(ParameterError, match='give FROM:=TO'):
        parse_remaps([rule])


def test_the_clock_and_remapped_topics_are_published(robot, tmp_path):
    note = typestore.make('std_msgs/msg/String', data='go')
    items = [*image_items(FRAMES), ('/note', stamp_of(9), note)]
    late = 9_000_000  # the depth image is recorded later, but published first
    items += [('/depth', at + late, message) for _, at, message in image_items(FRAMES)]
    bag = write_bag(tmp_path / 'bag', sorted(items, key=lambda item: item[1]))
    from std_msgs.msg import String

    clocks = robot.listen(Clock, '/clock', QoSProfile(depth=100))
    notes = robot.listen(String, f'{robot.namespace}/said', QoSProfile(depth=10))
    remaps = parse_remaps([f'/note:={robot.namespace}/said'])
    options = {'image_topic': TOPIC, 'plan': [], 'clock': True, 'remaps': remaps, 'timeout': PATIENCE_S}
    with replay(bag, robot.prefix, **options) as frames:
        wait_until(lambda: robot.node.count_publishers('/clock'), 'the clock')
        wait_until(lambda: frames.subscribers['/note'], 'the replay to find its listener')
        live = list(frames)
        wait_until(lambda: notes, 'the note')
    times = [message.clock.sec * 10**9 + message.clock.nanosec for message in clocks]
    assert times == sorted(times)
    assert set(times) <= {at for _, at, _ in [*image_items(FRAMES), ('', stamp_of(9), None)]}
    assert len(times) > len(live) // 2  # the first clock messages may be lost before discovery
    assert notes[0].data == 'go'


def test_a_rate_limits_the_speed_of_the_replay(robot, bag):
    """Six images, 1/30 s apart, at a tenth of the speed take at least 5 · 10 / 30 s."""
    import time

    begun = time.monotonic()
    live, _ = follow(robot, bag, rate=0.1)
    assert time.monotonic() - begun > 5 * 10 / 30
    assert len(live) == len(FRAMES)
