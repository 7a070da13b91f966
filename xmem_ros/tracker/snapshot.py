# SPDX-License-Identifier: MIT
"""A tracker's memory in a file, so that a robot that starts again goes on with the same objects.

One safetensors file. Its header holds the format's version, the fingerprint of the weights, a digest of all tensors,
and, as JSON, what is not a tensor (`snapshot_schema`). A file may come from anybody: types, ranges, shapes and values
are checked before a tracker sees them. The digest finds accidents, not forgery.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from xmem_ros import atomic
from xmem_ros.errors import (
    FrameError,
    MemoryFileError,
    MemoryFileMismatchError,
    MemoryFileWriteError,
    told,
)
from xmem_ros.memory.anchors import AnchorFrame
from xmem_ros.memory.gallery import COLOURS, SLOTS
from xmem_ros.memory.memory import MemoryState
from xmem_ros.memory.store import Positions
from xmem_ros.memory.usage import BACKGROUND
from xmem_ros.network.config import NetworkConfig
from xmem_ros.snapshot_schema import (
    AnchorHeader,
    ClockState,
    GeometryHeader,
    MemoryHeader,
    SnapshotHeader,
    TableState,
)
from xmem_ros.tracker.geometry import FrameGeometry
from xmem_ros.tracker.segmenter import SegmenterState
from xmem_ros.weights.checkpoint import digest

FORMAT = 'xmem_ros memory'
VERSION = 3
LARGEST_FILE = 2 << 30  # bytes
LARGEST_HEADER = 8 << 20  # characters of JSON
_POSITIONS = tuple(field.name for field in dataclasses.fields(Positions))
_EMPTY = 'empty'  # a file without any tensor would be legal, but not every reader takes it


@dataclass(frozen=True)
class Snapshot:
    """All that a tracker remembers, in the host's memory."""

    weights: str  # fingerprint of the network that made it
    table: TableState
    clock: ClockState
    state: SegmenterState | None  # None: no objects


@dataclass(frozen=True)
class _Values:
    """What a tensor may hold."""

    dtypes: tuple[torch.dtype, ...]
    low: float = 0.0
    high: float = 1.0


_FLOAT = (torch.float32,)
_FLAGS = _Values((torch.bool,))
_ROUNDING = 1e-3  # of what lies within ±1 but for it
_VALUES = {
    'key': _Values(_FLOAT, -1e6, 1e6),  # so that no similarity overflows
    'shrinkage': _Values(_FLOAT, 0, 1e6),
    'selection': _Values(_FLOAT, 0, 1),
    'values': _Values((torch.float32, torch.float16, torch.bfloat16), -65504, 65504),  # which float16 holds
    'valid': _FLAGS,
    'owner': _Values((torch.int16,), BACKGROUND, 253),
    'use': _Values(_FLOAT, 0, 1e12),
    'life': _Values(_FLOAT, 1e-8, 1e12),  # is divided by
    'near': _FLAGS,
    'sensory': _Values(_FLOAT, -1 - _ROUNDING, 1 + _ROUNDING),
    'last_seen': _Values(_FLOAT, 0, 1 + _ROUNDING),
    'looks': _Values(_FLOAT, -1 - _ROUNDING, 1 + _ROUNDING),
    'filled': _FLAGS,
    _EMPTY: _Values(_FLOAT),
}


def write(snapshot: Snapshot, path: Path) -> None:
    """Write a file, or none: it takes its name only once it is complete. Raises `MemoryFileWriteError`."""
    tensors, described = _pack(snapshot)
    size = sum(tensor.nbytes for tensor in tensors.values())
    if size > LARGEST_FILE - LARGEST_HEADER:
        raise MemoryFileWriteError(
            f'{path}: this memory takes {size / 1e9:.1f} GB, and a file may have {LARGEST_FILE / 1e9:.1f} GB: remove '
            'objects, or lower memory.long_term_elements or memory.max_working_frames'
        )
    state = msgspec.json.encode(described).decode()
    header = {
        'format': FORMAT,
        'version': str(VERSION),
        'weights': snapshot.weights,
        'digest': digest(sorted(tensors.items()), state),
        'state': state,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.writing(path) as part, atomic.utf8_name(part) as name:
            save_file(tensors, name, metadata=header)
    except (OSError, SafetensorError) as error:
        raise MemoryFileWriteError(f'{path}: cannot be written ({error}); a file of that name is as it was') from error


def read(path: Path, weights: str) -> Snapshot:
    """Read a file and check all of it.

    weights: fingerprint of the network that is to use it. Raises `MemoryFileError` saying what is wrong.
    """
    header, tensors = _read_file(path)
    if header.get('format') != FORMAT:
        raise MemoryFileError(f'{path}: not a saved memory, but another safetensors file')
    if header.get('version') != str(VERSION):
        raise MemoryFileMismatchError(
            f'{path}: written in version {header.get("version")!r:.20} of the format, but this program reads '
            f'{VERSION}: use the program that wrote it, or seed the objects again'
        )
    if header.get('weights') != weights:
        raise MemoryFileMismatchError(
            f'{path}: made with other weights (SHA-256 {str(header.get("weights"))[:12]}…, loaded: {weights[:12]}…); '
            'load the weights that it was made with, or seed the objects again'
        )
    state = header.get('state', '')
    if header.get('digest') != digest(sorted(tensors.items()), state):
        raise MemoryFileError(f'{path}: damaged, its content does not match its digest; use another copy')
    try:
        if len(state) > LARGEST_HEADER:
            raise ValueError(f'its header has {len(state)} characters, and {LARGEST_HEADER} are allowed')
        described = msgspec.json.decode(state, type=SnapshotHeader)
        _check_values(tensors)
        return _unpack(weights, tensors, described)
    except (msgspec.MsgspecError, ValueError, FrameError, RecursionError) as error:
        raise MemoryFileError(
            f'{path}: refused, it is damaged or was not written by this program ({told(error)}); use another copy'
        ) from error


def check_fits(snapshot: Snapshot, network: NetworkConfig) -> None:
    """Raise `MemoryFileError` unless the tensors have the widths of this network."""
    state = snapshot.state
    if (state is None) != (not snapshot.table.entries):
        raise MemoryFileError('the saved memory does not fit: it has objects without a memory of them, or none of both')
    if state is None:
        return
    frames = [*state.memory.ring, *(frame for _, frame in state.memory.anchors)]
    if state.memory.long_term is not None:
        frames.append(state.memory.long_term)
    widths = [
        ('keys', network.key_dim, {frame.key.shape[1] for frame in frames}),
        ('values', network.value_dim, {frame.values.shape[2] for frame in frames}),
        ('sensory memory', network.sensory_dim, {0 if state.sensory is None else state.sensory.shape[1]}),
        ('appearances', network.feature_widths[0] + COLOURS, {state.looks.shape[2]}),
    ]
    for what, wanted, found in widths:
        if found - {wanted}:
            raise MemoryFileError(
                f'the saved memory does not fit: its {what} have {min(found - {wanted})} channels, those of these '
                f'weights {wanted}; load the weights that it was made with, or seed the objects again'
            )


def _read_file(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The header and the tensors, in memory of their own."""
    try:
        if not path.is_file():
            raise MemoryFileError(f'{path}: no such file; save a memory first')
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise MemoryFileError(
                f'{path}: refused, it has {size / 1e9:.1f} GB, and a saved memory has {LARGEST_FILE / 1e9:.1f} GB at '
                'most'
            )
        with atomic.utf8_name(path) as name, safe_open(name, framework='pt') as file:
            # what is read from the file itself would go with it
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return file.metadata() or {}, tensors
    except MemoryFileError:
        raise
    except Exception as error:  # a type that torch does not know raises what it likes
        raise MemoryFileError(f'{path}: not readable as a saved memory; it may be cut off ({told(error)})') from error


def _check_values(tensors: dict[str, Tensor]) -> None:
    """Raise `ValueError` for a type or a value that no tracker writes."""
    for name, tensor in tensors.items():
        allowed = _VALUES.get(name.rpartition('.')[2])
        if allowed is None:
            raise ValueError(f'it holds an unknown tensor {name!r:.80}')
        if tensor.dtype not in allowed.dtypes:
            raise ValueError(f'the tensor {name!r:.80} is of {tensor.dtype}')
        if not tensor.numel():
            continue
        plain = tensor.view(torch.uint8) if tensor.dtype == torch.bool else tensor  # a flag may be neither 0 nor 1
        least, most = (float(value) for value in plain.aminmax())
        if not (least >= allowed.low and most <= allowed.high):  # NaN is neither
            raise ValueError(
                f'the tensor {name!r:.80} holds {least:g}…{most:g}; allowed: {allowed.low:g}…{allowed.high:g}'
            )


def _pack(snapshot: Snapshot) -> tuple[dict[str, Tensor], SnapshotHeader]:
    state = snapshot.state
    tensors: dict[str, Tensor] = {_EMPTY: torch.zeros(1)}
    if state is None:
        return tensors, SnapshotHeader(snapshot.table, snapshot.clock, None)
    memory = state.memory
    described = SnapshotHeader(
        snapshot.table,
        snapshot.clock,
        MemoryHeader(
            cohorts=list(memory.cohorts.items()),
            partial=sorted(memory.partial),
            ring=len(memory.ring),
            anchors=[AnchorHeader(entry.rows, sorted(entry.first)) for entry, _ in memory.anchors],
            long_term=memory.long_term is not None,
        ),
        GeometryHeader(**dataclasses.asdict(state.geometry)),
        state.seeds,
    )
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


def _unpack(weights: str, tensors: dict[str, Tensor], described: SnapshotHeader) -> Snapshot:
    """Put a snapshot together; raises `ValueError` where parts are absent, left over, or do not agree."""
    held, left = described.memory, dict(tensors)
    left.pop(_EMPTY, None)

    def take(name: str, *shape: int | None) -> Tensor:
        """A tensor of a shape; None: any length."""
        tensor = left.pop(name, None)
        if tensor is None:
            raise ValueError(f'the tensor {name!r} is absent')
        if len(tensor.shape) != len(shape) or any(
            wanted not in (None, got) for wanted, got in zip(shape, tensor.shape, strict=True)
        ):
            raise ValueError(f'the tensor {name!r} has the shape {tuple(tensor.shape)}')
        return tensor

    entries = described.table.entries
    _check_table(described)
    if held is None:
        if entries or left:
            raise ValueError('it has objects without a memory of them')
        return Snapshot(weights, described.table, described.clock, None)
    rows, count = [entry.row for entry in entries], len(entries)
    if not rows or [row for row, _ in held.cohorts] != rows:
        raise ValueError('its objects do not agree')
    if described.seeds is None or len(described.seeds) != count:
        raise ValueError('its seeds do not agree')

    def positions(group: str) -> Positions:
        key = take(f'{group}.key', None, None)
        n, width = key.shape
        frame = Positions(
            key,
            take(f'{group}.shrinkage', n, 1),
            take(f'{group}.selection', n, width),
            take(f'{group}.values', count, n, None),
            take(f'{group}.valid', count, n),
            *(take(f'{group}.{name}', n) for name in ('owner', 'use', 'life')),
        )
        if not n and group != 'long_term':
            raise ValueError(f'{group} has no positions')
        if not set(frame.owner.unique().tolist()) <= {BACKGROUND, *rows}:
            raise ValueError('its owners are no objects')
        return frame

    anchors = [
        (_anchor(entry, take(f'anchor.{i}.near', len(frame)), rows), frame)
        for i, entry in enumerate(held.anchors)
        for frame in [positions(f'anchor.{i}')]
    ]
    cohorts = dict(held.cohorts)
    memory = MemoryState(
        cohorts,
        set(held.partial) & set(cohorts.values()),
        anchors,
        [positions(f'ring.{i}') for i in range(held.ring)],
        positions('long_term') if held.long_term else None,
    )
    geometry = _geometry(described.geometry)
    state = SegmenterState(
        geometry,
        memory,
        take('sensory', count, None, *geometry.grid_size) if 'sensory' in left else None,
        take('last_seen', count, *geometry.grid_size),
        take('looks', count, SLOTS, None),
        take('filled', count, SLOTS),
        list(described.seeds),
    )
    if left:
        raise ValueError(f'it holds an unknown tensor {min(left)!r:.80}')
    return Snapshot(weights, described.table, described.clock, state)


def _check_table(described: SnapshotHeader) -> None:
    """Raise `ValueError` unless ids ascend, rows are unique, and nothing is later than now."""
    table, clock = described.table, described.clock
    ids, rows = [entry.id for entry in table.entries], [entry.row for entry in table.entries]
    if ids != sorted(set(ids)) or (ids and ids[-1] >= table.next_id):
        raise ValueError(f'its ids are {ids[:10]}, the next one is {table.next_id}: they must ascend')
    if len(set(rows)) < len(rows):
        raise ValueError('two of its objects have one label')
    if clock.last_memory_frame > clock.frame:
        raise ValueError('its last memory frame has not been yet')
    for entry in table.entries:
        if not entry.seeded_at <= entry.seen_at <= clock.frame:
            raise ValueError(f'object {entry.id} was seen before its seed, or has not been yet')
        shown = entry.shown
        if shown is not None and (shown.id, shown.label) != (entry.id, entry.row + 1):
            raise ValueError(f'object {entry.id} is shown as another')
        if shown is not None and (shown.box is None) != (shown.centroid is None):
            raise ValueError(f'object {entry.id} has a box without a centroid, or a centroid without a box')


def _anchor(entry: AnchorHeader, near: Tensor, rows: Sequence[int]) -> AnchorFrame:
    whose, first = list(entry.rows), set(entry.first)
    if len(set(whose)) < len(whose) or not set(whose) <= set(rows) or not first <= set(whose):
        raise ValueError('its anchors are of other objects')
    return AnchorFrame(len(near), near, whose, first)


def _geometry(header: GeometryHeader | None) -> FrameGeometry:
    """Raises `ValueError`, `FrameError` for sizes that do not go together."""
    if header is None:
        raise ValueError('the size of its frames is absent')
    geometry = FrameGeometry(header.image_size, header.working_size, header.padding)
    for shorter_side in (0, min(geometry.working_size)):
        if geometry == FrameGeometry.of(geometry.image_size, shorter_side):
            return geometry
    raise ValueError(f'its frames of {geometry.image_size} (H, W) are scaled to {geometry.working_size}')
