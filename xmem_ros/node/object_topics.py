# SPDX-License-Identifier: MIT
"""Topics of single objects: a pool of publishers, one pair for each label.

They exist from configure to cleanup, so they can be remapped, permitted (SROS 2), recorded and
subscribed to before there is an object. Creating a publisher takes tens of milliseconds, which
would be taken from tracking if it were done when an object is seeded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sensor_msgs.msg import Image

from xmem_ros.conversions.images import image_from_array
from xmem_ros.msg import TrackedObject, TrackedObjectStamped
from xmem_ros.node import qos

try:
    from rclpy.event_handler import PublisherEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.publisher import Publisher


class ObjectTopics:
    """Publishes `~/object_<label>/mask` and `~/object_<label>/box` while somebody listens.

    Arguments:
        node: the publishing node.
        count: number of labels, from 1 on.
    """

    def __init__(self, node: Node, count: int) -> None:
        self._node = node
        self._of_label = {
            label: (
                self._make(Image, f'~/object_{label}/mask'),
                self._make(TrackedObjectStamped, f'~/object_{label}/box'),
            )
            for label in range(1, count + 1)
        }

    def publish(self, message: TrackedObject, labels: np.ndarray, header: Any) -> None:
        """Publish mask and box of an object; labels: H×W uint8 of the image."""
        if message.label not in self._of_label:
            return
        mask, box = self._of_label[message.label]
        if mask.get_subscription_count():
            pixels = np.where(labels == message.label, np.uint8(255), np.uint8(0))
            image = image_from_array(pixels, 'mono8', Image)
            image.header = header
            mask.publish(image)
        if box.get_subscription_count():
            box.publish(TrackedObjectStamped(header=header, object=message))

    def close(self) -> None:
        """Destroy the publishers."""
        for pair in self._of_label.values():
            for publisher in pair:
                self._node.destroy_publisher(publisher)
        self._of_label.clear()

    def _make(self, kind: type, topic: str) -> Publisher:
        """Create a publisher without QoS overrides and events.

        Overrides would declare three parameters for each topic; events burden the executor.
        """
        silent = PublisherEventCallbacks(use_default_callbacks=False)
        return self._node.create_publisher(kind, topic, qos.output(), event_callbacks=silent)
