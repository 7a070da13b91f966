# SPDX-License-Identifier: MIT
"""Cut an object out of a depth camera's point cloud, for a grasp planner.

    python3 crop_cloud.py --id 1 --ros-args -r points:=/camera/depth_registered/points

`points` is an organised cloud (sensor_msgs/PointCloud2) with a point for every pixel of the tracked image, and with its
stamps, as depth_image_proc makes it. `object_points` gets those inside the object's mask, whatever fields they have.
"""

import argparse
import sys
from collections import OrderedDict

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image, PointCloud2

from xmem_ros.conversions.images import mask_from_image, stamp_ns

KEPT = 30  # clouds and masks whose other half has not come yet


def crop(cloud: PointCloud2, mask: np.ndarray) -> PointCloud2:
    """Return the points of an organised cloud that lie inside a mask, H×W bool, in one row.

    Raises:
        ValueError: the cloud has another size than the mask, or fewer data than it says.
    """
    size = (cloud.height, cloud.width)
    if size != mask.shape:
        raise ValueError(
            f'the cloud is {size[1]}×{size[0]} and the mask {mask.shape[1]}×{mask.shape[0]}: register them'
        )
    rows = np.frombuffer(cloud.data, np.uint8).reshape(cloud.height, cloud.row_step)
    points = rows[:, : cloud.width * cloud.point_step].reshape(*size, cloud.point_step)[mask]
    cut = PointCloud2(header=cloud.header, height=1, width=len(points), fields=cloud.fields)
    cut.is_bigendian, cut.is_dense, cut.point_step = cloud.is_bigendian, cloud.is_dense, cloud.point_step
    cut.row_step = points.size
    cut.data.frombytes(points.tobytes())
    return cut


class CropCloud(Node):
    """Brings clouds and masks together by their stamps."""

    def __init__(self, tracker: str, object_id: int) -> None:
        super().__init__('crop_cloud')
        self._waiting: OrderedDict[int, dict[type, Image | PointCloud2]] = OrderedDict()
        self._publisher = self.create_publisher(PointCloud2, 'object_points', 10)
        self.create_subscription(Image, f'{tracker}/object_{object_id}/mask', self._take, 10)
        self.create_subscription(PointCloud2, 'points', self._take, qos_profile_sensor_data)

    def _take(self, message: Image | PointCloud2) -> None:
        stamp = stamp_ns(message.header.stamp)
        both = self._waiting.setdefault(stamp, {})
        both[type(message)] = message
        if len(both) == 2:
            del self._waiting[stamp]
            try:
                self._publisher.publish(crop(both[PointCloud2], mask_from_image(both[Image]) > 0))
            except ValueError as error:
                self.get_logger().warning(str(error), throttle_duration_sec=5.0)
        while len(self._waiting) > KEPT:
            self._waiting.popitem(last=False)


def main() -> int:
    """Run until interrupted; returns the exit code."""
    parser = argparse.ArgumentParser(description='Cut a tracked object out of an organised point cloud.')
    parser.add_argument('--node', default='/xmem', help='the tracker (default: %(default)s)')
    parser.add_argument('--id', type=int, required=True, help='of the object')
    args = parser.parse_args(remove_ros_args(sys.argv)[1:])
    rclpy.init()
    try:
        rclpy.spin(CropCloud(args.node, args.id))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
