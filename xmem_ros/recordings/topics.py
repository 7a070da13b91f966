# SPDX-License-Identifier: MIT
"""Topics of a bag: images, recorded tracker outputs, and the default choice of images.

Imports neither rclpy nor rosbags.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from xmem_ros.errors import listed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
COMPANION_TYPES = (*IMAGE_TYPES, 'sensor_msgs/msg/CameraInfo')
PACKAGE_TYPES = 'xmem_ros/msg/'
DEFAULT_NAMESPACE = '/xmem/'
OUTPUTS = (  # topics of the tracker node, relative to its name
    *('labels', 'labels/compressed', 'objects', 'seeds', 'events', 'overlay', 'overlay/compressed'),
    *('detections', 'detections_3d', 'label_info'),
)
AMBIGUOUS_OUTPUTS = (
    'detections',
    'detections_3d',
    'label_info',
    'transition_event',
)  # names that other nodes use too
OUTPUT_REASON = 'a recorded output of the tracker'
RECORDER_TOPICS = {
    '/rosout': 'log of the recorded run',
    '/parameter_events': 'belongs to the recorded run',
    '/diagnostics': 'belongs to the recorded run',
    '/events/write_split': 'belongs to the recorder',
}
OBJECTS_TYPE = 'xmem_ros/msg/TrackedObjectArray'
_TOPIC = re.compile('(/[A-Za-z_][A-Za-z0-9_]*)+')
_MAX_TOPIC_LENGTH = 247  # the middleware's 255 characters less ROS prefixes
_OBJECT_OUTPUT = re.compile(r'object_\d+/(mask|box)')
_TRACKER_IMAGE = re.compile(r'/(labels|mask|overlay)(/compressed)?$')  # the node's own images
# whole words: /camera/aligned_depth_to_color/image_raw, but not /depthai/rgb/image_raw
_NOT_COLOUR = re.compile(r'(?:^|[/_])(depth|disparity|compressedDepth)\d*(?=[/_]|$)')


def is_ros_topic(name: str) -> bool:
    """Return whether a full topic name is valid in ROS; a bag may contain any text."""
    return len(name) <= _MAX_TOPIC_LENGTH and _TOPIC.fullmatch(name) is not None


def recorded_outputs(topics: Mapping[str, str], node: str) -> dict[str, str]:
    """Return the recorded outputs of a tracker in a bag: topic → reason.

    A topic is a tracker output if

    - it lies below the node's name or the default name,
    - its type belongs to this package, or
    - it has an output's name and lies beside recorded `objects`. Names that detectors use too
      do not count, nor does `objects` alone: it may be remapped into a camera's namespace.

    Args:
        topics: name → type.
        node: full name of the node.
    """
    found = {}
    spaces = {name.rpartition('/')[0] for name, kind in topics.items() if kind == OBJECTS_TYPE}
    named = {name: space for space in spaces for name in topics if _output(name, space)}
    sure = {space for name, space in named.items() if _output(name, space) not in ('objects', *AMBIGUOUS_OUTPUTS)}
    for name, kind in topics.items():
        before, default, _ = name.partition(DEFAULT_NAMESPACE)
        if name.startswith(f'{node}/') or default:
            found[name] = f'{OUTPUT_REASON} (it lies below {before + default if default else node})'
        elif kind.startswith(PACKAGE_TYPES):
            found[name] = f'{OUTPUT_REASON} (its type is {kind})'
        elif named.get(name) in sure:
            found[name] = f'{OUTPUT_REASON} (it lies beside {named[name]}/objects)'
    return found


def _output(name: str, space: str) -> str:
    """Return the name of a topic among the outputs of the node `space`; '' if it is none."""
    below = name[len(space) + 1 :] if name.startswith(f'{space}/') else ''
    return below if below in (*OUTPUTS, 'transition_event') or _OBJECT_OUTPUT.fullmatch(below) else ''


def default_image_topics(topics: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Return the image topics that may be chosen by default, and the others → reason.

    topics: names of image topics with messages.
    """
    topics = list(topics)
    excluded = {topic: reason for topic in topics if (reason := _exclusion_reason(topic))}
    return [topic for topic in topics if topic not in excluded], excluded


def describe_excluded(excluded: dict[str, str], option: str) -> str:
    """Describe for an error which topics are not used by default; '' if there are none.

    option: text before the topic in the option that names it, such as `image:=`.
    """
    if not excluded:
        return ''
    topics = listed([f'{topic} ({reason})' for topic, reason in excluded.items()], 30)
    return f'not used unless named: {topics}; to use it: {option}{next(iter(excluded))}'


def _exclusion_reason(topic: str) -> str:
    if _TRACKER_IMAGE.search(topic):
        return 'an output of a tracker'
    found = _NOT_COLOUR.search(topic)
    return found.group(1) if found else ''
