# SPDX-License-Identifier: MIT
"""`metadata.yaml` of a bag, and other YAML that a recorder wrote. It comes from strangers; no rclpy, no rosbags."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from xmem_ros.errors import BagError, quoted
from xmem_ros.recordings.limits import MOST_TOPICS, is_name

FILE = 'metadata.yaml'
MOST_METADATA = 2 * 2**20  # bytes; a bag of thousands of files has some 100 kB
MOST_PROFILES = 64 * 2**10  # characters of the QoS of a topic
_DEEPEST = 32  # mappings and lists inside each other
_LOADER: Any = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
_MERGE = 'tag:yaml.org,2002:merge'


@dataclass(frozen=True)
class ToldTopic:
    """What metadata says of a topic."""

    name: str
    msgtype: str
    count: int
    digest: str
    profiles: Any  # of QoS: text of YAML, or what was in it


@dataclass(frozen=True)
class Told:
    """What metadata says of a bag."""

    files: list[str] = field(default_factory=list)  # names in the bag's folder
    topics: list[ToldTopic] = field(default_factory=list)


def load_yaml(text: str, most: int) -> Any:
    """Plain YAML: no merge keys, which can stand for any amount of data, and nothing deeply nested.

    Raises:
        yaml.YAMLError: it is none, or longer than `most` characters.
    """
    if len(text) > most:
        raise yaml.YAMLError(f'{len(text)} characters; at most {most} are read')
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > _DEEPEST:
                    raise yaml.YAMLError(f'nested deeper than {_DEEPEST}')
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.ScalarEvent) and (event.value == '<<' or event.tag == _MERGE):
                raise yaml.YAMLError('a merge key (<<); write out what it stands for')
        return yaml.load(text, Loader=_LOADER)  # noqa: S506  # one of the safe loaders
    except yaml.YAMLError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise yaml.YAMLError(f'a value cannot be read ({error})') from error


def read_metadata(path: Path) -> Told:
    """Read a bag's `metadata.yaml`. Of paths only the names count: files lie in the folder of the bag.

    Raises:
        BagError: it cannot be read, or is no metadata of a bag.
    """
    try:
        if path.stat().st_size > MOST_METADATA:
            raise BagError(f'{path.stat().st_size} bytes; at most {MOST_METADATA} are read')
        told = load_yaml(path.read_text(encoding='utf-8'), MOST_METADATA)['rosbag2_bagfile_information']
        names = [PurePosixPath(str(item)).name for item in told['relative_file_paths']]
        topics = [_topic(item) for item in told['topics_with_message_count']]
    except (BagError, OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        # of a missing key, its name alone would be told
        reason = f'{error!r}' if isinstance(error, KeyError) else ' '.join(f'{error}'.split())
        raise BagError(f'{path} is not the metadata of a bag ({reason})') from error
    if len(topics) > MOST_TOPICS:
        raise BagError(f'{path} names {len(topics)} topics; at most {MOST_TOPICS} are read')
    if strange := [name for name in names if name in ('', '.', '..') or not is_name(name)]:
        raise BagError(f'{path} names the file {quoted(strange[0])}, which is no name of one')
    return Told(list(dict.fromkeys(names)), topics)


def _topic(item: Any) -> ToldTopic:
    told = item['topic_metadata']
    name, msgtype = told['name'], told['type']
    if not is_name(name) or not is_name(msgtype):
        raise BagError(f'the topic {quoted(name)} or its type {quoted(msgtype)} is no name')
    digest = told.get('type_description_hash') or ''
    return ToldTopic(
        name,
        msgtype,
        int(item.get('message_count', 1)),
        digest if is_name(digest) else '',
        told.get('offered_qos_profiles') or [],
    )


def profiles_of(told: Any) -> list[Any]:
    """`Qos` of rosbags of what was recorded of publishers, text of YAML or what was in it; empty where it is none."""
    from rosbags.rosbag2.metadata import parse_qos

    try:
        found = load_yaml(told, MOST_PROFILES) if isinstance(told, str) else told
        return [item for item in parse_qos(found or []) if isinstance(item.depth, int) and item.depth >= 0]
    except Exception:  # of whatever stands there
        return []
