# SPDX-License-Identifier: MIT
"""Which of a bag's topics of images is meant where none is named: one rule for all commands. No rclpy, no rosbags."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from xmem_ros.errors import listed

if TYPE_CHECKING:
    from collections.abc import Iterable

_OURS = re.compile(r'/(labels|mask|overlay)(/compressed)?$')  # how topics end that the node publishes itself
# whole parts of a name: /camera/aligned_depth_to_color/image_raw, and not /depthai/rgb/image_raw
_NOT_COLOUR = re.compile(r'(?:^|[/_])(depth|disparity|compressedDepth)\d*(?=[/_]|$)')


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
