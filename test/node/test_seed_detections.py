# SPDX-License-Identifier: MIT
"""Seeds from a detector, with the real node over real DDS."""

import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg', 'vision_msgs.msg')

import functools

import detections
import node_harness as robots
from node_harness import bounding_box, iou, mask_seed, pixels_of, wait_until
from scene_files import rendered_scene
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from xmem_ros.msg import Seed, TrackedObject, TrackedObjectArray

SCENE = rendered_scene()
FRAME, TRUTH = SCENE[0]
RESEED = {'reseed_within': 600.0, 'min_likeness': 0.7}
POLICY = {'seed_detections.enabled': True, 'seed_detections.period': 0.1, 'max_objects': 4, 'diagnostics_period': 0.3}
box_of = functools.partial(detections.box_of, SCENE)
FOUND = 0.6  # IoU of GrabCut's mask for a box around a textured object


@pytest.fixture(scope='module')
def running():
    with robots.running(POLICY) as robot:
        robot.labels = robot.listen(Image, '~/labels')
        robot.objects = robot.listen(TrackedObjectArray, '~/objects')
        robot.seeds = robot.listen_seeds()
        robot.wait_matched('~/events')
        robot.detector = robot.node.create_publisher(
            Detection2DArray, f'{robot.prefix}/seed_detections', robots.RELIABLE
        )
        wait_until(robot.detector.get_subscription_count, 'a subscriber of the detections')
        yield robot


@pytest.fixture
def robot(running):
    """The node without objects, after one frame."""
    assert running.reset().success
    running.show_and_wait(FRAME, running.labels)
    running.seeds.clear()
    return running


def detect(robot, header, *boxes):
    """Publish boxes (x, y, width, height, class, score) for the image of a header."""
    robot.detector.publish(detections.detections(header, *boxes))


def figures(robot):
    """Return the counts of detections from the diagnostics."""
    values = robot.diagnostics(lambda values: 'detection messages' in values, 'detections')
    return {name: int(values[name]) for name in values if 'detection' in name}


def test_boxes_of_an_earlier_image_become_objects_of_their_class(robot):
    earlier = robot.labels[-1].header
    robot.show_and_wait(SCENE[1][0], robot.labels)
    detect(robot, earlier, box_of(1, 'cup'), box_of(2, 'bowl', 0.8))
    (seeds,) = wait_until(lambda: robot.seeds, 'accepted seeds')
    assert seeds.header == earlier
    assert [(seed.name, seed.kind) for seed in seeds.seeds] == [('cup', Seed.BOX), ('bowl', Seed.BOX)]
    assert list(seeds.ids) == [1, 2]
    labels = robot.show_and_wait(SCENE[2][0], robot.labels)
    wait_until(lambda: robot.objects[-1].header == labels.header, 'objects')
    assert [item.name for item in robot.objects[-1].objects] == ['cup', 'bowl']
    for value in (1, 2):
        assert iou(pixels_of(labels) == value, SCENE[2][1] == value) > FOUND


def test_a_detected_object_is_not_seeded_again_in_a_newer_or_earlier_image(robot):
    first = robot.labels[-1].header
    later = robot.show_and_wait(SCENE[1][0], robot.labels).header
    detect(robot, first, box_of(1, 'cup'))
    wait_until(lambda: len(robot.seeds) == 1, 'the first seed')
    # no image has shown the cup yet, and this one was tracked without it
    detect(robot, later, box_of(1, 'cup', index=1), box_of(2, 'bowl', index=1))
    wait_until(lambda: len(robot.seeds) == 2, 'the second seed')
    newest = robot.show_and_wait(SCENE[2][0], robot.labels).header
    detect(robot, newest, box_of(1, 'cup', index=2), box_of(2, 'bowl', index=2), box_of(3, 'plate', 0.6, index=2))
    wait_until(lambda: len(robot.seeds) == 3, 'the third seed')
    assert [seed.name for message in robot.seeds for seed in message.seeds] == ['cup', 'bowl', 'plate']


def test_detections_are_filtered_by_class_score_and_number(robot):
    for name, value in (('classes', ['cup', 'plate']), ('max_per_message', 1)):
        assert robot.set_parameter(f'seed_detections.{name}', value).successful
    try:
        boxes = (box_of(1, 'person', 0.99), box_of(2, 'cup', 0.3), box_of(2, 'plate', 0.7), box_of(3, 'cup', 0.8))
        detect(robot, robot.labels[-1].header, *boxes)
        wait_until(lambda: robot.seeds, 'a seed')
        assert [seed.name for seed in robot.seeds[0].seeds] == ['cup']
        detect(robot, robot.labels[-1].header, *boxes)
        wait_until(lambda: len(robot.seeds) == 2, 'the next seed')
        assert [seed.name for seed in robot.seeds[1].seeds] == ['plate']
    finally:
        for name, value in (('classes', []), ('max_per_message', 4)):
            assert robot.set_parameter(f'seed_detections.{name}', value).successful


def test_detections_of_an_unknown_image_are_dropped_with_the_span_of_held_images(robot):
    header = type(robot.labels[-1].header)()
    header.stamp.sec = 99_999
    detect(robot, header, box_of(1, 'cup'))
    robot.process.says(
        'seed_detections: dropped: no image with stamp 99999.000000000 is held; held images have stamps from'
    )
    detect(robot, robot.labels[-1].header, box_of(2, 'bowl'))
    wait_until(lambda: robot.seeds, 'a seed')
    assert [seed.name for message in robot.seeds for seed in message.seeds] == ['bowl']


def test_an_unusable_box_does_not_prevent_the_other_seeds(robot):
    width = TRUTH.shape[1]
    header = robot.show_and_wait(FRAME, robot.labels).header
    nan = float('nan')
    boxes = [(2, 2, 1, 1, 'tiny', 0.99), (nan, 0, 5, 5, 'nan', 0.98), (width + 5, 0, 9, 9, 'outside', 0.97)]
    detect(robot, header, *boxes, box_of(2, 'bowl', 0.6))
    wait_until(lambda: robot.seeds, 'a seed')
    assert [seed.name for seed in robot.seeds[0].seeds] == ['bowl']


def test_a_flood_of_detections_does_not_stop_tracking_and_is_counted(robot):
    """300 messages of 20 boxes: the newest are used, and max_objects holds."""
    height, width = TRUTH.shape
    rng = np.random.default_rng(0)
    before = figures(robot)
    tracked = int(robot.diagnostics(lambda values: True, 'anything')['tracked'])
    for index in range(1, 61):
        header = robot.show_and_wait(SCENE[index % 30][0], robot.labels).header
        for _ in range(5):
            boxes = [
                (*rng.integers(0, (width - 60, height - 60)), 50, 50, f'thing {number}', 0.9) for number in range(20)
            ]
            detect(robot, header, *boxes)
    wait_until(lambda: figures(robot)['detection messages'] == before['detection messages'] + 300, 'all messages')
    after = figures(robot)
    grown = {name: after[name] - before[name] for name in after}
    assert grown['detection messages dropped'] > 150
    assert robot.diagnostics(lambda values: int(values['tracked']) >= tracked + 60, 'all images tracked')
    assert len(robot.objects[-1].objects) <= 4


def test_a_reactivated_node_accepts_detections_again(robot):
    detect(robot, robot.labels[-1].header, box_of(1, 'cup'))
    assert robot.change_state('deactivate')
    assert robot.change_state('cleanup')
    assert robot.change_state('configure')
    assert robot.change_state('activate')
    robot.wait_camera()
    wait_until(robot.detector.get_subscription_count, 'a subscriber of the detections')
    header = robot.show_and_wait(SCENE[3][0], robot.labels).header
    robot.seeds.clear()
    detect(robot, header, box_of(3, 'plate', index=3))
    wait_until(lambda: robot.seeds, 'a seed')
    assert [seed.name for seed in robot.seeds[-1].seeds] == ['plate']


def test_an_object_seeded_by_a_service_is_not_seeded_again_by_a_detection(robot):
    assert robot.seed(mask_seed(TRUTH == 1, 'mine')).success
    detect(robot, robot.labels[-1].header, box_of(1, 'cup'), box_of(2, 'bowl'))
    wait_until(lambda: len(robot.seeds) == 2, 'the seeds')
    assert [seed.name for message in robot.seeds for seed in message.seeds] == ['mine', 'bowl']


@pytest.fixture
def out_of_sight(robot):
    """A node with a hidden cup, which a detector started; its score stays below min_score."""
    detect(robot, robot.labels[-1].header, box_of(1, 'cup'))
    wait_until(lambda: robot.seeds, 'the seed')
    robot.seeds.clear()
    robot.show_and_wait(SCENE[1][0], robot.labels)
    assert robot.set_parameter('min_score', 1.0).successful
    for _ in range(3):
        hidden = robot.show_and_wait(np.full_like(FRAME, 90), robot.labels)
    wait_until(lambda: robot.objects[-1].header == hidden.header, 'objects')
    assert [item.state for item in robot.objects[-1].objects] == [TrackedObject.OCCLUDED]
    yield robot
    for name, value in (('min_score', 0.6), *((f'seed_detections.{name}', value) for name, value in RESEED.items())):
        assert robot.set_parameter(name, value).successful


def test_a_returning_object_that_the_detector_sees_first_keeps_its_id(out_of_sight):
    robot = out_of_sight
    corrected = figures(robot)['objects corrected by detections']
    header = robot.show_and_wait(SCENE[8][0], robot.labels).header
    detect(robot, header, box_of(1, 'cup', index=8), box_of(2, 'bowl', 0.8, index=8))
    (seeds,) = wait_until(lambda: robot.seeds, 'a seed')
    assert [(seed.name, seed.kind) for seed in seeds.seeds] == [('cup', Seed.BOX), ('bowl', Seed.BOX)]
    assert [seed.id for seed in seeds.seeds] == [1, 0]
    assert list(seeds.ids) == [1, 2]
    assert figures(robot)['objects corrected by detections'] == corrected + 1
    assert robot.set_parameter('min_score', 0.6).successful
    labels = robot.show_and_wait(SCENE[9][0], robot.labels)
    wait_until(lambda: robot.objects[-1].header == labels.header, 'objects')
    assert [(item.id, item.name) for item in robot.objects[-1].objects] == [(1, 'cup'), (2, 'bowl')]
    assert iou(pixels_of(labels) == 1, SCENE[9][1] == 1) > FOUND


def test_a_different_object_of_the_same_class_is_new(out_of_sight):
    robot = out_of_sight
    header = robot.show_and_wait(SCENE[8][0], robot.labels).header
    detect(robot, header, box_of(2, 'cup', index=8))
    (seeds,) = wait_until(lambda: robot.seeds, 'a seed')
    assert list(seeds.ids) == [2]


@pytest.mark.parametrize('within', [0.0, 0.05])
def test_a_detection_starts_a_new_object_after_reseed_within(out_of_sight, within):
    robot = out_of_sight
    assert robot.set_parameter('seed_detections.reseed_within', within).successful
    header = robot.show_and_wait(SCENE[8][0], robot.labels).header  # the cup was seen 4/30 s ago
    detect(robot, header, box_of(1, 'cup', index=8))
    (seeds,) = wait_until(lambda: robot.seeds, 'a seed')
    assert list(seeds.ids) == [2]


def test_with_min_likeness_0_the_class_alone_identifies_a_hidden_object(out_of_sight):
    robot = out_of_sight
    assert robot.set_parameter('seed_detections.min_likeness', 0.0).successful
    header = robot.show_and_wait(SCENE[8][0], robot.labels).header
    detect(robot, header, box_of(2, 'cup', index=8))
    (seeds,) = wait_until(lambda: robot.seeds, 'a seed')
    assert list(seeds.ids) == [1]


def test_an_object_that_has_returned_elsewhere_is_not_started_twice(out_of_sight):
    robot = out_of_sight
    earlier = robot.show_and_wait(SCENE[0][0], robot.labels).header
    assert robot.set_parameter('min_score', 0.3).successful
    labels = robot.show_and_wait(np.roll(SCENE[0][0], -100, 1), robot.labels)
    for _ in range(5):
        labels = robot.show_and_wait(np.roll(SCENE[0][0], -100, 1), robot.labels)
        wait_until(lambda labels=labels: robot.objects[-1].header == labels.header, 'objects')
    (cup,) = robot.objects[-1].objects
    assert cup.state == TrackedObject.TRACKED
    here, before = bounding_box(pixels_of(labels) == 1), bounding_box(TRUTH == 1)
    assert abs(here[0] - before[0]) > before[2]  # nowhere near where it was
    detect(robot, earlier, box_of(1, 'cup'), box_of(2, 'bowl', 0.8))
    (seeds,) = wait_until(lambda: robot.seeds, 'a seed')
    assert [seed.name for seed in seeds.seeds] == ['bowl']


def test_detections_are_ignored_unless_enabled():
    with robots.running({'autostart': True}) as robot:
        robot.wait_matched('~/objects')
        assert robot.node.count_subscribers(f'{robot.prefix}/seed_detections') == 0


def test_a_deactivation_does_not_wait_for_the_masks_of_all_boxes():
    policy = {**POLICY, 'seeder': 'grabcut', 'max_objects': 30, 'seed_detections.max_per_message': 30}
    noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)  # GrabCut takes long
    boxes = [(10 + 200 * x, 10 + 170 * y, 190, 160, 'thing', 0.9) for x in range(6) for y in range(4)]
    with robots.running(policy) as robot:
        labels = robot.listen(Image, '~/labels')
        robot.wait_matched('~/labels')
        robot.detector = robot.node.create_publisher(
            Detection2DArray, f'{robot.prefix}/seed_detections', robots.RELIABLE
        )
        wait_until(robot.detector.get_subscription_count, 'a subscriber of the detections')
        robot.show_and_wait(noise, labels)
        detect(robot, labels[-1].header, *boxes)
        robot.diagnostics(lambda values: int(values['detection boxes tried']) > 0, 'the first box')
        assert robot.change_state('deactivate')
        assert figures(robot)['detection boxes tried'] < len(boxes)
        assert robot.change_state('activate')
        robot.wait_camera()
        robot.show_and_wait(noise, labels)
        assert robot.seed(mask_seed(np.ones((720, 1280), bool))).success
