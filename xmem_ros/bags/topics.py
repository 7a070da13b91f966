# SPDX-License-Identifier: MIT
"""Which of a bag's topics are images, and which are what a tracker said when it was recorded. No rclpy, no rosbags."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
COMPANIONS = (*IMAGE_TYPES, 'sensor_msgs/msg/CameraInfo')
OUR_TYPES = 'xmem_ros/msg/'
DEFAULT = '/xmem/'
OBJECTS_TYPE = 'xmem_ros/msg/TrackedObjectArray'


def node_prefixes(topics: Mapping[str, str], node: str) -> list[str]:
    """Names below which recorded outputs of a tracker lie: of the node, and of those that were recorded.

    Those are told by their objects, and, where only masks were recorded, by the name that the node has by default.

    Args:
        topics: name → type.
        node: full name.
    """
    told = [name.rpartition('/')[0] for name, kind in topics.items() if kind == OBJECTS_TYPE]
    named = [f'{name.partition(DEFAULT)[0]}{DEFAULT}'.rstrip('/') for name in topics if DEFAULT in name]
    return sorted({f'{name}/' for name in (node, *told, *named) if name})
