# SPDX-License-Identifier: MIT
"""Arguments for `ros2 bag play`, from a bag's `metadata.yaml`. Needs no rosbag2, no rosbags."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from xmem_ros.errors import BagError, ParameterError
from xmem_ros.recordings.metadata import read_metadata
from xmem_ros.recordings.topics import (
    IMAGE_TYPES,
    OUTPUTS,
    RECORDER_TOPICS,
    default_image_topics,
    describe_excluded,
    is_ros_topic,
    recorded_outputs,
)

COMPRESSED = 'sensor_msgs/msg/CompressedImage'
DIAGNOSTICS = '/diagnostics'
RECORDED = '/recorded'  # namespace for recorded tracker outputs


@dataclass(frozen=True)
class BagTopics:
    """Topics of a bag, as far as known."""

    image: str = ''  # image topic; empty: unknown
    compressed: bool = False  # whether the images are CompressedImage
    all: dict[str, str] = field(default_factory=dict)  # name → type


def topics_of(bag: Path, image: str = '') -> BagTopics:
    """Read a bag's topics.

    Args:
        bag: its folder or one of its files; a file can lack metadata.
        image: topic of the images; empty: the only one that is eligible by default.

    Raises:
        ParameterError: no topic of this name, no image topic, or several.
    """
    metadata = (bag if bag.is_dir() else bag.parent) / 'metadata.yaml'
    if not metadata.is_file():
        if not image:
            raise ParameterError(f'{bag} has no metadata.yaml with its topics; give image:=/topic/of/the/images')
        return BagTopics(image, image.endswith('/compressed'))
    found = _read(metadata)
    ours = recorded_outputs(found, '/xmem')
    images = {name: kind for name, kind in found.items() if kind in IMAGE_TYPES and name not in ours}
    eligible, excluded = default_image_topics(images)
    wanted = [name for name in images if name == _absolute(image)] if image else eligible
    if len(wanted) != 1:
        known = ', '.join(sorted(images if image else eligible)) or 'none'
        what = 'has no such image topic' if image else 'needs exactly one image topic'
        others = '' if image else describe_excluded(excluded, 'image:=')
        raise ParameterError(
            f'{bag} {what}{f" as {image}" if image else ""}; give image:=, one of: {known}'
            f'{f"; {others}" if others else ""}'
        )
    return BagTopics(wanted[0], images[wanted[0]] == COMPRESSED, found)


def recorded_remaps(bag: BagTopics, node: str) -> list[str]:
    """Return rules FROM:=TO that separate recorded tracker outputs from live ones."""
    if bag.all:
        ours = list(recorded_outputs(bag.all, node))
    else:
        ours = [f'{node}/{name}' for name in OUTPUTS]
    return [f'{name}:={RECORDED}{name}' for name in [*ours, DIAGNOSTICS]]


def played_topics(bag: BagTopics, *, clock: bool) -> list[str]:
    """Return the topics for `--topics`: all but the recorded clock and log; []: play all.

    `--remap` would also move the player's own clock and log, and some distributions have no
    `--exclude-topics`.

    Args:
        bag: its topics.
        clock: whether the player publishes its own clock.
    """
    excluded = {*RECORDER_TOPICS, *(['/clock'] if clock else [])} - {DIAGNOSTICS}
    return [name for name in bag.all if name not in excluded] if excluded & set(bag.all) else []


def _absolute(topic: str) -> str:
    return f'/{topic.lstrip("/")}'


def _read(metadata: Path) -> dict[str, str]:
    try:
        topics = [topic for topic in read_metadata(metadata).topics if topic.count]
    except BagError as error:
        raise ParameterError(f'{error}; recreate it: ros2 bag reindex {metadata.parent}') from error
    # the names become arguments of `ros2 bag play`, where := and a leading - have a meaning
    return {topic.name: topic.msgtype for topic in topics if is_ros_topic(topic.name)}
