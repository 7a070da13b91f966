# SPDX-License-Identifier: MIT
"""Detections as vision_msgs messages."""

from node_harness import bounding_box
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose


def detections(header, *boxes):
    """Make a vision_msgs/Detection2DArray of boxes (x, y, width, height, class, score)."""
    message = Detection2DArray(header=header)
    for x, y, width, height, name, score in boxes:
        item = Detection2D(header=header, results=[ObjectHypothesisWithPose()])
        item.results[0].hypothesis.class_id, item.results[0].hypothesis.score = name, score
        item.bbox.center.position.x, item.bbox.center.position.y = x + width / 2, y + height / 2
        item.bbox.size_x, item.bbox.size_y = float(width), float(height)
        message.detections.append(item)
    return message


def box_of(scene, value, name, score=0.9, index=0):
    """Return a box for `detections` around an object of the rendered scene in a frame."""
    return (*bounding_box(scene[index][1] == value, 4), name, score)
