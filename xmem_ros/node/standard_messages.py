# SPDX-License-Identifier: MIT
"""What is tracked as vision_msgs, which other nodes know. Where vision_msgs is not installed, it is left out."""

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
        Point2D,  # noqa: F401 # new in version 4, whose boxes are laid out in another way than before
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
"""What cannot be published, and what to do; empty where everything can."""
if not AVAILABLE:
    MISSING = (
        'vision_msgs 4 or later is not installed: ~/detections, ~/label_info, ~/detections_3d and ~/seed_detections '
        f'are off (apt install ros-{os.environ.get("ROS_DISTRO") or "<distribution>"}-vision-msgs, or build it from '
        'source)'
    )
elif LabelInfo is None:
    MISSING = 'this vision_msgs has no LabelInfo: ~/label_info is off (version 4.1 or later has it)'


_said = False


def say_missing(node: Node) -> None:
    """Log what is missing, if anything; once in a process, whose nodes all miss the same."""
    global _said
    if MISSING and not _said:
        node.get_logger().info(MISSING)
        _said = True


class StandardMessages:
    """Publishes `~/detections` and `~/label_info`.

    Arguments:
        node: that publishes.
        threshold: gives the score below which an object does not count as seen.
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
        self._header = Header()  # of the image that was tracked last
        self._told: Any = None
        self.set_objects([])

    def publish(self, header: Any, result: StepResult) -> None:
        """What one image shows."""
        self._header = header
        self.set_objects(result.objects)
        if self._detections.get_subscription_count():
            self._detections.publish(detections_message(header, result.objects))

    def set_objects(self, objects: Sequence[TrackedObject]) -> None:
        """These are the objects that there are now."""
        if self._info is None:
            return
        # a label that another object has now is another class, though it may be called the same
        told = ([(item.label, item.id, class_of(item)) for item in objects], self._threshold())
        if told == self._told:
            return
        self._told = told
        classes = [VisionClass(class_id=item.label, class_name=class_of(item)) for item in objects]
        self._info.publish(LabelInfo(header=self._header, class_map=classes, threshold=told[1]))

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in (self._detections, self._info):
            if publisher is not None:
                self._node.destroy_publisher(publisher)


def class_of(item: TrackedObject) -> str:
    """The object's name; the pixel value of one that has none."""
    return item.name or str(item.label)


def detections_message(header: Any, objects: Sequence[TrackedObject]) -> Any:
    """vision_msgs/Detection2DArray of the objects that have a box."""
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
    """vision_msgs/ObjectHypothesisWithPose without a pose."""
    found = ObjectHypothesisWithPose()
    found.hypothesis.class_id, found.hypothesis.score = class_of(item), float(item.score)
    return found
