# SPDX-License-Identifier: MIT
"""What a run is to do, what came of it, and what its results depend on. No rclpy."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xmem_ros.media import image_files
from xmem_ros.recordings.recording import Fault
from xmem_ros.recordings.rosbag import SUFFIXES, is_bag
from xmem_ros.recordings.seed_plan import seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xmem_ros.offline.tracking import Offline
    from xmem_ros.parameters.table import Parameters
    from xmem_ros.recordings.recording import Recording
    from xmem_ros.recordings.seed_plan import PlannedSeeds

FORMATS = ('bag', 'png', 'coco', 'ytvos', 'overlay')
VERSION = 3  # of what a part folder holds
CONTENT = 'content of the input'  # of an identity
SEEDS = 'seeds of image '  # of an identity, before the image's index
JOURNALS = ('-wal', '-journal')  # how files of SQLite end that lie beside a database
_PIECE = 1 << 16  # bytes of head and tail of a file
SEGMENT = 300  # images between two points at which an interrupted run can go on


@dataclass(frozen=True)
class Job:
    """What is to be done, beside recording, seeds and parameters."""

    out: Path  # folder, new or empty; it appears once it is whole
    formats: tuple[str, ...] = ('bag',)  # of FORMATS
    node: str = '/xmem'  # full name of the node whose topics a bag gets
    only_ours: bool = False  # leave the topics of the recording out of the bag
    compressed_labels: bool = False  # label images of the bag as PNG
    segment: int = SEGMENT
    restart: bool = False  # forget what an interrupted run has done


@dataclass
class Report:
    """What came of it."""

    tracked: int = 0  # images
    resumed: int = 0  # of them, by a run before this one
    faults: list[Fault] = field(default_factory=list)  # images that were left out
    damage: str = ''  # why not all of the recording could be read
    missed: list[str] = field(default_factory=list)  # recorded seeds that could not be applied
    notes: list[str] = field(default_factory=list)  # what the node would have logged
    left_out: list[str] = field(default_factory=list)  # topics that were not copied, the node's own are written anew
    undefined: list[str] = field(default_factory=list)  # types that were copied without their definition


def identity_of(recording: Recording, parameters: Parameters, job: Job, offline: Offline) -> dict[str, str]:
    """What the results depend on, in words that a refusal can show."""
    known = {
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
    }
    known |= {f'{SEEDS}{index}': _digest(entries) for index, entries in sorted(offline.places.items())}
    known |= {f'parameter {name}': value for name, value in _flat(dataclasses.asdict(parameters), '')}
    return {name: str(value) for name, value in known.items()}


def _flat(values: dict[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f'{above}{name}.')
        else:
            yield f'{above}{name}', value


def content_of(path: Path) -> str:
    """What a recording's files hold, as far as that can be said without reading all of them.

    Name, size, time of change, and a hash of head and tail of each; of a folder, of those files that are read.
    """
    files = sorted(_files_of(path))
    found = hashlib.sha256()
    size = 0
    for file in files:
        with file.open('rb') as stream:
            status = os.fstat(stream.fileno())
            found.update(os.fsencode(f'{file.name}\0{status.st_size} {status.st_mtime_ns}\0'))
            found.update(stream.read(_PIECE))
            stream.seek(max(stream.tell(), status.st_size - _PIECE))
            found.update(stream.read(_PIECE))
        size += status.st_size
    return f'{len(files)} files, {size} bytes, {found.hexdigest()[:16]}'


def _files_of(path: Path) -> list[Path]:
    """Those that are read: of a bag also compressed ones, and the journal of a database."""
    if not path.is_dir():
        beside = (path.with_name(f'{path.name}{ending}') for ending in JOURNALS)
        return [path, *(file for file in beside if _holds_something(file))]
    if not is_bag(path):
        return image_files(path)
    return [file for file in path.iterdir() if _is_of_bag(file.name) and _holds_something(file)]


def _is_of_bag(name: str) -> bool:
    stem = next((name.removesuffix(ending) for ending in JOURNALS if name.endswith(ending)), name)
    return name == 'metadata.yaml' or any(part in SUFFIXES for part in Path(stem).suffixes)


def _holds_something(file: Path) -> bool:
    """Reading a database makes an empty journal beside it."""
    return file.is_file() and file.stat().st_size > 0


def _hash(found: Any, value: Any) -> None:
    """Everything in a message, whoever made it."""
    if isinstance(value, np.ndarray):
        found.update(value.tobytes())
    elif isinstance(value, list | tuple):
        for item in value:
            _hash(found, item)
    elif hasattr(value, '__dict__'):
        _hash(found, [item for pair in sorted(vars(value).items()) for item in pair])
    else:
        found.update(f'{value!r};'.encode())


def _digest(plan: Sequence[PlannedSeeds]) -> str:
    found = hashlib.sha256()
    for entry in plan:
        place = f'{entry.index} {seconds(entry.stamp_ns or 0)} {entry.ids} {entry.removed} {entry.values}'
        found.update(place.encode())
        _hash(found, entry.seeds)
    return f'{len(plan)} entries, {found.hexdigest()[:16]}'
