# SPDX-License-Identifier: MIT
"""A robot's depth camera that films the rendered RGB-D scene."""

from __future__ import annotations

import numpy as np
import rgbd_scene as scene
from node_harness import RELIABLE, wait_until
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from xmem_ros.conversions.images import image_from_array
from xmem_ros.conversions.point_clouds import points_of


class DepthCamera:
    """Publisher of images, depth images and calibration."""

    def __init__(self, robot) -> None:
        self._robot = robot
        self._images = robot.node.create_publisher(Image, f'{robot.namespace}/depth/image', RELIABLE)
        self._infos = robot.node.create_publisher(CameraInfo, f'{robot.namespace}/depth/camera_info', RELIABLE)
        wait_until(lambda: self._images.get_subscription_count() and self._infos.get_subscription_count(), 'the node')

    def show(self, index: int | None, labels: list[Image]) -> Image:
        """Publish a frame, None for an empty grey one; return its label image from `labels`."""
        view = scene.view(index or 0)
        info = CameraInfo(height=scene.SIZE[0], width=scene.SIZE[1])
        info.header.frame_id = 'camera_optical'
        info.k = [scene.FOCAL, 0.0, scene.CX, 0.0, scene.FOCAL, scene.CY, 0.0, 0.0, 1.0]
        self._infos.publish(info)
        sent = self._robot.show(np.full_like(view.image, 130) if index is None else view.image, 'mono8')
        depth = image_from_array(view.depth, '16UC1', Image)
        depth.header = sent.header
        self._images.publish(depth)
        wait_until(lambda: labels and labels[-1].header == sent.header, 'labels')
        return labels[-1]


def points(cloud: PointCloud2) -> np.ndarray:
    """Return the points of a cloud, N×3."""
    fields = points_of(cloud)
    return np.stack([fields['x'], fields['y'], fields['z']], axis=1).astype(float)
