# SPDX-License-Identifier: MIT
"""Kinds `weights` and `memory`: mutated safetensors and .pth files, memories with valid digests."""

from __future__ import annotations

import functools
import io
import json
import os
import struct
import zipfile
from typing import Any

import numpy as np
import torch

from fuzz.kinds import Kind, frames, keep_networks, mask, saved, tiny_file, tiny_weights, torch_saved
from fuzz.mutation import Source, mutate_bytes, mutate_tree
from fuzz.sandbox import Link, Places

DTYPES = ['F64', 'F32', 'F16', 'BF16', 'I64', 'I8', 'U8', 'BOOL', 'F8_E4M3', 'C64', 'X']
KINDS = [torch.float64, torch.float32, torch.int64, torch.uint8, torch.bool, torch.complex64, torch.bfloat16]


class Runs:
    """Object whose unpickling would run code."""

    def __reduce__(self) -> Any:
        return os.mkdir, ('EXECUTED',)


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Split a safetensors file into header and tensors."""
    (length,) = struct.unpack_from('<Q', data)
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def joined(header: Any, body: bytes, length: int | None = None) -> bytes:
    """Join any header and tensors into a safetensors file."""
    text = json.dumps(header).encode(errors='replace')
    return struct.pack('<Q', len(text) if length is None else length) + text + body


def mutate_header(source: Source, data: bytes) -> bytes:
    """Mutate names, types and shapes in the header."""
    header, body = split(data)
    names = [name for name in header if name != '__metadata__']
    for _ in source.several():
        name = source.pick(names)
        entry = header.get(name)
        if not isinstance(entry, dict) or not all(type(side) is int for side in entry.get('shape') or [None]):
            continue
        kind = source.between(0, 6)
        source.note(f'{name}: {kind}')
        if kind == 0:
            entry['dtype'] = source.pick(DTYPES)
        elif kind == 1:
            entry['shape'] = mutated_shape(source, entry['shape'])
        elif kind == 2:
            entry['shape'] = list(reversed(entry['shape'])) if source.chance(50) else [int(np.prod(entry['shape']))]
        elif kind == 3:
            header[renamed(source, name)] = header.pop(name)
        elif kind == 4:
            header.pop(name)
        elif kind == 5:
            header[renamed(source, name)] = {'dtype': 'F16', 'shape': [0], 'data_offsets': [len(body)] * 2}
        else:
            header[name] = mutate_tree(source, entry)
    return joined(header, body, int(source.pick([0, 2**63, 2**40])) if source.chance(5) else None)


def renamed(source: Source, name: str) -> str:
    """Draw another name, often of a deeper block."""
    parts = name.split('.')
    numbers = [place for place, part in enumerate(parts) if part.isdigit()]
    if numbers and source.chance(70):
        parts[source.pick(numbers)] = str(source.pick([1, 7, 300, 100_000, 10**9, 10**30]))
        return '.'.join(parts)
    return source.text()


def mutated_shape(source: Source, shape: list[int]) -> list[Any]:
    """Draw another shape."""
    kind = source.between(0, 4)
    if kind == 0:
        return [*shape, 1]
    if kind == 1:
        return shape[1:]
    if kind == 2:
        return [0, *shape[1:]]
    return [source.pick([0, 1, 3, 5, 4096, 2**31, 2**62]) if source.chance(50) else side for side in shape]


def mutated_tensor(source: Source, tensor: torch.Tensor) -> Any:
    """Draw another tensor, or a value of another type."""
    kind = source.between(0, 10)
    if kind == 0:
        return tensor.reshape(-1)
    if kind == 1:
        odd = source.pick([float('nan'), float('inf'), 0.0, 6e4])
        return torch.full_like(tensor, odd) if tensor.is_floating_point() else torch.zeros_like(tensor)
    if kind == 2:
        return tensor.to(source.pick(KINDS))
    if kind == 3:
        return torch.zeros([min(int(side), 2048) for side in mutated_shape(source, list(tensor.shape))][:4])
    if kind == 4:  # stride 0: few bytes, many elements
        return torch.zeros(1).expand([source.pick([16, 1024, 30_000]) for _ in range(max(tensor.dim(), 1))])
    if kind == 5:
        return torch.zeros(())
    if kind == 6:
        return torch.zeros(2, 2).to_sparse()
    if kind == 7:
        return torch.nn.Parameter(tensor) if tensor.is_floating_point() else tensor
    if kind == 8:
        return torch.zeros(3, device='meta')
    if kind == 9:
        return tensor.as_strided(list(tensor.shape), [0] * tensor.dim())
    return source.value()


def mutate_pth(source: Source, data: bytes) -> bytes:
    """Mutate the pickled state, the pickle in the archive, or the archive."""
    kind = source.between(0, 9)
    source.note(f'.pth: {kind}')
    if kind < 5:
        state: Any = dict(torch.load(io.BytesIO(data), weights_only=True))
        for _ in source.several():
            name = source.pick(list(state))
            if source.chance(70):
                state[name] = mutated_tensor(source, state[name]) if isinstance(state[name], torch.Tensor) else 1
            else:
                value = state.pop(name) if source.chance(50) else state[name]
                state[renamed(source, str(name)) if source.chance(80) else source.number()] = value
        if source.chance(15):
            state = source.pick([{'ema': state}, {'ema': {'x': state}}, [state], {'state_dict': state}])
        if source.chance(5):
            state = {**state, 'x': Runs()} if isinstance(state, dict) else Runs()
        return torch_saved(state)
    if kind < 8:
        stream = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, 'w') as new:
            for item in old.infolist():
                content = old.read(item)
                if item.filename.endswith('data.pkl') or source.between(0, 99) < 1:
                    content = mutate_bytes(source, content)
                if source.between(0, 199) < 1:
                    content = content * 1000
                new.writestr(item.filename, content, source.pick([0, 0, 0, 8]) if kind == 7 else 0)
        return stream.getvalue()
    return mutate_bytes(source, data)


def _make_weights() -> list[dict[str, bytes]]:
    from safetensors.torch import load

    return [{'w.safetensors': tiny_weights()}, {'w.pth': torch_saved(dict(sorted(load(tiny_weights()).items())))}]


def _mutate_weights(source: Source, files: dict[str, bytes]) -> dict[str, bytes | Link]:
    ((name, data),) = files.items()
    if name.endswith('.pth'):
        return {name: mutate_pth(source, data)}
    return {name: mutate_header(source, data) if source.chance(75) else mutate_bytes(source, data)}


def _use_weights(places: Places) -> int:
    """Call `Tracker.from_weights`; on success track two frames."""
    from xmem_ros.tracker import Tracker, TrackerConfig

    (path,) = places.input.iterdir()
    tracker = Tracker.from_weights(path, config=TrackerConfig(size=16), device='cpu')
    tracker.seed(frames()[0], {'it': mask()})
    tracker.step(frames()[1])
    return 0


@functools.cache
def _memory() -> bytes:
    from xmem_ros.tracker import Tracker

    tracker = _tracker()
    tracker.seed(frames()[0], {'it': mask() == 1, 'other': mask() == 0})
    for index in range(14):
        tracker.step(frames()[index % len(frames())])
    assert isinstance(tracker, Tracker)
    return saved(tracker.save, 'm.safetensors')


def _tracker() -> Any:
    from xmem_ros.memory.config import MemoryConfig
    from xmem_ros.tracker import Tracker, TrackerConfig

    keep_networks()
    memory = MemoryConfig(max_working_frames=4, min_working_frames=2, prototypes=4, long_term_elements=64)
    config = TrackerConfig(size=16, memory_every=1, max_objects=4, memory=memory, precision='float32')
    return Tracker.from_weights(tiny_file(), config=config, device='cpu')


def _mutate_memory(source: Source, files: dict[str, bytes]) -> dict[str, bytes | Link]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    from xmem_ros.weights.checkpoint import digest

    ((name, data),) = files.items()
    kind = source.between(0, 9)
    if kind == 0:
        return {name: mutate_bytes(source, data)}
    if kind == 1:
        return {name: mutate_header(source, data)}
    header, body = split(data)
    about = dict(header['__metadata__'])
    if kind < 6:
        state = mutate_tree(source, json.loads(about['state']))
        about['state'] = json.dumps(state)
    elif kind < 9:
        data = mutate_header(source, data) if source.chance(40) else _other_tensors(source, data)
    else:
        about = {**about, source.pick(list(about)): source.text()}
    try:  # an attacker can compute the digest, too
        tensors = load(data)
        header, body = split(data)
        about['digest'] = digest(sorted(tensors.items()), about.get('state', ''))
    except (SafetensorError, ValueError, KeyError, TypeError):
        pass
    return {name: joined({**header, '__metadata__': about}, body)}


def _other_tensors(source: Source, data: bytes) -> bytes:
    from safetensors import SafetensorError
    from safetensors.torch import load, save

    tensors = load(data)
    for _ in source.several():
        name = source.pick(sorted(tensors))
        source.note(name)
        new = mutated_tensor(source, tensors[name])
        if isinstance(new, torch.Tensor) and new.numel() < 10**6 and new.device.type == 'cpu':
            tensors[name] = new
    try:
        return save({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()})
    except (SafetensorError, ValueError, RuntimeError, KeyError):
        return data


def _use_memory(places: Places) -> int:
    """Call `Tracker.load`; on success track three frames."""
    tracker = _tracker()
    tracker.load(places.input / 'm.safetensors')
    for frame in frames():
        tracker.step(frame)
    return 0


def kinds() -> list[Kind]:
    """List the kinds of this module."""
    from xmem_ros.errors import MemoryFileError, WeightsError

    return [
        Kind('weights', _make_weights, _mutate_weights, _use_weights, (WeightsError,)),
        Kind('memory', lambda: [{'m.safetensors': _memory()}], _mutate_memory, _use_memory, (MemoryFileError,)),
    ]
