# SPDX-License-Identifier: MIT
"""Options, report and identity of an offline run. Imports no rclpy."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xmem_ros.media import image_files
from xmem_ros.recordings.recording import Fault
from xmem_ros.recordings.rosbag import SUFFIXES, is_bag
from xmem_ros.recordings.seed_plan import seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xmem_ros.offline.tracking import OfflineTracker
    from xmem_ros.parameters.table import Parameters
    from xmem_ros.recordings.recording import Recording
    from xmem_ros.recordings.seed_plan import PlannedSeeds

FORMATS = ('bag', 'png', 'coco', 'ytvos', 'yolo', 'labelme', 'mots', 'overlay')
VERSION = 6  # of the work folder's format
CONTENT = 'content'  # identity key
SEEDS = 'seeds.'  # identity key, followed by the image's index
_WORDS = {CONTENT: 'content of the input', SEEDS: 'seeds of image '}
JOURNALS = ('-wal', '-journal')  # suffixes of SQLite's journals
_SAMPLE_BYTES = 1 << 16  # hashed at head and tail of a file
SEGMENT = 300  # images between checkpoints of an interrupted run


@dataclass(frozen=True)
class Job:
    """Options of a run other than recording, seeds and parameters."""

    out: Path  # new or empty folder; appears when it is complete
    formats: tuple[str, ...] = ('bag',)  # of FORMATS
    node: str = '/xmem'  # full name of the node, for the bag's topics
    only_ours: bool = False  # only the node's topics in the bag, none of the recording's
    compressed_labels: bool = False  # write the bag's label images as PNG
    segment: int = SEGMENT
    restart: bool = False  # discard the work of an interrupted run
    both_ways: bool = False  # also track backwards from the seeds


@dataclass
class Report:
    """Outcome of a run."""

    tracked: int = 0  # images
    resumed: int = 0  # of these, by an earlier run
    faults: list[Fault] = field(default_factory=list)  # skipped images
    damage: str = ''  # what could not be read in the recording, and why
    missed: list[str] = field(default_factory=list)  # recorded seeds that could not be applied
    notes: list[str] = field(default_factory=list)  # warnings that the node would log
    left_out: list[str] = field(default_factory=list)  # the node's recorded topics, replaced by new results
    undefined: list[str] = field(default_factory=list)  # types copied without their definition


def identity_of(recording: Recording, parameters: Parameters, job: Job, offline: OfflineTracker) -> dict[str, str]:
    """Return everything that the results depend on: key → value; see `described`."""
    import torch

    identity = {
        'format of the part folder': VERSION,
        'input': recording.path.resolve(),
        CONTENT: content_of(recording.path),
        'image topic': recording.image_topic,
        'weights': offline.tracker.fingerprint[:16],
        'device': offline.tracker.device,
        'threads': torch.get_num_threads(),
        'torch': torch.__version__,
        'formats': ', '.join(job.formats),
        'node': job.node,
        'only ours': job.only_ours,
        'compressed labels': job.compressed_labels,
        'segment': job.segment,
        'both ways': job.both_ways,
    }
    identity |= {f'{SEEDS}{index}': _digest(entries) for index, entries in sorted(offline.places.items())}
    identity |= {f'parameter {name}': value for name, value in _flatten(dataclasses.asdict(parameters), '')}
    return {name: str(value) for name, value in identity.items()}


def described(key: str) -> str:
    """Return a key of an identity in words, for errors."""
    return next((f'{words}{key[len(start) :]}' for start, words in _WORDS.items() if key.startswith(start)), key)


def _flatten(values: dict[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f'{above}{name}.')
        else:
            yield f'{above}{name}', value


def content_of(path: Path) -> str:
    """Return a fingerprint of a recording's files without reading them whole.

    It covers name, size, modification time, head and tail of each file that tracking reads.
    """
    files = sorted(_input_files(path))
    digest = hashlib.sha256()
    size = 0
    for file in files:
        with file.open('rb') as stream:
            status = os.fstat(stream.fileno())
            digest.update(os.fsencode(f'{file.name}\0{status.st_size} {status.st_mtime_ns}\0'))
            digest.update(stream.read(_SAMPLE_BYTES))
            stream.seek(max(stream.tell(), status.st_size - _SAMPLE_BYTES))
            digest.update(stream.read(_SAMPLE_BYTES))
        size += status.st_size
    return f'{len(files)} files, {size} bytes, {digest.hexdigest()[:16]}'


def _input_files(path: Path) -> list[Path]:
    """Return the files that tracking reads, including compressed ones and journals."""
    if not path.is_dir():
        beside = (path.with_name(f'{path.name}{ending}') for ending in JOURNALS)
        return [path, *(file for file in beside if _is_not_empty(file))]
    if not is_bag(path):
        return image_files(path)
    return [file for file in path.iterdir() if _is_bag_file(file.name) and _is_not_empty(file)]


def _is_bag_file(name: str) -> bool:
    stem = next((name.removesuffix(ending) for ending in JOURNALS if name.endswith(ending)), name)
    return name == 'metadata.yaml' or any(part in SUFFIXES for part in Path(stem).suffixes)


def _is_not_empty(file: Path) -> bool:
    """Return whether a file has content; reading a database can leave an empty journal."""
    return file.is_file() and file.stat().st_size > 0


def _hash(digest: Any, value: Any) -> None:
    """Hash all fields of a message of rosbags or rclpy."""
    if isinstance(value, np.ndarray):
        digest.update(value.tobytes())
    elif isinstance(value, list | tuple):
        for item in value:
            _hash(digest, item)
    elif hasattr(value, '__dict__'):
        _hash(digest, [item for pair in sorted(vars(value).items()) for item in pair])
    else:
        digest.update(f'{value!r};'.encode())


def _digest(plan: Sequence[PlannedSeeds]) -> str:
    digest = hashlib.sha256()
    for entry in plan:
        place = f'{entry.index} {seconds(entry.stamp_ns or 0)} {entry.ids} {entry.removed} {entry.values}'
        digest.update(f'{place} {entry.reset} {entry.loaded}'.encode())
        _hash(digest, entry.seeds)
    return f'{len(plan)} entries, {digest.hexdigest()[:16]}'
