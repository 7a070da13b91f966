# SPDX-License-Identifier: MIT
"""The real node's topics in vision_msgs, over real DDS."""

import os

import cv2
import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg')

import node_harness as robots
from node_harness import ANSWER_S, NodeProcess, Robot, mask_seed, pixels_of, wait_until
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from scene_files import rendered_scene
from sensor_msgs.msg import CameraInfo, Image

from xmem_ros.conversions.images import image_from_array
from xmem_ros.msg import TrackedObjectArray

SCENE = rendered_scene()
FRAME, TRUTH = SCENE[0]
HEIGHT, WIDTH = TRUTH.shape
FOCAL = 400.0
BACKGROUND, NEAR = 3.0, {1: 0.8, 2: 1.2, 3: 1.6}  # m, of each object
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def depth_of(labels: np.ndarray) -> np.ndarray:
    """Build a depth image, H×W float32 [m]."""
    depth = np.full(labels.shape, BACKGROUND, np.float32)
    for label, distance in NEAR.items():
        depth[labels == label] = distance
    return depth


class DepthCamera:
    """Publisher of depth images beside the robot's images."""

    def __init__(self, robot) -> None:
        self._images = robot.node.create_publisher(Image, f'{robot.namespace}/depth/image', robots.RELIABLE)
        self._infos = robot.node.create_publisher(CameraInfo, f'{robot.namespace}/depth/camera_info', robots.RELIABLE)
        wait_until(lambda: self._images.get_subscription_count() and self._infos.get_subscription_count(), 'the node')

    def tell(self, size=(HEIGHT, WIDTH), frame_id='camera_optical') -> None:
        info = CameraInfo(height=size[0], width=size[1])
        info.header.frame_id = frame_id
        scale = size[1] / WIDTH
        info.k = [FOCAL * scale, 0.0, size[1] / 2, 0.0, FOCAL * scale, size[0] / 2, 0.0, 0.0, 1.0]
        self._infos.publish(info)

    def show(self, depth: np.ndarray, header, frame_id='') -> None:
        """Publish depth, uint16 [mm] or float32 [m]."""
        message = image_from_array(depth.view(np.uint8), 'mono8', Image)
        message.encoding = '16UC1' if depth.dtype == np.uint16 else '32FC1'
        message.height, message.width = depth.shape
        message.header.stamp, message.header.frame_id = header.stamp, frame_id or header.frame_id
        self._images.publish(message)


@pytest.fixture(scope='module')
def running():
    messages = pytest.importorskip('vision_msgs.msg', reason='vision_msgs is not installed')
    with robots.running({'depth.enabled': True, 'diagnostics_period': 0.3}) as robot:
        robot.labels = robot.listen(Image, '~/labels')
        robot.objects = robot.listen(TrackedObjectArray, '~/objects')
        robot.detections = robot.listen(messages.Detection2DArray, '~/detections')
        robot.places = robot.listen(messages.Detection3DArray, '~/detections_3d')
        robot.infos = robot.listen(messages.LabelInfo, '~/label_info', LATCHED)
        robot.depth = DepthCamera(robot)
        for topic in ('~/objects', '~/detections', '~/detections_3d', '~/label_info'):
            robot.wait_matched(topic)
        yield robot


@pytest.fixture
def robot(running):
    """The node without objects after one frame, and a calibrated depth camera."""
    assert running.reset().success
    running.depth.tell()
    running.show_and_wait(FRAME, running.labels)
    return running


def track(robot, index: int):
    """Show a frame; return its objects and detections."""
    sent = robot.show_and_wait(SCENE[index][0], robot.labels)
    for heard in (robot.objects, robot.detections):
        wait_until(lambda heard=heard: heard and heard[-1].header == sent.header, 'what was tracked')
    return robot.objects[-1].objects, robot.detections[-1].detections


def classes(robot) -> dict[int, str]:
    return {item.class_id: item.class_name for item in robot.infos[-1].class_map}


def test_detections_are_the_visible_objects_with_their_boxes(robot):
    assert track(robot, 0) == ([], [])
    assert robot.seed(mask_seed(TRUTH == 1, 'cup'), mask_seed(TRUTH == 2)).success
    objects, detections = track(robot, 1)
    assert [item.id for item in detections] == ['1', '2']
    for item, detection in zip(objects, detections, strict=True):
        box = detection.bbox
        assert detection.header == robot.labels[-1].header
        assert box.center.position.x - box.size_x / 2 == item.box.x_offset
        assert box.center.position.y - box.size_y / 2 == item.box.y_offset
        assert (box.size_x, box.size_y) == (item.box.width, item.box.height)
        assert [found.hypothesis.score for found in detection.results] == [pytest.approx(item.score)]
    assert [item.results[0].hypothesis.class_id for item in detections] == ['cup', str(objects[1].label)]
    blank = np.full_like(FRAME, 127)
    for _ in range(3):  # nothing is visible
        robot.show_and_wait(blank, robot.labels)
        wait_until(lambda: robot.detections[-1].header == robot.labels[-1].header, 'detections of a blank image')
    assert robot.detections[-1].detections == []
    assert [item.id for item in robot.objects[-1].objects] == [1, 2]


def test_label_info_maps_pixel_values_to_objects_and_reaches_late_subscribers(robot):
    wait_until(lambda: robot.infos and classes(robot) == {}, 'no classes')
    answer = robot.seed(mask_seed(TRUTH == 1, 'cup'), mask_seed(TRUTH == 2))
    wait_until(lambda: classes(robot) == {1: 'cup', 2: '2'}, 'two classes')
    assert robot.infos[-1].threshold == pytest.approx(0.6)
    late = []
    kind, topic = type(robot.infos[-1]), f'{robot.prefix}/label_info'
    subscription = robot.node.create_subscription(kind, topic, late.append, LATCHED)
    wait_until(lambda: late, 'the latched message')
    assert late[0] == robot.infos[-1]
    robot.node.destroy_subscription(subscription)
    assert robot.seed(mask_seed(TRUTH == 2, 'bowl', object_id=answer.ids[1])).success
    track(robot, 1)
    wait_until(lambda: classes(robot) == {1: 'cup', 2: 'bowl'}, 'the new name')
    told = len(robot.infos)
    track(robot, 2)
    assert robot.remove(1).success
    wait_until(lambda: classes(robot) == {2: 'bowl'}, 'one class')
    assert len(robot.infos) == told + 1  # only when something changes
    assert robot.infos[-1].header == robot.labels[-1].header


def placed(robot, index: int, depth, *, first: bool = True):
    """Show a frame with depth, before or after it is tracked; return its 3D detections."""
    if not first:
        labels = robot.show_and_wait(SCENE[index][0], robot.labels)
        robot.depth.show(depth, labels.header)
    else:
        sent = robot.show(SCENE[index][0])
        robot.depth.show(depth, sent.header)
        wait_until(lambda: robot.labels[-1].header == sent.header, 'labels')
        labels = robot.labels[-1]
    found = wait_until(
        lambda: robot.places and robot.places[-1].header.stamp == labels.header.stamp and robot.places[-1], 'places'
    )
    return found, pixels_of(labels)


@pytest.mark.parametrize('first', [True, False])
@pytest.mark.parametrize('millimetres', [True, False])
def test_objects_are_located_whether_depth_or_masks_come_first(robot, first, millimetres):
    assert robot.seed(mask_seed(TRUTH == 1, 'cup'), mask_seed(TRUTH == 2), mask_seed(TRUTH == 3)).success
    depth = depth_of(SCENE[1][1])
    depth[np.random.default_rng(0).random(depth.shape) < 0.3] = 0 if millimetres else np.nan
    found, labels = placed(robot, 1, (depth * 1000).astype(np.uint16) if millimetres else depth, first=first)
    assert found.header.frame_id == 'camera_optical'
    assert [(item.id, item.results[0].hypothesis.class_id) for item in found.detections] == [
        ('1', 'cup'),
        ('2', '2'),
        ('3', '3'),
    ]
    for label, item in enumerate(found.detections, 1):
        ys, xs = np.nonzero((labels == label) & (SCENE[1][1] == label))
        position, box = item.results[0].pose.pose.position, item.bbox
        assert position.z == pytest.approx(NEAR[label], abs=2e-3)
        # a median and a mean of a lopsided mask differ by some px
        assert position.x == pytest.approx((xs.mean() - WIDTH / 2) / FOCAL * NEAR[label], abs=8 * NEAR[label] / FOCAL)
        assert position.y == pytest.approx((ys.mean() - HEIGHT / 2) / FOCAL * NEAR[label], abs=8 * NEAR[label] / FOCAL)
        assert box.center.position.z == pytest.approx(NEAR[label], abs=2e-3)
        assert box.size.x == pytest.approx((xs.max() - xs.min()) / FOCAL * NEAR[label], abs=16 * NEAR[label] / FOCAL)
        assert box.center.orientation.w == 1
        assert item.header == found.header


def test_an_object_without_depth_is_left_out_and_no_object_gives_an_empty_array(robot):
    found, _ = placed(robot, 0, depth_of(TRUTH))
    assert found.detections == []
    assert robot.seed(mask_seed(TRUTH == 1), mask_seed(TRUTH == 2)).success
    depth = depth_of(SCENE[1][1])
    x, y, width, height = robots.bounding_box(SCENE[1][1] == 1, 10)
    depth[y : y + height, x : x + width] = np.nan
    depth[SCENE[1][1] == 2] = NEAR[2]
    found, _ = placed(robot, 1, depth)
    assert [item.id for item in found.detections] == ['2']


def test_depth_of_half_the_size_and_a_near_stamp_is_used(robot):
    assert robot.seed(mask_seed(TRUTH == 3)).success
    robot.depth.tell((HEIGHT // 2, WIDTH // 2))
    try:
        half = cv2.resize(depth_of(SCENE[1][1]), (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_NEAREST)
        labels = robot.show_and_wait(SCENE[1][0], robot.labels)
        header = type(labels.header)(frame_id=labels.header.frame_id, stamp=labels.header.stamp)
        late = type(header.stamp)(sec=header.stamp.sec, nanosec=header.stamp.nanosec)
        nanoseconds = late.sec * 1_000_000_000 + late.nanosec + 15_000_000  # depth.slop is 20 ms
        late.sec, late.nanosec = divmod(nanoseconds, 1_000_000_000)
        robot.depth.show(half, type(header)(frame_id=header.frame_id, stamp=late))
        wait_until(lambda: robot.places and robot.places[-1].header.stamp == header.stamp, 'places')
        (item,) = robot.places[-1].detections
        assert item.results[0].pose.pose.position.z == pytest.approx(NEAR[3], abs=1e-3)
    finally:
        robot.depth.tell()


@pytest.mark.parametrize(
    ('depth', 'frame_id', 'says'),
    [
        (
            np.ones((HEIGHT, HEIGHT), np.float32),
            '',
            'their aspect ratios must be the same; align depth to the colour image',
        ),
        (np.ones((HEIGHT, WIDTH), np.float32), 'other_lens', "has the frame_id 'other_lens' and the image"),
    ],
)
def test_unaligned_depth_is_refused_in_the_log_and_tracking_continues(robot, depth, frame_id, says):
    assert robot.seed(mask_seed(TRUTH == 1)).success
    heard = len(robot.places)
    for index in range(1, 400):  # the log says so once in five seconds
        labels = robot.show_and_wait(SCENE[index % 20][0], robot.labels)
        robot.depth.show(depth, labels.header, frame_id)
        if says in robot.process.output:
            break
    robot.process.says(says, 1)
    assert len(robot.places) == heard
    found, _ = placed(robot, 1, depth_of(SCENE[1][1]))
    assert len(found.detections) == 1


def test_camera_info_of_another_camera_is_refused_in_the_log(robot):
    assert robot.seed(mask_seed(TRUTH == 1)).success
    heard = len(robot.places)
    robot.depth.tell(frame_id='infrared')
    try:
        for index in range(1, 400):
            labels = robot.show_and_wait(SCENE[index % 20][0], robot.labels)
            robot.depth.show(np.ones((HEIGHT, WIDTH), np.float32), labels.header)
            if "has the frame_id 'infrared'" in robot.process.output:
                break
        robot.process.says("has the frame_id 'infrared'", 1)
        assert len(robot.places) == heard
    finally:
        robot.depth.tell()


def test_images_without_depth_are_counted_and_logged(robot):
    before = int(robot.diagnostics(lambda values: 'images without depth' in values, 'depth')['images without depth'])
    for index in range(12):
        robot.show_and_wait(SCENE[index][0], robot.labels)
    robot.diagnostics(lambda values: int(values['images without depth']) > before, 'images without depth')


def test_the_node_reports_missing_vision_msgs_once_and_tracks(tmp_path, monkeypatch):
    (tmp_path / 'vision_msgs.py').write_text("raise ImportError('not for this test')\n")
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')]))
    monkeypatch.setenv('ROS_DISTRO', 'iron')
    with robots.running({'depth.enabled': True, 'seed_detections.enabled': True}, process_of=NodeProcess) as robot:
        labels = robot.listen(Image, '~/labels')
        robot.wait_matched('~/labels')
        robot.process.says('vision_msgs 4 or later is not installed: ~/detections', ANSWER_S)
        assert 'apt install ros-iron-vision-msgs;' in robot.process.output
        robot.process.says('without vision_msgs, seed_detections.enabled cannot work')
        robot.show_and_wait(FRAME, labels)
        assert robot.seed(mask_seed(TRUTH == 1)).success
        robot.show_and_wait(SCENE[1][0], labels)
        topics = {name for name, _ in robot.node.get_topic_names_and_types()}
        assert f'{robot.prefix}/objects' in topics
        assert not topics & {f'{robot.prefix}/{name}' for name in ('detections', 'detections_3d', 'label_info')}
        assert f'{robot.prefix}/object_points' in topics  # needs no vision_msgs


def test_nodes_of_several_cameras_report_missing_vision_msgs_once(tmp_path, monkeypatch):
    (tmp_path / 'vision_msgs.py').write_text("raise ImportError('not for this test')\n")
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')]))
    monkeypatch.delenv('ROS_DISTRO', raising=False)
    process = NodeProcess({'autostart': False}, ['-r', '__ns:=/blind'], options=['--cameras', 'one', 'two'])
    robot = Robot('/blind/two')
    try:
        assert robot.state() == 'unconfigured'  # both nodes are there: the second is made last
        assert process.output.count('vision_msgs 4 or later is not installed') == 1
        assert 'apt install ros-<distribution>-vision-msgs;' in process.output
    finally:
        robot.close()
        process.close()
