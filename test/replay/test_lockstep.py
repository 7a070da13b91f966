# SPDX-License-Identifier: MIT
"""Lock-step replay of bags into the real node, over real DDS."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg', 'rosbags.rosbag2')

import bag_files
import node_harness as robots
from bag_files import TOPIC, image_items, stamp_of, write_bag
from node_harness import wait_until
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image

from xmem_ros.conversions.seeds import BOX, LABELS, MASK
from xmem_ros.msg import TrackedObjectArray
from xmem_ros.offline.tracking import track
from xmem_ros.parameters.table import Parameters
from xmem_ros.recordings import typestore
from xmem_ros.recordings.recording import open_recording
from xmem_ros.recordings.seed_plan import PlannedSeeds
from xmem_ros.replay.lockstep import replay

SIZE = 120  # px, that of the frames; the default enlarges them
FRAMES = bag_files.scene(12, objects=3, size=(SIZE, 160))
TRUTH = [labels for _, labels in FRAMES]
AGREE = 0.999  # minimum share of pixels that equal those of an offline run
PATIENCE_S = 60.0  # time limit on a busy machine


@pytest.fixture(scope='module')
def robot():
    """Start the node with frequent diagnostics and without the robot's camera."""
    with robots.running({'device': 'cpu', 'size': SIZE, 'diagnostics_period': 0.2}) as robot:
        robot.node.destroy_publisher(robot.images)
        wait_until(lambda: not robot.node.count_publishers(f'{robot.namespace}/image'), 'the camera to leave the graph')
        yield robot


@pytest.fixture
def bag(tmp_path):
    return write_bag(tmp_path / 'bag', image_items(FRAMES))


def seed_of(*values, index=0, ids=(), **fields):
    """Return seed masks of the scene's objects in an image; ids are the values by default."""
    seeds = tuple(typestore.seed(MASK, name=f'toy {value}', mask=TRUTH[index] == value) for value in values)
    return PlannedSeeds(seeds, ids or values, **{'index': index, **fields})


def follow(robot, bag, plan=(), **options):
    """Return all frames of a replay and its report."""
    with replay(bag, robot.prefix, plan=plan, timeout=PATIENCE_S, **options) as frames:
        return list(frames), frames.report


def offline(bag, plan):
    with open_recording(bag) as recording:
        return list(track(recording, plan, Parameters(device='cpu', size=SIZE)))


def agreement(live, tracked):
    """Return the share of pixels that are equal in all frames."""
    assert [frame.index for frame in live] == [frame.frame.index for frame in tracked]
    same = [frame.labels_with_seeds == other.labels for frame, other in zip(live, tracked, strict=True)]
    return float(np.mean(same))


def test_every_image_is_tracked_in_order_and_as_an_offline_run_tracks_it(robot, bag):
    plan = [seed_of(1, 2), seed_of(3, index=4)]
    live, report = follow(robot, bag, plan)
    assert [frame.stamp_ns for frame in live] == [stamp_of(index) for index in range(len(FRAMES))]
    assert (report.images, report.tracked, report.seeded, report.dropped) == (len(FRAMES), len(FRAMES), 3, [])
    assert [len(frame.objects) for frame in live] == [0, 2, 2, 2, 2, *[3] * 7]
    assert [item.name for item in live[-1].objects] == ['toy 1', 'toy 2', 'toy 3']
    assert all(frame.age_ms >= frame.processing_ms > 0 for frame in live)
    tracked = offline(bag, plan)
    assert (live[-1].labels > 0).any()
    assert agreement(live, tracked) >= AGREE


def test_two_replays_give_the_same_results(robot, bag):
    plan = [seed_of(1, 2, 3)]
    first, second = (follow(robot, bag, plan)[0] for _ in range(2))
    assert all((one.labels == other.labels).all() for one, other in zip(first, second, strict=True))
    assert [item.id for item in second[-1].objects] == [1, 2, 3]  # ids start at 1 after the reset


def test_keep_continues_with_the_objects_of_the_node(robot, bag):
    follow(robot, bag, [seed_of(1)])
    live, _ = follow(robot, bag, [], keep=True)
    assert [item.id for item in live[0].objects] == [1]


def test_recorded_seeds_corrections_and_resets_are_repeated(robot, tmp_path):
    """The recorded node's ids started at 7, and again after a reset."""
    correction = typestore.seed(MASK, object_id=7, mask=TRUTH[2] == 1)
    recorded = [
        bag_files.seeds_message(0, [typestore.seed(LABELS, mask=np.where(TRUTH[0] < 3, TRUTH[0], 0))], [7, 8]),
        bag_files.seeds_message(2, [correction], [7]),
        bag_files.seeds_message(5, [typestore.seed(MASK, mask=TRUTH[5] == 3)], [7]),
    ]
    received = [stamp_of(index) + 900_000_000 for index in (0, 2, 5)]  # late, as from a slow segmenter
    items = image_items(FRAMES) + [('/xmem/seeds', at, item) for at, item in zip(received, recorded, strict=True)]
    bag = write_bag(tmp_path / 'bag', sorted(items, key=lambda item: item[1]))
    live, report = follow(robot, bag, None)
    assert report.missed == []
    assert [dict(frame.plan_ids) for frame in live] == [{1: 7, 2: 8}] * 5 + [{1: 7}] * 7
    assert [len(frame.objects) for frame in live] == [0, 2, 2, 2, 2, 0, *[1] * 6]
    with open_recording(bag) as recording:
        from xmem_ros.recordings.seed_plan import recorded_seeds

        plan = recorded_seeds(recording)
    assert agreement(live, offline(bag, plan)) >= AGREE


def test_objects_are_removed_before_the_image_given_by_the_plan(robot, bag):
    plan = [seed_of(1, 2), PlannedSeeds((), (), index=6, removed=(1,))]
    live, _ = follow(robot, bag, plan)
    assert [[item.id for item in frame.objects] for frame in live[5:7]] == [[1, 2], [2]]
    assert agreement(live, offline(bag, plan)) >= AGREE


def test_a_box_gives_the_same_object_as_in_an_offline_run(robot, bag):
    x, y, width, height = robots.bounding_box(TRUTH[0] == 1, margin=3)
    plan = [PlannedSeeds((typestore.seed(BOX, name='toy', around=(x, y, width, height)),), (1,), index=0)]
    live, _ = follow(robot, bag, plan)
    assert (live[0].labels_with_seeds == 1).any()
    assert agreement(live, offline(bag, plan)) >= AGREE


def camera_info(index):
    return typestore.make(
        'sensor_msgs/msg/CameraInfo',
        header=typestore.header(stamp_of(index), 'camera'),
        height=120,
        width=160,
        distortion_model='plumb_bob',
        d=np.zeros(5),
        k=np.eye(3).reshape(-1),
        r=np.eye(3).reshape(-1),
        p=np.zeros(12),
        binning_x=0,
        binning_y=0,
        roi=typestore.box(),
    )


def test_companions_are_published_before_their_image_and_recorded_outputs_are_not_published(robot, tmp_path):
    """In the bag, companions follow their image; it also has other topics and recorded outputs."""
    images = [bag_files.image_message(index, frame) for index, (frame, _) in enumerate(FRAMES)]
    depth = [dataclasses.replace(image, encoding='16UC1') for image in images]
    items = image_items(FRAMES)
    items += [('/camera/camera_info', stamp_of(i) + 30_000_000, camera_info(i)) for i in range(len(FRAMES))]
    items += [('/camera/depth/image', stamp_of(i) + 60_000_000, message) for i, message in enumerate(depth)]
    items += [('/xmem/labels', stamp_of(i), image) for i, image in enumerate(images)]
    items += [('/old/xmem/objects', stamp_of(0), typestore.objects_message(typestore.header(stamp_of(0), ''), []))]
    items += [('/old/xmem/overlay', stamp_of(0), depth[0])]
    note = typestore.make('std_msgs/msg/String', data='go')
    items += [('/note', stamp_of(3), note)]
    bag = write_bag(tmp_path / 'bag', sorted(items, key=lambda item: item[1]))
    heard: list[tuple[str, int]] = []
    deep = QoSProfile(depth=100)
    subscriptions = [
        robot.node.create_subscription(kind, topic, lambda m, t=topic: heard.append((t, m.header.stamp)), deep)
        for topic, kind in (
            ('/camera/camera_info', CameraInfo),
            ('/camera/depth/image', Image),
            ('/xmem/labels', Image),
            ('/old/xmem/overlay', Image),
            ('/old/xmem/objects', TrackedObjectArray),
        )
    ]
    ours = robot.listen(TrackedObjectArray, '~/objects')
    begun = len(ours)
    with replay(bag, robot.prefix, image_topic=TOPIC, plan=[], timeout=PATIENCE_S) as frames:
        topics = ('/camera/camera_info', '/camera/depth/image')
        wait_until(lambda: all(frames.subscribers[topic] for topic in topics), 'the replay to find its listeners')
        for frame in frames:  # nothing is published until the next iteration
            wait_until(lambda count=frame.index + 1: len(heard) >= 2 * count, 'the companions of the image')
        report = frames.report
    assert report.published == {'/camera/camera_info': 12, '/camera/depth/image': 12, '/note': 1}
    assert set(report.left_out) == {'/xmem/labels', '/old/xmem/objects', '/old/xmem/overlay'}
    assert len(heard) == 2 * len(FRAMES)
    assert {topic for topic, _ in heard} == {'/camera/camera_info', '/camera/depth/image'}
    wait_until(lambda: len(ours) - begun == len(FRAMES), 'the results of the node')
    for subscription in subscriptions:
        robot.node.destroy_subscription(subscription)
