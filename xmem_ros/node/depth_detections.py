# SPDX-License-Identifier: MIT
"""`~/detections_3d`: tracked objects located in space. Needs vision_msgs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vision_msgs.msg import Detection3D, Detection3DArray

from xmem_ros.node import diagnostic_keys as keys
from xmem_ros.node import qos
from xmem_ros.node.placed_objects import placed_objects
from xmem_ros.node.standard_messages import hypothesis

if TYPE_CHECKING:
    from rclpy.node import Node

    from xmem_ros.node.depth_source import Measurement
    from xmem_ros.node.placed_objects import PlacedObject


class DepthDetections:
    """Publishes `~/detections_3d`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._published = 0
        self._publisher = node.create_publisher(
            Detection3DArray, '~/detections_3d', qos.output(), qos_overriding_options=qos.overridable()
        )

    @property
    def wanted(self) -> bool:
        """Whether anybody listens."""
        return self._publisher.get_subscription_count() > 0

    def publish(self, measurement: Measurement) -> None:
        """Publish the visible objects that have depth."""
        message = Detection3DArray(header=measurement.header)
        message.detections = [_detection(measurement.header, item) for item in placed_objects(measurement)]
        self._publisher.publish(message)
        self._published += 1

    def close(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_publisher(self._publisher)

    def diagnostics(self) -> dict[str, str]:
        """Return key → value of the node's status."""
        return {keys.DETECTIONS_3D: str(self._published)}


def _detection(header: Any, item: PlacedObject) -> Any:
    detection = Detection3D(header=header, id=str(item.object.id), results=[hypothesis(item.object)])
    position, box = detection.results[0].pose.pose.position, detection.bbox
    position.x, position.y, position.z = item.position
    centre, size, turned = box.center.position, box.size, box.center.orientation
    centre.x, centre.y, centre.z = item.centre
    size.x, size.y, size.z = item.size
    turned.x, turned.y, turned.z, turned.w = item.orientation
    return detection
