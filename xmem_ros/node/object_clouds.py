# SPDX-License-Identifier: MIT
"""`~/object_points` and `~/background_points`: point clouds of the objects and of all the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField

from xmem_ros.conversions.point_clouds import CLOUD, FIELD, cloud_message
from xmem_ros.node import qos

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rclpy.node import Node

    from xmem_ros.node.depth_source import Measurement
    from xmem_ros.objects import TrackedObject
    from xmem_ros.parameters.table import Parameters

_TYPES = {CLOUD: PointCloud2, FIELD: PointField}


class ObjectClouds:
    """Publishes the clouds, each while it has a subscriber.

    Arguments:
        node: the publishing node.
        parameters: returns the current parameters.
    """

    def __init__(self, node: Node, parameters: Callable[[], Parameters]) -> None:
        self._node, self._parameters = node, parameters
        self._objects, self._background = (
            node.create_publisher(PointCloud2, topic, qos.output(), qos_overriding_options=qos.overridable())
            for topic in ('~/object_points', '~/background_points')
        )

    @property
    def wanted(self) -> bool:
        """Whether anybody listens."""
        return any(publisher.get_subscription_count() for publisher in (self._objects, self._background))

    def publish(self, measurement: Measurement) -> None:
        """Publish the clouds of a frame; an empty one if there are no points."""
        depth = self._parameters().depth
        if self._objects.get_subscription_count():
            items = measurement.frame.objects
            self._objects.publish(object_cloud(measurement, items, depth.point_spacing, depth.rim))
        if self._background.get_subscription_count():
            points = measurement.frame.background_points(every=depth.point_spacing, rim=depth.rim)
            self._background.publish(cloud_message(measurement.header, measurement.transform.points(points), _make))

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in (self._objects, self._background):
            self._node.destroy_publisher(publisher)


def object_cloud(measurement: Measurement, items: Sequence[TrackedObject], every: int, rim: int) -> PointCloud2:
    """Build the cloud of some objects, with the fields x, y, z, label and id.

    Args:
        measurement: the frame.
        items: objects of the frame.
        every: as for `MeasuredFrame.object_points`.
        rim: as for `MeasuredFrame.object_points`.
    """
    parts = [measurement.frame.object_points(item, every=every, rim=rim) for item in items]
    points = np.concatenate(parts) if parts else np.zeros((0, 3), np.float32)
    counts = [len(part) for part in parts]
    fields = {
        name: np.repeat(np.array([getattr(item, name) for item in items], np.uint32), counts)
        for name in ('label', 'id')
    }
    return cloud_message(measurement.header, measurement.transform.points(points), _make, fields)


def _make(msgtype: str, **fields: Any) -> Any:
    return _TYPES[msgtype](**fields)
