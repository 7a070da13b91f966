# SPDX-License-Identifier: MIT
"""What a detector says, in messages of vision_msgs; needs them."""

from node_harness import bounding_box
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose


def detections(header, *boxes):
    """vision_msgs/Detection2DArray of boxes (x, y, width, height, class, score) of the image of a header."""
    message = Detection2DArray(header=header)
    for x, y, width, height, name, score in boxes:
        item = Detection2D(header=header, results=[ObjectHypothesisWithPose()])
        item.results[0].hypothesis.class_id, item.results[0].hypothesis.score = name, score
        item.bbox.center.position.x, item.bbox.center.position.y = x + width / 2, y + height / 2
        item.bbox.size_x, item.bbox.size_y = float(width), float(height)
        message.detections.append(item)
    return message


def box_of(scene, value, name, score=0.9, index=0):
    """One of these boxes, around an object of a rendered scene in one of its frames."""
    return (*bounding_box(scene[index][1] == value, 4), name, score)
