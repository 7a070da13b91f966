# SPDX-License-Identifier: MIT
"""A tracker's memory in a file, so that a robot that starts again goes on with the same objects.

One safetensors file. Its header says the version, the fingerprint of the weights, a digest of all tensors, and, as
JSON, what is not a tensor. A file is read and checked as a whole before anything is changed by it.
"""

import contextlib
import dataclasses
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from xmem_ros.errors import MemoryFileError
from xmem_ros.memory.anchors import AnchorFrame
from xmem_ros.memory.gallery import COLOURS, SLOTS
from xmem_ros.memory.memory import MemoryState
from xmem_ros.memory.store import Positions
from xmem_ros.memory.usage import BACKGROUND
from xmem_ros.tracker.geometry import FrameGeometry
from xmem_ros.tracker.segmenter import SegmenterState
from xmem_ros.weights.checkpoint import digest

FORMAT = 'xmem_ros memory'
VERSION = 2
_POSITIONS = tuple(field.name for field in dataclasses.fields(Positions))


@dataclass(frozen=True)
class Snapshot:
    """All that a tracker remembers, in the host's memory."""

    weights: str  # fingerprint of the network that made it
    table: dict[str, Any]  # of `ObjectTable.saved`
    clock: dict[str, float]  # frame, last memory frame, time
    state: SegmenterState | None  # None: no objects


def write(snapshot: Snapshot, path: Path) -> None:
    """Write a file, or none: it takes its name only once it is complete. Raises `MemoryFileError`."""
    tensors, described = _pack(snapshot)
    state = json.dumps(described)
    header = {
        'format': FORMAT,
        'version': str(VERSION),
        'weights': snapshot.weights,
        'digest': digest(sorted(tensors.items()), state),
        'state': state,
    }
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
        os.close(handle)
        save_file(tensors, partial, metadata=header)
        with Path(partial).open('rb') as file:
            os.fsync(file.fileno())
        Path(partial).chmod(0o644)
        Path(partial).replace(path)
    except (OSError, SafetensorError) as error:
        if partial is not None:
            with contextlib.suppress(OSError):
                Path(partial).unlink()
        raise MemoryFileError(f'{path}: cannot be written ({error}); a file of that name is as it was') from error


def read(path: Path, weights: str) -> Snapshot:
    """Read a file and check all of it.

    weights: fingerprint of the network that is to use it. Raises `MemoryFileError` saying what is wrong.
    """
    if not path.is_file():
        raise MemoryFileError(f'{path}: no such file; save a memory first')
    try:
        with safe_open(path, framework='pt') as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise MemoryFileError(f'{path}: not readable as a saved memory; it may be cut off ({error})') from error
    if header.get('format') != FORMAT:
        raise MemoryFileError(f'{path}: not a saved memory, but another safetensors file')
    if header.get('version') != str(VERSION):
        raise MemoryFileError(
            f'{path}: written in version {header.get("version")!r} of the format, but this program reads {VERSION}: '
            'use the program that wrote it, or seed the objects again'
        )
    if header.get('weights') != weights:
        raise MemoryFileError(
            f'{path}: made with other weights (SHA-256 {str(header.get("weights"))[:12]}…, loaded: {weights[:12]}…); '
            'load the weights that it was made with, or seed the objects again'
        )
    if header.get('digest') != digest(sorted(tensors.items()), header.get('state', '')):
        raise MemoryFileError(f'{path}: damaged, its content does not match its digest; use another copy')
    try:
        return _unpack(weights, tensors, json.loads(header['state']))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise MemoryFileError(f'{path}: damaged or not written by this program ({error!r})') from error


def _pack(snapshot: Snapshot) -> tuple[dict[str, Tensor], dict[str, Any]]:
    state = snapshot.state
    described: dict[str, Any] = {'table': snapshot.table, 'clock': snapshot.clock, 'memory': None}
    # a file without any tensor would be legal, but not every reader takes it
    tensors: dict[str, Tensor] = {'empty': torch.zeros(1)}
    if state is None:
        return tensors, described
    memory = state.memory
    described['geometry'] = dataclasses.asdict(state.geometry)
    described['seeds'] = state.seeds
    described['memory'] = {
        'cohorts': list(memory.cohorts.items()),
        'partial': sorted(memory.partial),
        'ring': len(memory.ring),
        'anchors': [{'rows': entry.rows, 'first': sorted(entry.first)} for entry, _ in memory.anchors],
        'long_term': memory.long_term is not None,
    }
    tensors |= {'last_seen': state.last_seen, 'looks': state.looks, 'filled': state.filled}
    if state.sensory is not None:
        tensors['sensory'] = state.sensory
    groups = {f'ring.{i}': frame for i, frame in enumerate(memory.ring)}
    groups |= {f'anchor.{i}': frame for i, (_, frame) in enumerate(memory.anchors)}
    if memory.long_term is not None:
        groups['long_term'] = memory.long_term
    for group, positions in groups.items():
        tensors |= {f'{group}.{name}': getattr(positions, name) for name in _POSITIONS}
    tensors |= {f'anchor.{i}.near': entry.near for i, (entry, _) in enumerate(memory.anchors)}
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, described


def _unpack(weights: str, tensors: dict[str, Tensor], described: dict[str, Any]) -> Snapshot:
    if described['memory'] is None:
        return Snapshot(weights, described['table'], described['clock'], None)
    held = described['memory']

    def positions(group: str) -> Positions:
        return Positions(*(tensors[f'{group}.{name}'] for name in _POSITIONS))

    anchors = []
    for i, entry in enumerate(held['anchors']):
        frame, near = positions(f'anchor.{i}'), tensors[f'anchor.{i}.near']
        anchors.append((AnchorFrame(len(frame), near, list(entry['rows']), set(entry['first'])), frame))
    memory = MemoryState(
        {int(row): int(cohort) for row, cohort in held['cohorts']},
        set(held['partial']),
        anchors,
        [positions(f'ring.{i}') for i in range(held['ring'])],
        positions('long_term') if held['long_term'] else None,
    )
    sizes = {key: tuple(value) for key, value in described['geometry'].items()}
    state = SegmenterState(
        FrameGeometry(**sizes),
        memory,
        tensors.get('sensory'),
        tensors['last_seen'],
        tensors['looks'],
        tensors['filled'],
        list(described['seeds']),
    )
    _check_shapes(state, [entry['row'] for entry in described['table']['entries']])
    return Snapshot(weights, described['table'], described['clock'], state)


def _check_shapes(state: SegmenterState, rows: list[int]) -> None:
    """Raise `ValueError` unless everything speaks of the same objects and every group of the same positions."""
    count = len(rows)
    planes = [state.last_seen, state.looks, state.filled, *([] if state.sensory is None else [state.sensory])]
    if list(state.memory.cohorts) != rows or any(len(plane) != count for plane in planes):
        raise ValueError('its objects do not agree')
    if len(state.seeds) != count:
        raise ValueError('its seeds do not agree')
    frames = [*state.memory.ring, *(frame for _, frame in state.memory.anchors)]
    if state.memory.long_term is not None:
        frames.append(state.memory.long_term)
    for frame in frames:
        n = len(frame)
        lengths = {len(t) for t in (frame.shrinkage, frame.selection, frame.owner, frame.use, frame.life)}
        if lengths != {n} or frame.values.shape[:2] != (count, n) or frame.valid.shape != (count, n):
            raise ValueError('its positions do not agree')
        if not set(frame.owner.unique().tolist()) <= {BACKGROUND, *rows}:
            raise ValueError('its owners are no objects')
    if state.looks.shape[1] != SLOTS or state.looks.shape[2] <= COLOURS or state.filled.shape != state.looks.shape[:2]:
        raise ValueError('its appearances do not fit')
