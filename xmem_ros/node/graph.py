# SPDX-License-Identifier: MIT
"""Trackers and cameras in the ROS graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.node import Node

_OBJECTS = 'xmem_ros/msg/TrackedObjectArray'
_IMAGES = {'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'}


def trackers(node: Node) -> list[str]:
    """Return the full names of the configured trackers."""
    # Found by their topics: the graph lists services of clients that wait for a server, too.
    return sorted(
        name.rpartition('/')[0]
        for name, kinds in node.get_topic_names_and_types()
        if _OBJECTS in kinds and name.endswith('/objects') and node.count_publishers(name)
    )


def cameras(node: Node) -> list[str]:
    """Return the topics with published images, except those of trackers."""
    outputs = tuple(f'{name}/' for name in trackers(node))
    return sorted(
        name
        for name, kinds in node.get_topic_names_and_types()
        if _IMAGES.intersection(kinds) and not name.startswith(outputs) and node.count_publishers(name)
    )
