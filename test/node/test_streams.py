# SPDX-License-Identifier: MIT
"""Streams of cameras and bags: bursts, time jumps, changing sizes and encodings, QoS, silence."""

import itertools
import threading
import time

import cv2
import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg')

import node_harness as robots
from node_harness import bounding_box, box_seed, iou, mask_seed, pixels_of, wait_until
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from scene_files import rendered_scene
from sensor_msgs.msg import CompressedImage, Image

from xmem_ros.conversions.compressed_images import compressed_from_array, rgb_of
from xmem_ros.msg import Seed, TrackedObjectArray

SCENE = rendered_scene()
FRAME, TRUTH = SCENE[0]
HEIGHT, WIDTH = TRUTH.shape
SIZE = 120  # px, half of the scene's: the masks are as good for these tests, and a frame takes a quarter of the time
FOLLOWED = 0.8  # IoU, as in test_node.py


def listen(robot):
    robot.labels = robot.listen(Image, '~/labels')
    robot.objects = robot.listen(TrackedObjectArray, '~/objects')
    robot.wait_matched('~/objects')
    return robot


@pytest.fixture(scope='module')
def running():
    with robots.running({'size': SIZE, 'diagnostics_period': 0.3}) as robot:
        yield listen(robot)


@pytest.fixture
def robot(running):
    """A node with two objects."""
    assert running.reset().success
    running.show_and_wait(FRAME, running.labels)
    assert running.seed(mask_seed(TRUTH == 1), mask_seed(TRUTH == 2)).success
    return running


def ids_now(robot):
    wait_until(lambda: robot.objects[-1].header == robot.labels[-1].header, 'objects')
    return [item.id for item in robot.objects[-1].objects]


def test_the_newest_image_of_a_burst_is_tracked_and_all_are_counted(robot):
    before = robot.diagnostics(lambda values: values['waiting'] == '0', 'a quiet node')
    robot.labels.clear()
    burst = [robot.show(SCENE[index % 20][0]) for index in range(40)]
    wait_until(lambda: robot.labels and robot.labels[-1].header == burst[-1].header, 'the last of the burst')
    after = robot.diagnostics(
        lambda values: (
            values['waiting'] == '0' and int(values['tracked']) >= int(before['tracked']) + len(robot.labels)
        ),
        'the end of the burst',
    )
    grown = {name: int(after[name]) - int(before[name]) for name in ('received', 'tracked', 'dropped')}
    assert grown['tracked'] == len(robot.labels)
    assert grown['received'] == grown['tracked'] + grown['dropped']
    assert grown['dropped'] > 0
    stamps = [(message.header.stamp.sec, message.header.stamp.nanosec) for message in robot.labels]
    assert stamps == sorted(stamps)


def test_a_dropped_image_can_be_seeded(robot):
    held: list[int] = []
    for _ in range(10):  # until the node itself, not only the middleware, has dropped an image
        burst = []
        for index in range(12):  # faster than it tracks, and slowly enough for the middleware
            burst.append(robot.show(SCENE[index][0]))
            time.sleep(0.006)
        wait_until(lambda last=burst[-1]: robot.labels[-1].header == last.header, 'the last of the burst')
        heard = {(message.header.stamp.sec, message.header.stamp.nanosec) for message in robot.labels}
        dropped = [i for i, sent in enumerate(burst) if (sent.header.stamp.sec, sent.header.stamp.nanosec) not in heard]
        taken = (i for i in dropped if robot.seed(mask_seed(SCENE[i][1] == 3), stamp=burst[i].header.stamp).success)
        held = list(itertools.islice(taken, 2))  # the same thing once more for each would hide the others
        if held:
            break
    assert held
    labels = robot.show_and_wait(SCENE[12][0], robot.labels)
    assert ids_now(robot)[:2] == [1, 2]
    assert len(ids_now(robot)) == 2 + len(held)
    assert iou(pixels_of(labels) == 1, SCENE[12][1] == 1) > FOLLOWED


def test_on_time_jump_decides_whether_a_jump_back_keeps_the_objects(robot):
    begun = robot.stamp_ns + 2_000_000_000
    robot.show_and_wait(SCENE[0][0], robot.labels, stamp_ns=begun)
    robot.show_and_wait(SCENE[1][0], robot.labels, stamp_ns=begun - 600_000_000)
    assert ids_now(robot) == [1, 2]
    robot.process.says('the objects are kept (on_time_jump: keep)')
    assert robot.set_parameter('on_time_jump', 'reset').successful
    try:
        robot.show_and_wait(SCENE[2][0], robot.labels)
        assert ids_now(robot) == [1, 2]
        robot.show_and_wait(SCENE[3][0], robot.labels, stamp_ns=begun - 1_200_000_000)
        assert ids_now(robot) == []
        robot.process.says('2 objects forgotten (on_time_jump: reset)')
        assert list(robot.seed(mask_seed(SCENE[3][1] == 1)).ids) == [1]
    finally:
        robot.set_parameter('on_time_jump', 'keep')
        robot.stamp_ns = begun


@pytest.mark.parametrize('action', ['keep', 'reset'])
def test_an_image_a_little_older_than_the_newest_is_dropped_and_counted(robot, action):
    newest = robot.stamp_ns
    assert robot.set_parameter('on_time_jump', action).successful
    late = int(robot.diagnostics(lambda values: True, 'anything')['late'])
    heard = len(robot.labels)
    try:
        robot.show(SCENE[1][0], stamp_ns=newest - 1_000_000)
        values = robot.diagnostics(lambda values: int(values['late']) == late + 1, 'a late image')
        assert values['code'] == 'ok'
        robot.show_and_wait(SCENE[2][0], robot.labels, stamp_ns=newest + robots.FRAME_NS)
        assert len(robot.labels) == heard + 1
        assert ids_now(robot) == [1, 2]
        robot.process.says('image dropped: it is 0.001 s older than the newest')
    finally:
        robot.set_parameter('on_time_jump', 'keep')


@pytest.mark.parametrize('size', [(480, 864), (120, 216), (240, 240), (33, 47)])
def test_objects_keep_their_ids_when_the_image_size_changes(robot, size):
    for index in (1, 2):
        resized = cv2.resize(SCENE[index][0], size[::-1], interpolation=cv2.INTER_AREA)
        labels = robot.show_and_wait(resized, robot.labels)
        assert pixels_of(labels).shape == size
        assert ids_now(robot) == [1, 2]
    labels = robot.show_and_wait(SCENE[3][0], robot.labels)
    assert ids_now(robot) == [1, 2]
    assert iou(pixels_of(labels) == 1, SCENE[3][1] == 1) > FOLLOWED


def test_images_of_other_encodings_are_tracked_alike(robot):
    frame = SCENE[1][0]
    bgra = cv2.cvtColor(frame, cv2.COLOR_RGB2BGRA)
    mosaic = np.zeros((HEIGHT, WIDTH), np.uint8)
    for channel, (top, left) in ((0, (0, 0)), (1, (0, 1)), (1, (1, 0)), (2, (1, 1))):
        mosaic[top::2, left::2] = frame[top::2, left::2, channel]
    sent = {
        'rgb8': frame,
        'bgr8': np.ascontiguousarray(frame[..., ::-1]),
        'bgra8': bgra,
        'bayer_rggb8': mosaic,
    }
    sent['rgb16'] = 7000 + frame.astype(np.uint16)  # in the full range of 16 bits it would be uniform
    for encoding, pixels in sent.items():
        labels = robot.show_and_wait(pixels, robot.labels, encoding=encoding)
        found = pixels_of(labels) == 1
        assert ids_now(robot) == [1, 2], encoding
        assert iou(found, SCENE[1][1] == 1) > FOLLOWED, encoding
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    robot.show_and_wait(grey, robot.labels, encoding='mono8')
    assert ids_now(robot) == [1, 2]  # an object known in colour is hard to find in grey, but it stays


def test_diagnostics_report_state_rate_stages_and_objects(robot):
    for index in range(1, 4):
        robot.show_and_wait(SCENE[index][0], robot.labels)
    values = robot.diagnostics(
        lambda values: float(values['rate (Hz)']) > 0 and 'decode (ms)' in values, 'tracked frames'
    )
    assert values['message'] == 'tracking'
    assert values['lifecycle state'] == 'active'
    assert int(values['memory (bytes)']) > 1_000_000
    assert int(values['working (positions)']) > 0
    assert float(values['total (ms)']) >= float(values['decode (ms)']) > 0
    assert 'image to publish, median (ms)' in values
    assert values['object 1'].split()[0] in ('NEW', 'TRACKED')
    assert {'received', 'tracked', 'dropped', 'invalid', 'lost before the node'} <= set(values)


def test_a_live_parameter_acts_on_the_next_frame(robot):
    robot.show_and_wait(SCENE[1][0], robot.labels)
    ids_now(robot)
    assert robot.objects[-1].objects[0].state == 1
    assert robot.set_parameter('min_area', HEIGHT * WIDTH).successful
    try:
        robot.show_and_wait(SCENE[2][0], robot.labels)
        ids_now(robot)
        assert robot.objects[-1].objects[0].state == 2  # occluded: the mask is smaller than that
    finally:
        assert robot.set_parameter('min_area', 16).successful


def test_objects_and_activations_can_change_while_images_arrive(robot):
    ended = threading.Event()

    def stream():
        index = 0
        while not ended.wait(1 / 30):
            robot.show(SCENE[index % 20][0])
            index += 1

    camera = threading.Thread(target=stream)
    camera.start()
    try:
        for _ in range(2):
            for _ in range(4):
                answer = robot.seed(mask_seed(TRUTH == 3))
                assert answer.success, answer.message
                robot.listen(Image, f'~/object_{answer.labels[0]}/mask')
                assert robot.remove(answer.ids[0]).success
            assert robot.change_state('deactivate')
            assert robot.change_state('activate')
            count = len(robot.labels)
            wait_until(lambda count=count: len(robot.labels) > count, 'labels after the activation')
    finally:
        ended.set()
        camera.join()
    last = robot.show_and_wait(FRAME, robot.labels)
    assert ids_now(robot) == [1, 2]
    assert iou(pixels_of(last) == 1, TRUTH == 1) > FOLLOWED
    values = robot.diagnostics(lambda values: values['waiting'] == '0', 'a quiet node')
    assert int(values['received']) == int(values['tracked']) + int(values['dropped'])
    assert 'Traceback' not in robot.process.output


def test_topics_of_objects_declare_no_parameters(robot):
    from rcl_interfaces.srv import ListParameters

    def names():
        return set(robot.call(ListParameters, '~/list_parameters', ListParameters.Request()).result.names)

    before = names()
    answer = robot.seed(box_seed(*bounding_box(TRUTH == 3, 3)))
    robot.wait_matched(f'~/object_{answer.labels[0]}/mask')
    assert names() == before
    assert any(name.startswith('qos_overrides.') and name.endswith('labels.publisher.depth') for name in before)


def test_queue_all_tracks_every_image_in_order():
    with robots.running({'size': SIZE, 'queue': 'all', 'queue_depth': 30, 'history': 40}) as robot:
        listen(robot)
        robot.show_and_wait(FRAME, robot.labels)
        assert robot.seed(mask_seed(TRUTH, kind=Seed.LABELS)).success
        robot.labels.clear()
        burst = [robot.show(SCENE[index][0]) for index in range(1, 21)]
        # The call may overtake the last image; then it is refused and repeated.
        answer = wait_until(
            lambda: (a := robot.seed(mask_seed(SCENE[20][1] == 3), stamp=burst[-1].header.stamp)).success and a,
            'the last image',
        )
        wait_until(lambda: len(robot.labels) == 20, '20 label images')
        assert [message.header for message in robot.labels] == [sent.header for sent in burst]
        # The seed waited for the turn of its image and started with it.
        assert answer.success, answer.message
        found = pixels_of(robot.labels[-1]) == answer.labels[0]
        assert iou(found, SCENE[20][1] == 3) > 0.95


def test_compressed_images_are_received_and_published_and_raw_ones_are_reported():
    # no node waits for a raw camera then
    parameters = {'size': SIZE, 'no_image_warning_after': 1.0, 'image_transport': 'compressed', 'autostart': False}
    with robots.running(parameters, arguments=['-r', 'image:=/cam/colour']) as robot:
        raw = robot.node.create_publisher(Image, '/cam/colour', 1)
        assert robot.change_state('configure')
        assert robot.change_state('activate')
        robot.process.says('/cam/colour is published: set image_transport to raw', 30)
        robot.node.destroy_publisher(raw)
        camera = robot.node.create_publisher(CompressedImage, '/cam/colour/compressed', 10)
        robot.labels = robot.listen(Image, '~/labels')
        small, drawn = (robot.listen(CompressedImage, f'~/{name}/compressed') for name in ('labels', 'overlay'))
        for name in ('labels/compressed', 'overlay/compressed', 'labels'):
            robot.wait_matched(f'~/{name}')
        wait_until(camera.get_subscription_count, 'the node')

        def show(index, kind='jpeg'):
            sent = compressed_from_array(SCENE[index][0], kind, CompressedImage, 95)
            sent.header.stamp.sec, sent.header.frame_id = index + 1, 'colour'
            camera.publish(sent)
            wait_until(lambda: all(heard and heard[-1].header == sent.header for heard in heard_all), 'all of it')
            return sent

        heard_all = (robot.labels, small, drawn)
        first = show(0)
        assert robot.seed(mask_seed(TRUTH, kind=Seed.LABELS), stamp=first.header.stamp).success
        for index in range(1, 6):
            show(index, 'png' if index % 2 else 'jpeg')
            labels = pixels_of(robot.labels[-1])
            assert np.array_equal(rgb_of(small[-1])[..., 0], labels)
            assert all(iou(labels == value, SCENE[index][1] == value) > 0.8 for value in (1, 2, 3))
        assert small[-1].format == 'mono8; png compressed mono8'
        assert rgb_of(drawn[-1]).shape == FRAME.shape
        camera.publish(CompressedImage(header=first.header, format='jpeg', data=[1, 2, 3]))
        robot.process.says('or not JPEG or PNG')
        show(6)


def test_a_best_effort_camera_that_starts_after_the_node_is_received():
    with robots.running({'size': SIZE, 'no_image_warning_after': 2.0}, camera=robots.CAMERA) as robot:
        # The node subscribed first, without a publisher.
        robot.process.says('no image on', 30)
        listen(robot)
        wait_until(lambda: robot.show(FRAME) and robot.labels, 'labels of a best-effort image', 30)


def test_missing_images_and_incompatible_qos_are_reported():
    topic = '/silent/image'
    arguments = ['-r', f'image:={topic}', '-p', f'qos_overrides.{topic}.subscription.reliability:=reliable']
    with robots.running({'size': SIZE, 'no_image_warning_after': 1.0, 'autostart': False}, arguments) as robot:
        offer = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)
        camera = robot.node.create_publisher(Image, topic, offer)
        assert robot.change_state('configure')
        assert robot.change_state('activate')
        robot.process.says(f'no image on {topic} for')
        robot.process.says('/robot offers sensor_msgs/msg/Image with BEST_EFFORT, VOLATILE')
        robot.process.says('requested QoS RELIABLE, VOLATILE')
        values = robot.diagnostics(lambda values: values['message'].startswith('no image on'), 'silence')
        assert values['received'] == '0'
        robot.node.destroy_publisher(camera)


def test_publish_per_object_false_leaves_only_the_common_topics():
    with robots.running({'size': SIZE, 'publish_per_object': False, 'use_sim_time': True}) as robot:
        listen(robot)
        robot.show_and_wait(FRAME, robot.labels)
        assert robot.seed(mask_seed(TRUTH == 1)).success
        robot.show_and_wait(SCENE[1][0], robot.labels)
        assert ids_now(robot) == [1]
        assert robot.node.count_publishers(f'{robot.prefix}/object_1/mask') == 0
        # Diagnostics are published although no clock is.
        robot.diagnostics(lambda values: values['tracked'] == '2', 'two frames')
