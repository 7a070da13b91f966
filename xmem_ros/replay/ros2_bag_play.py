# SPDX-License-Identifier: MIT
"""What `ros2 bag play` has to be told, read off a bag's metadata.yaml. Needs neither rosbag2 nor rosbags."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from xmem_ros.errors import BagError, ParameterError
from xmem_ros.recordings.metadata import read_metadata
from xmem_ros.recordings.topics import (
    IMAGE_TYPES,
    OF_THE_RECORDING,
    OUTPUTS,
    is_ros_topic,
    meant,
    recorded_outputs,
    told,
)

COMPRESSED = 'sensor_msgs/msg/CompressedImage'
DIAGNOSTICS = '/diagnostics'
RECORDED = '/recorded'  # below which the tracker's recorded outputs are played


@dataclass(frozen=True)
class BagTopics:
    """A bag's topics, as far as they are known."""

    image: str = ''  # of the images; empty: not known
    compressed: bool = False  # whether these are CompressedImages
    all: dict[str, str] = field(default_factory=dict)  # name → type


def topics_of(bag: Path, image: str = '') -> BagTopics:
    """Read a bag's topics.

    Args:
        bag: its folder, or one of its files; a file may have no metadata beside it, and then nothing is known.
        image: topic of the images; empty: the only one that is meant, see `choice`.

    Raises:
        ParameterError: no topic of that name, none of images, or several.
    """
    metadata = (bag if bag.is_dir() else bag.parent) / 'metadata.yaml'
    if not metadata.is_file():
        if not image:
            raise ParameterError(f'{bag} has no metadata.yaml that names its topics: give image:=/topic/of/the/images')
        return BagTopics(image, image.endswith('/compressed'))
    found = _read(metadata)
    ours = recorded_outputs(found, '/xmem')
    images = {name: kind for name, kind in found.items() if kind in IMAGE_TYPES and name not in ours}
    taken, left_out = meant(images)
    wanted = [name for name in images if name == _absolute(image)] if image else taken
    if len(wanted) != 1:
        known = ', '.join(sorted(images if image else taken)) or 'none'
        what = 'has no such topic of images' if image else 'has not exactly one topic of images'
        others = '' if image else told(left_out, 'image:=')
        raise ParameterError(
            f'{bag} {what}{f" as {image}" if image else ""}: give image:=, one of: {known}'
            f'{f"; {others}" if others else ""}'
        )
    return BagTopics(wanted[0], images[wanted[0]] == COMPRESSED, found)


def recorded_remaps(bag: BagTopics, node: str) -> list[str]:
    """Rules FROM:=TO that keep what the tracker said when the bag was recorded apart from what it says now."""
    if bag.all:
        ours = list(recorded_outputs(bag.all, node))
    else:
        ours = [f'{node}/{name}' for name in OUTPUTS]
    return [f'{name}:={RECORDED}{name}' for name in [*ours, DIAGNOSTICS]]


def played_topics(bag: BagTopics, *, clock: bool) -> list[str]:
    """The topics to name to `--topics`, so that what is of the recorded run stays in the bag; none: all are played.

    A rule for `--remap` would not do: it is the player's own, whose clock and log it would move, too; and
    `--exclude-topics` is not in all distributions.

    Args:
        bag: its topics.
        clock: whether the player publishes a clock of its own.
    """
    stay = {*OF_THE_RECORDING, *(['/clock'] if clock else [])} - {DIAGNOSTICS}
    return [name for name in bag.all if name not in stay] if stay & set(bag.all) else []


def _absolute(topic: str) -> str:
    return f'/{topic.lstrip("/")}'


def _read(metadata: Path) -> dict[str, str]:
    try:
        topics = [topic for topic in read_metadata(metadata).topics if topic.count]
    except BagError as error:
        raise ParameterError(f'{error}; make it anew: ros2 bag reindex {metadata.parent}') from error
    # the names become arguments of `ros2 bag play`, where := and a leading - mean something else
    return {topic.name: topic.msgtype for topic in topics if is_ros_topic(topic.name)}
