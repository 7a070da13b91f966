# SPDX-License-Identifier: MIT
"""Tracked objects as vision_msgs, where vision_msgs is installed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from std_msgs.msg import Header

from xmem_ros.node import qos

try:
    from vision_msgs.msg import (
        Detection2D,
        Detection2DArray,
        ObjectHypothesisWithPose,
        Point2D,  # noqa: F401 # marks version 4, which changed the layout of boxes
    )
except ImportError:
    AVAILABLE = False
else:
    AVAILABLE = True
try:
    from vision_msgs.msg import LabelInfo, VisionClass
except ImportError:
    LabelInfo = None

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rclpy.node import Node

    from xmem_ros.tracker import StepResult, TrackedObject

MISSING = ''
"""Topics that cannot be published, and what to do; empty if all can."""
if not AVAILABLE:
    MISSING = (
        'vision_msgs 4 or later is not installed: ~/detections, ~/label_info, ~/detections_3d and ~/seed_detections '
        f'are off. If ROS 2 was installed by apt: apt install ros-{os.environ.get("ROS_DISTRO") or "<distribution>"}'
        '-vision-msgs; otherwise build vision_msgs from source, as it is not on PyPI'
    )
elif LabelInfo is None:
    MISSING = 'this vision_msgs has no LabelInfo: ~/label_info is off (version 4.1 or later has it)'


_missing_logged = False


def log_missing(node: Node) -> None:
    """Log `MISSING`, once in a process."""
    global _missing_logged
    if MISSING and not _missing_logged:
        node.get_logger().info(MISSING)
        _missing_logged = True


class StandardMessages:
    """Publishes `~/detections` and `~/label_info`.

    Arguments:
        node: the publishing node.
        threshold: returns the minimum score of a visible object.
    """

    def __init__(self, node: Node, threshold: Callable[[], float]) -> None:
        self._node, self._threshold = node, threshold
        overrides = qos.overridable()
        self._detections = node.create_publisher(
            Detection2DArray, '~/detections', qos.output(), qos_overriding_options=overrides
        )
        self._info = None
        if LabelInfo is not None:
            self._info = node.create_publisher(
                LabelInfo, '~/label_info', qos.latched(1), qos_overriding_options=overrides
            )
        self._header = Header()  # of the last tracked image
        self._published_classes: Any = None  # content of the last LabelInfo
        self.set_objects([])

    def publish(self, header: Any, result: StepResult) -> None:
        """Publish the result of a frame."""
        self._header = header
        self.set_objects(result.objects)
        if self._detections.get_subscription_count():
            self._detections.publish(detections_message(header, result.objects))

    def set_objects(self, objects: Sequence[TrackedObject]) -> None:
        """Publish a LabelInfo if the objects have changed."""
        if self._info is None:
            return
        # With the id: a label that belongs to another object now is published again.
        threshold = self._threshold()
        published = ([(item.label, item.id, class_of(item)) for item in objects], threshold)
        if published == self._published_classes:
            return
        self._published_classes = published
        classes = [VisionClass(class_id=item.label, class_name=class_of(item)) for item in objects]
        self._info.publish(LabelInfo(header=self._header, class_map=classes, threshold=threshold))

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in (self._detections, self._info):
            if publisher is not None:
                self._node.destroy_publisher(publisher)


def class_of(item: TrackedObject) -> str:
    """Return the object's name, or its label if it has none."""
    return item.name or str(item.label)


def detections_message(header: Any, objects: Sequence[TrackedObject]) -> Any:
    """Build a vision_msgs/Detection2DArray of the objects with a box."""
    message = Detection2DArray(header=header)
    for item in objects:
        if item.box is None:
            continue
        detection = Detection2D(header=header, id=str(item.id), results=[hypothesis(item)])
        x, y, width, height = item.box
        detection.bbox.center.position.x, detection.bbox.center.position.y = x + width / 2, y + height / 2
        detection.bbox.size_x, detection.bbox.size_y = float(width), float(height)
        message.detections.append(detection)
    return message


def hypothesis(item: TrackedObject) -> Any:
    """Build a vision_msgs/ObjectHypothesisWithPose without a pose."""
    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id, result.hypothesis.score = class_of(item), float(item.score)
    return result
