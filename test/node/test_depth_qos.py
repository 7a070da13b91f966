# SPDX-License-Identifier: MIT
"""Large depth images of a reliable or a best-effort camera reach the node, over real DDS."""

from __future__ import annotations

import time

import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg')

import node_harness as robots
from geometry_msgs.msg import PoseArray
from node_harness import CAMERA, RELIABLE, wait_until
from rclpy.qos import ReliabilityPolicy
from scene_files import rendered_scene
from sensor_msgs.msg import CameraInfo, Image

from xmem_ros.conversions.images import image_from_array
from xmem_ros.node import qos

FRAME = rendered_scene()[0][0]
SIZE = (420, 756)  # of the depth images, 0.6 MB: more than the default of Fast DDS's shared memory holds
IMAGES = 60
PARAMETERS = {'depth.enabled': True, 'diagnostics_period': 0.3, 'no_image_warning_after': 2.0}

pytestmark = pytest.mark.skipif(qos.BEST_AVAILABLE is None, reason='this ROS 2 has no best-available QoS')


def depth_at(header) -> Image:
    message = image_from_array(np.full(SIZE, 2000, np.uint16), '16UC1', Image)
    message.header = header
    return message


def info() -> CameraInfo:
    message = CameraInfo(height=SIZE[0], width=SIZE[1])
    message.header.frame_id = 'camera_optical'
    message.k = [400.0, 0.0, SIZE[1] / 2, 0.0, 400.0, SIZE[0] / 2, 0.0, 0.0, 1.0]
    return message


def requested(robot, topic: str):
    """Return the reliability with which the node subscribes."""
    infos = robot.node.get_subscriptions_info_by_topic(f'{robot.namespace}/depth/{topic}')
    return infos[0].qos_profile.reliability if infos else None


def test_all_large_depth_images_of_a_reliable_camera_arrive():
    with robots.running({**PARAMETERS, 'queue': 'all', 'queue_depth': 2 * IMAGES}) as robot:
        cameras = [
            robot.node.create_publisher(kind, f'{robot.namespace}/depth/{name}', RELIABLE)
            for kind, name in ((Image, 'image'), (CameraInfo, 'camera_info'))
        ]
        poses = robot.listen(PoseArray, '~/poses')
        robot.wait_matched('~/poses')
        wait_until(lambda: all(camera.get_subscription_count() for camera in cameras), 'the node')
        cameras[1].publish(info())
        sent = []
        for _ in range(IMAGES):
            shown = robot.show(FRAME)
            cameras[0].publish(depth_at(shown.header))
            sent.append(shown.header.stamp)
            time.sleep(1 / 30)
        wait_until(lambda: len(poses) == IMAGES, f'{IMAGES} frames with depth, {len(poses)} so far')
        assert [message.header.stamp for message in poses] == sent


def test_a_camera_that_appears_later_and_is_best_effort_is_heard():
    with robots.running(PARAMETERS) as robot:
        wait_until(lambda: requested(robot, 'image') == ReliabilityPolicy.RELIABLE, 'a reliable subscription')
        cameras = [
            robot.node.create_publisher(kind, f'{robot.namespace}/depth/{name}', CAMERA)
            for kind, name in ((Image, 'image'), (CameraInfo, 'camera_info'))
        ]
        wait_until(lambda: all(camera.get_subscription_count() for camera in cameras), 'the node')
        assert requested(robot, 'image') == requested(robot, 'camera_info') == ReliabilityPolicy.BEST_EFFORT


def test_a_subscription_becomes_reliable_again_when_the_best_effort_camera_is_gone():
    with robots.running(PARAMETERS) as robot:
        topic = f'{robot.namespace}/depth/image'
        first = robot.node.create_publisher(Image, topic, CAMERA)
        wait_until(first.get_subscription_count, 'the node')
        robot.node.destroy_publisher(first)
        robot.node.create_publisher(Image, topic, RELIABLE)
        wait_until(lambda: requested(robot, 'image') == ReliabilityPolicy.RELIABLE, 'a reliable subscription')


def test_the_warning_about_missing_depth_names_the_publishers_and_qos():
    with robots.running(PARAMETERS) as robot:
        robot.node.create_publisher(Image, f'{robot.namespace}/depth/image', CAMERA)
        robot.listen(PoseArray, '~/poses')
        labels = robot.listen(Image, '~/labels')
        robot.wait_matched('~/labels')
        wait_until(lambda: requested(robot, 'image') == ReliabilityPolicy.BEST_EFFORT, 'a best-effort subscription')
        for _ in range(400):  # logged once in five seconds
            robot.show_and_wait(FRAME, labels)
            if 'has no depth' in robot.process.output:
                break
        robot.process.says(
            '/robot offers sensor_msgs/msg/Image with BEST_EFFORT, VOLATILE; requested QoS BEST_EFFORT, VOLATILE'
        )
