# SPDX-License-Identifier: MIT
"""Crop an object from a depth camera's point cloud, for a grasp planner.

    python3 crop_cloud.py --label 1 --ros-args -r points:=/camera/depth_registered/points

`points` is an organised cloud (sensor_msgs/PointCloud2) with one point per pixel of the tracked
image and with its stamp, as depth_image_proc makes it. The points inside the object's mask are
published on `object_points`, with all their fields.
"""

import argparse
import sys
from collections import OrderedDict

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image, PointCloud2

from xmem_ros.conversions.images import mask_from_image, stamp_ns

KEPT = 30  # clouds and masks that wait for each other
# Best effort would lose most clouds, which are large. Humble does not have BEST_AVAILABLE.
CLOUD_QOS = QoSProfile(depth=5, reliability=getattr(ReliabilityPolicy, 'BEST_AVAILABLE', ReliabilityPolicy.BEST_EFFORT))


def crop(cloud: PointCloud2, mask: np.ndarray) -> PointCloud2:
    """Return the points of an organised cloud inside a mask, H×W bool, as one row.

    Raises:
        ValueError: cloud and mask differ in size, or the cloud's data are incomplete.
    """
    size = (cloud.height, cloud.width)
    if size != mask.shape:
        raise ValueError(
            f'the cloud is {size[1]}×{size[0]} and the mask {mask.shape[1]}×{mask.shape[0]}: use a registered cloud'
        )
    rows = np.frombuffer(cloud.data, np.uint8).reshape(cloud.height, cloud.row_step)
    points = rows[:, : cloud.width * cloud.point_step].reshape(*size, cloud.point_step)[mask]
    cut = PointCloud2(header=cloud.header, height=1, width=len(points), fields=cloud.fields)
    cut.is_bigendian, cut.is_dense, cut.point_step = cloud.is_bigendian, cloud.is_dense, cloud.point_step
    cut.row_step = points.size
    cut.data.frombytes(points.tobytes())
    return cut


class CropCloud(Node):
    """Pairs clouds and masks by their stamps."""

    def __init__(self, tracker: str, label: int) -> None:
        super().__init__('crop_cloud')
        self._waiting: OrderedDict[int, dict[type, Image | PointCloud2]] = OrderedDict()
        self._publisher = self.create_publisher(PointCloud2, 'object_points', 10)
        self.create_subscription(Image, f'{tracker}/object_{label}/mask', self._receive, 10)
        self.create_subscription(PointCloud2, 'points', self._receive, CLOUD_QOS)

    def _receive(self, message: Image | PointCloud2) -> None:
        stamp = stamp_ns(message.header.stamp)
        pair = self._waiting.setdefault(stamp, {})
        pair[type(message)] = message
        if len(pair) == 2:
            del self._waiting[stamp]
            try:
                self._publisher.publish(crop(pair[PointCloud2], mask_from_image(pair[Image]) > 0))
            except ValueError as error:
                self.get_logger().warning(str(error), throttle_duration_sec=5.0)
        while len(self._waiting) > KEPT:
            self._waiting.popitem(last=False)


def main() -> int:
    """Run until interrupted; returns the exit code."""
    parser = argparse.ArgumentParser(description='Crop a tracked object from an organised point cloud.')
    parser.add_argument('--node', default='/xmem', help='name of the tracker (default: %(default)s)')
    parser.add_argument('--label', type=int, required=True, help="the object's pixel value in ~/labels")
    args = parser.parse_args(remove_ros_args(sys.argv)[1:])
    rclpy.init()
    try:
        rclpy.spin(CropCloud(args.node, args.label))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
