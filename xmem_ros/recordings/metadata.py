# SPDX-License-Identifier: MIT
"""A bag's `metadata.yaml` and recorded QoS profiles, read within bounds. Imports no rclpy."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from xmem_ros.data_files import YamlBounds, parse_yaml, read_yaml
from xmem_ros.errors import BagError, quoted
from xmem_ros.recordings.limits import MAX_TOPICS, is_name

METADATA_FILE = 'metadata.yaml'
# the metadata of a bag of thousands of files has about 100 kB
_METADATA_BOUNDS = YamlBounds(max_bytes=2 * 2**20, max_depth=32, max_values=500_000, max_digits=20, merge_keys=False)
_QOS_BOUNDS = YamlBounds(max_bytes=64 * 2**10, max_depth=32, max_values=10_000, max_digits=20, merge_keys=False)


@dataclass(frozen=True)
class TopicMetadata:
    """A topic according to the metadata."""

    name: str
    msgtype: str
    count: int  # messages
    digest: str  # RIHS01 hash of the type; '' if unknown
    profiles: Any  # QoS of the publishers: YAML text, or the parsed content


@dataclass(frozen=True)
class BagMetadata:
    """Content of a `metadata.yaml`."""

    files: list[str] = field(default_factory=list)  # names in the bag's folder
    topics: list[TopicMetadata] = field(default_factory=list)


def read_metadata(path: Path) -> BagMetadata:
    """Read a bag's `metadata.yaml`. Folders in file paths are ignored: files lie beside it.

    Raises:
        BagError: it cannot be read, or is not the metadata of a bag.
    """
    try:
        content = read_yaml(path, BagError, bounds=_METADATA_BOUNDS)
    except OSError as error:
        raise BagError(f'{path}: cannot be read ({error.strerror})') from error
    try:
        info = content['rosbag2_bagfile_information']
        names = [PurePosixPath(str(item)).name for item in info['relative_file_paths']]
        topics = [_topic(item) for item in info['topics_with_message_count']]
    except (BagError, KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        # the text of a KeyError is the key alone
        reason = f'{error!r}' if isinstance(error, KeyError) else ' '.join(f'{error}'.split())
        raise BagError(f'{path} is not the metadata of a bag ({reason})') from error
    if len(topics) > MAX_TOPICS:
        raise BagError(f'{path} names {len(topics)} topics; at most {MAX_TOPICS} are read')
    if invalid := [name for name in names if name in ('', '.', '..') or not is_name(name)]:
        raise BagError(f'{path} names the file {quoted(invalid[0])}, which is not a valid file name')
    return BagMetadata(list(dict.fromkeys(names)), topics)


def _topic(item: Any) -> TopicMetadata:
    topic = item['topic_metadata']
    name, msgtype = topic['name'], topic['type']
    if not is_name(name) or not is_name(msgtype):
        raise BagError(f'the topic {quoted(name)} or its type {quoted(msgtype)} is not a valid name')
    digest = topic.get('type_description_hash') or ''
    return TopicMetadata(
        name,
        msgtype,
        int(item.get('message_count', 0)),
        digest if is_name(digest) else '',
        topic.get('offered_qos_profiles') or [],
    )


@functools.lru_cache(maxsize=64)  # most topics of a bag have the same QoS
def _parsed_qos(text: str) -> Any:
    return parse_yaml(text, 'QoS', BagError, bounds=_QOS_BOUNDS)


def parse_qos_profiles(profiles: Any) -> list[Any]:
    """Parse recorded QoS, YAML text or parsed, into `Qos` of rosbags; [] if invalid."""
    from rosbags.rosbag2.metadata import parse_qos

    try:
        found = _parsed_qos(profiles) if isinstance(profiles, str) else profiles
        return [item for item in parse_qos(found or []) if isinstance(item.depth, int) and item.depth >= 0]
    except Exception:  # depends on the content
        return []
