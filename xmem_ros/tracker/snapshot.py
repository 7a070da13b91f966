# SPDX-License-Identifier: MIT
"""Memory files: a tracker's state on disk, to continue with the same objects after a restart.

A memory file is a safetensors file. Its header holds the format's version, the fingerprint of the
weights, a digest of all tensors, and the remaining state as JSON (`snapshot_schema`). Files are not
trusted: types, ranges, shapes and values are checked before use. The digest detects damage, not
forgery.
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
    summary_of,
)
from xmem_ros.memory.anchors import Anchor
from xmem_ros.memory.gallery import COLOURS, SLOTS
from xmem_ros.memory.memory import MemoryState
from xmem_ros.memory.store import Positions
from xmem_ros.memory.usage import BACKGROUND
from xmem_ros.network.config import NetworkConfig
from xmem_ros.objects import label_of
from xmem_ros.snapshot_schema import (
    AnchorHeader,
    ClockState,
    GeometryHeader,
    MemoryHeader,
    SnapshotHeader,
    TableState,
)
from xmem_ros.tracker.geometry import FrameGeometry
from xmem_ros.tracker.stores import SegmenterState
from xmem_ros.weights.checkpoint import digest

FORMAT = 'xmem_ros memory'
VERSION = 3
LARGEST_FILE = 2 << 30  # bytes
LARGEST_HEADER = 8 << 20  # characters of JSON
_POSITIONS = tuple(field.name for field in dataclasses.fields(Positions))
_EMPTY = 'empty'  # some readers refuse a file without tensors


@dataclass(frozen=True)
class Snapshot:
    """State of a tracker in host memory."""

    weights: str  # fingerprint of the network
    table: TableState
    clock: ClockState
    state: SegmenterState | None  # None: no objects


@dataclass(frozen=True)
class _Values:
    """Types and range allowed for a tensor."""

    dtypes: tuple[torch.dtype, ...]
    low: float = 0.0
    high: float = 1.0


_FLOAT = (torch.float32,)
_FLAGS = _Values((torch.bool,))
_ROUNDING = 1e-3  # tolerance of values within ±1
_VALUES = {
    'key': _Values(_FLOAT, -1e6, 1e6),  # no similarity overflows
    'shrinkage': _Values(_FLOAT, 0, 1e6),
    'selection': _Values(_FLOAT, 0, 1),
    'values': _Values((torch.float32, torch.float16, torch.bfloat16), -65504, 65504),  # float16's range
    'valid': _FLAGS,
    'owner': _Values((torch.int16,), BACKGROUND, 253),
    'use': _Values(_FLOAT, 0, 1e12),
    'life': _Values(_FLOAT, 1e-8, 1e12),  # a divisor
    'near': _FLAGS,
    'sensory': _Values(_FLOAT, -1 - _ROUNDING, 1 + _ROUNDING),
    'last_seen': _Values(_FLOAT, 0, 1 + _ROUNDING),
    'looks': _Values(_FLOAT, -1 - _ROUNDING, 1 + _ROUNDING),
    'filled': _FLAGS,
    _EMPTY: _Values(_FLOAT),
}


def write(snapshot: Snapshot, path: Path) -> None:
    """Write a memory file; it takes its name once complete. Raises `MemoryFileWriteError`."""
    tensors, schema = _pack(snapshot)
    size = sum(tensor.nbytes for tensor in tensors.values())
    if size > LARGEST_FILE - LARGEST_HEADER:
        raise MemoryFileWriteError(
            f'{path}: this memory takes {size / 1e9:.1f} GB; at most {LARGEST_FILE / 1e9:.1f} GB are allowed: remove '
            'objects, or lower memory.long_term_elements or memory.max_working_frames'
        )
    state = msgspec.json.encode(schema).decode()
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
        raise MemoryFileWriteError(
            f'{path}: cannot be written ({error}); an older file of that name is unchanged'
        ) from error


def read(path: Path, weights: str) -> Snapshot:
    """Read and validate a memory file.

    weights: fingerprint of the network that will use it. Raises `MemoryFileError`.
    """
    header, tensors = _read_file(path)
    if header.get('format') != FORMAT:
        raise MemoryFileError(f'{path}: another safetensors file, not a memory file; give a file that save wrote')
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
        raise MemoryFileError(f'{path}: damaged, the content does not match its digest; use another copy')
    try:
        if len(state) > LARGEST_HEADER:
            raise ValueError(f'its header has {len(state)} characters; at most {LARGEST_HEADER} are allowed')
        schema = msgspec.json.decode(state, type=SnapshotHeader)
        _check_values(tensors)
        return _unpack(weights, tensors, schema)
    except (msgspec.MsgspecError, ValueError, FrameError, RecursionError) as error:
        raise MemoryFileError(
            f'{path}: refused, it is damaged or was not written by this program ({summary_of(error)}); use another copy'
        ) from error


def check_fits(snapshot: Snapshot, network: NetworkConfig) -> None:
    """Raise `MemoryFileError` unless the tensors have the channels of a network."""
    state = snapshot.state
    if (state is None) != (not snapshot.table.entries):
        raise MemoryFileError(
            'the saved memory does not fit: it has objects without memory, or memory without objects; use another copy'
        )
    if state is None:
        return
    frames = [*state.memory.ring, *(frame for _, frame in state.memory.anchors)]
    if state.memory.long_term is not None:
        frames.append(state.memory.long_term)
    widths = [
        ('keys', network.key_dim, {frame.key.shape[1] for frame in frames}),
        ('values', network.value_dim, {frame.values.shape[2] for frame in frames}),
        ('sensory memory', network.sensory_dim, {0 if state.sensory is None else state.sensory.shape[1]}),
        ('appearances', network.feature_widths[0] + COLOURS, {state.appearances.shape[2]}),
    ]
    for what, wanted, found in widths:
        if found - {wanted}:
            raise MemoryFileError(
                f'the saved memory does not fit: its {what} have {min(found - {wanted})} channels, but the weights '
                f'need {wanted}; load the weights that it was made with, or seed the objects again'
            )


def _read_file(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return header and tensors of a file; the tensors are copies."""
    try:
        if not path.is_file():
            raise MemoryFileMissingError(f'{path}: no such file; save a memory first')
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise MemoryFileError(
                f'{path}: refused, it has {size / 1e9:.1f} GB; a saved memory has {LARGEST_FILE / 1e9:.1f} GB at most'
            )
        with atomic.utf8_name(path) as name, safe_open(name, framework='pt') as file:
            # tensors that are not cloned depend on the file
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return file.metadata() or {}, tensors
    except MemoryFileError:
        raise
    except Exception as error:  # of any type for tensor types unknown to torch
        raise MemoryFileError(
            f'{path}: not readable as a saved memory, it may be cut off ({summary_of(error)}); use another copy'
        ) from error


def _check_values(tensors: dict[str, Tensor]) -> None:
    """Raise `ValueError` for a type or value that no tracker writes."""
    for name, tensor in tensors.items():
        allowed = _VALUES.get(name.rpartition('.')[2])
        if allowed is None:
            raise ValueError(f'it holds an unknown tensor {name!r:.80}')
        if tensor.dtype not in allowed.dtypes:
            raise ValueError(f'the tensor {name!r:.80} is of {tensor.dtype}')
        if not tensor.numel():
            continue
        plain = tensor.view(torch.uint8) if tensor.dtype == torch.bool else tensor  # a byte other than 0 and 1
        least, most = (float(value) for value in plain.aminmax())
        if not (least >= allowed.low and most <= allowed.high):  # true for NaN
            raise ValueError(
                f'the tensor {name!r:.80} holds {least:g}…{most:g}; allowed: {allowed.low:g}…{allowed.high:g}'
            )


def _pack(snapshot: Snapshot) -> tuple[dict[str, Tensor], SnapshotHeader]:
    """Return a snapshot's tensors by name, and its JSON."""
    state = snapshot.state
    tensors: dict[str, Tensor] = {_EMPTY: torch.zeros(1)}
    if state is None:
        return tensors, SnapshotHeader(snapshot.table, snapshot.clock, None)
    memory = state.memory
    schema = SnapshotHeader(
        snapshot.table,
        snapshot.clock,
        MemoryHeader(
            cohorts=list(memory.cohorts.items()),
            partial=sorted(memory.partial),
            ring=len(memory.ring),
            anchors=[AnchorHeader(anchor.rows, sorted(anchor.first)) for anchor, _ in memory.anchors],
            long_term=memory.long_term is not None,
        ),
        GeometryHeader(**dataclasses.asdict(state.geometry)),
        state.seeds,
    )
    tensors |= {'last_seen': state.last_seen, 'looks': state.appearances, 'filled': state.filled}
    if state.sensory is not None:
        tensors['sensory'] = state.sensory
    groups = {f'ring.{i}': frame for i, frame in enumerate(memory.ring)}
    groups |= {f'anchor.{i}': frame for i, (_, frame) in enumerate(memory.anchors)}
    if memory.long_term is not None:
        groups['long_term'] = memory.long_term
    for group, positions in groups.items():
        tensors |= {f'{group}.{name}': getattr(positions, name) for name in _POSITIONS}
    tensors |= {f'anchor.{i}.near': anchor.near for i, (anchor, _) in enumerate(memory.anchors)}
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, schema


def _unpack(weights: str, tensors: dict[str, Tensor], schema: SnapshotHeader) -> Snapshot:
    """Build a snapshot; raises `ValueError` for missing, unknown or contradicting parts."""
    header, left = schema.memory, dict(tensors)
    left.pop(_EMPTY, None)

    def take(name: str, *shape: int | None) -> Tensor:
        """Return a tensor after checking its shape; None: any length."""
        tensor = left.pop(name, None)
        if tensor is None:
            raise ValueError(f'the tensor {name!r} is absent')
        if len(tensor.shape) != len(shape) or any(
            wanted not in (None, got) for wanted, got in zip(shape, tensor.shape, strict=True)
        ):
            raise ValueError(f'the tensor {name!r} has the shape {tuple(tensor.shape)}')
        return tensor

    entries = schema.table.entries
    _check_table(schema)
    if header is None:
        if entries or left:
            raise ValueError('it has objects without memory')
        return Snapshot(weights, schema.table, schema.clock, None)
    rows, count = [entry.row for entry in entries], len(entries)
    if not rows or [row for row, _ in header.cohorts] != rows:
        raise ValueError('its cohorts are of other objects')
    if schema.seeds is None or len(schema.seeds) != count:
        raise ValueError('it does not have one count of seeds for each object')

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
        if not set(frame.owner.tolist()) <= {BACKGROUND, *rows}:
            raise ValueError(f'{group} has owners that are no objects')
        return frame

    anchors = [
        (_anchor(item, take(f'anchor.{i}.near', len(frame)), rows), frame)
        for i, item in enumerate(header.anchors)
        for frame in [positions(f'anchor.{i}')]
    ]
    cohorts = dict(header.cohorts)
    memory = MemoryState(
        cohorts,
        set(header.partial) & set(cohorts.values()),
        anchors,
        [positions(f'ring.{i}') for i in range(header.ring)],
        positions('long_term') if header.long_term else None,
    )
    geometry = _geometry(schema.geometry)
    state = SegmenterState(
        geometry,
        memory,
        take('sensory', count, None, *geometry.grid_size) if 'sensory' in left else None,
        take('last_seen', count, *geometry.grid_size),
        take('looks', count, SLOTS, None),
        take('filled', count, SLOTS),
        list(schema.seeds),
    )
    if left:
        raise ValueError(f'it holds an unknown tensor {min(left)!r:.80}')
    return Snapshot(weights, schema.table, schema.clock, state)


def _check_table(schema: SnapshotHeader) -> None:
    """Raise `ValueError` unless ids ascend, rows are unique, and no time is after the clock."""
    table, clock = schema.table, schema.clock
    ids, rows = [entry.id for entry in table.entries], [entry.row for entry in table.entries]
    if ids != sorted(set(ids)) or (ids and ids[-1] >= table.next_id):
        raise ValueError(f'its ids are {ids[:10]}, the next one is {table.next_id}: they must ascend')
    if len(set(rows)) < len(rows):
        raise ValueError('two of its objects have one label')
    if clock.last_memory_frame > clock.frame:
        raise ValueError('its last memory frame is in the future')
    for entry in table.entries:
        if not entry.seeded_at <= entry.seen_at <= clock.frame:
            raise ValueError(f'object {entry.id} was seen before its seed, or in the future')
        shown = entry.shown
        if shown is not None and (shown.id, shown.label) != (entry.id, label_of(entry.row)):
            raise ValueError(f'object {entry.id} has the id or label of another')
        if shown is not None and (shown.box is None) != (shown.centroid is None):
            raise ValueError(f'object {entry.id} has a box without a centroid, or a centroid without a box')


def _anchor(header: AnchorHeader, near: Tensor, rows: Sequence[int]) -> Anchor:
    seeded, first = list(header.rows), set(header.first)
    if len(set(seeded)) < len(seeded) or not set(seeded) <= set(rows) or not first <= set(seeded):
        raise ValueError('its anchors are of other objects')
    return Anchor(len(near), near, seeded, first)


def _geometry(header: GeometryHeader | None) -> FrameGeometry:
    """Return the geometry; raises `ValueError`, `FrameError` for sizes that do not match."""
    if header is None:
        raise ValueError('the size of its frames is absent')
    geometry = FrameGeometry(header.image_size, header.working_size, header.padding)
    for shorter_side in (0, min(geometry.working_size)):
        if geometry == FrameGeometry.of(geometry.image_size, shorter_side):
            return geometry
    raise ValueError(f'its frames of {geometry.image_size} (H, W) cannot have the working size {geometry.working_size}')
