# SPDX-License-Identifier: MIT
"""Who is in the ROS graph, as far as a node sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.node import Node

_OBJECTS = 'xmem_ros/msg/TrackedObjectArray'
_IMAGES = {'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'}


def trackers(node: Node) -> list[str]:
    """Names of the trackers that are configured."""
    # by what nodes publish: among the services are also those that somebody, as a client, would like to call
    return sorted(
        name.rpartition('/')[0]
        for name, kinds in node.get_topic_names_and_types()
        if _OBJECTS in kinds and name.endswith('/objects') and node.count_publishers(name)
    )


def cameras(node: Node) -> list[str]:
    """Topics on which images are published, those of trackers left out."""
    ours = tuple(f'{name}/' for name in trackers(node))
    return sorted(
        name
        for name, kinds in node.get_topic_names_and_types()
        if _IMAGES.intersection(kinds) and not name.startswith(ours) and node.count_publishers(name)
    )
