# SPDX-License-Identifier: MIT
"""Topics of a bag: which are images, which are outputs of a tracker, and which images are meant by default.

Imports neither rclpy nor rosbags.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from xmem_ros.errors import listed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
COMPANIONS = (*IMAGE_TYPES, 'sensor_msgs/msg/CameraInfo')
OUR_TYPES = 'xmem_ros/msg/'
DEFAULT = '/xmem/'
OUTPUTS = (  # of a node, below its name
    *('labels', 'labels/compressed', 'objects', 'seeds', 'overlay', 'overlay/compressed'),
    *('detections', 'detections_3d', 'label_info'),
)
UNSURE = ('detections', 'detections_3d', 'label_info', 'transition_event')  # names that other nodes' topics have, too
OUTPUT = 'a recorded output of the tracker'
OF_THE_RECORDING = {
    '/rosout': 'log of the recorded run',
    '/parameter_events': 'of the recorded run',
    '/diagnostics': 'of the recorded run',
    '/events/write_split': 'of the recorder',
}
OBJECTS_TYPE = 'xmem_ros/msg/TrackedObjectArray'
_TOPIC = re.compile('(/[A-Za-z_][A-Za-z0-9_]*)+')
_LONGEST = 247  # characters of a topic; the middleware has 255, of which ROS takes some
_OF_AN_OBJECT = re.compile(r'object_\d+/(mask|box)')
_OURS = re.compile(r'/(labels|mask|overlay)(/compressed)?$')  # how topics end that the node publishes itself
# whole parts of a name: /camera/aligned_depth_to_color/image_raw, and not /depthai/rgb/image_raw
_NOT_COLOUR = re.compile(r'(?:^|[/_])(depth|disparity|compressedDepth)\d*(?=[/_]|$)')


def is_ros_topic(name: str) -> bool:
    """Whether ROS allows a topic of that full name; bags may hold any text."""
    return len(name) <= _LONGEST and _TOPIC.fullmatch(name) is not None


def recorded_outputs(topics: Mapping[str, str], node: str) -> dict[str, str]:
    """Topics of a bag that a tracker published when it was recorded, and how that is known.

    They are all that lies below the node's name, or below the name that a node has by default; what has a type of ours;
    and, beside recorded objects, what else has the name of an output, if that is more than the name of a detector's.
    An `objects` topic makes nothing of its namespace: it may have been remapped among the topics of a camera.

    Args:
        topics: name → type.
        node: full name.
    """
    found = {}
    spaces = {name.rpartition('/')[0] for name, kind in topics.items() if kind == OBJECTS_TYPE}
    named = {name: space for space in spaces for name in topics if _output(name, space)}
    sure = {space for name, space in named.items() if _output(name, space) not in ('objects', *UNSURE)}
    for name, kind in topics.items():
        before, default, _ = name.partition(DEFAULT)
        if name.startswith(f'{node}/') or default:
            found[name] = f'{OUTPUT} (all below {before + default if default else node} is)'
        elif kind.startswith(OUR_TYPES):
            found[name] = f'{OUTPUT} (its type is {kind})'
        elif named.get(name) in sure:
            found[name] = f'{OUTPUT} (it lies beside {named[name]}/objects)'
    return found


def _output(name: str, space: str) -> str:
    """Which output of a node of this full name a topic is; '' for none."""
    below = name[len(space) + 1 :] if name.startswith(f'{space}/') else ''
    return below if below in (*OUTPUTS, 'transition_event') or _OF_AN_OBJECT.fullmatch(below) else ''


def meant(topics: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """The topics of images that may be tracked, and of the others why they are meant only where they are named.

    topics: names of those that have images.
    """
    topics = list(topics)
    left_out = {topic: reason for topic in topics if (reason := _why_not(topic))}
    return [topic for topic in topics if topic not in left_out], left_out


def told(left_out: dict[str, str], option: str) -> str:
    """For an error: what was left out, and how to name it; '' where nothing was.

    option: that names a topic, up to the topic.
    """
    if not left_out:
        return ''
    topics = listed([f'{topic} ({reason})' for topic, reason in left_out.items()], 30)
    return f'not taken unless it is named: {topics}; if it is meant: {option}{next(iter(left_out))}'


def _why_not(topic: str) -> str:
    if _OURS.search(topic):
        return 'as a tracker publishes'
    found = _NOT_COLOUR.search(topic)
    return found.group(1) if found else ''
