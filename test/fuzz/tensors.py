# SPDX-License-Identifier: MIT
"""Kinds `weights` and `memory`: safetensors, .pth, and saved memories whose digest is right again."""

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

from fuzz.chance import Chance, spoil_bytes, spoil_tree
from fuzz.kind import Kind, frames, mask, saved, tiny_file, tiny_weights, torch_saved
from fuzz.sandbox import Link, Places

DTYPES = ['F64', 'F32', 'F16', 'BF16', 'I64', 'I8', 'U8', 'BOOL', 'F8_E4M3', 'C64', 'X']
KINDS = [torch.float64, torch.float32, torch.int64, torch.uint8, torch.bool, torch.complex64, torch.bfloat16]


class Runs:
    """A pickle that would run something."""

    def __reduce__(self) -> Any:
        return os.mkdir, ('EXECUTED',)


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a safetensors file."""
    (length,) = struct.unpack_from('<Q', data)
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def joined(header: Any, body: bytes, length: int | None = None) -> bytes:
    """A safetensors file of a header, whatever it holds."""
    text = json.dumps(header).encode(errors='replace')
    return struct.pack('<Q', len(text) if length is None else length) + text + body


def spoil_header(chance: Chance, data: bytes) -> bytes:
    """Edit the header as JSON; half of the times so that it stays a sound safetensors file."""
    header, body = split(data)
    names = [name for name in header if name != '__metadata__']
    for _ in chance.several():
        name = chance.pick(names)
        entry = header.get(name)
        if not isinstance(entry, dict):
            continue
        kind = chance.whole(0, 6)
        chance.note(f'{name}: {kind}')
        if kind == 0:
            entry['dtype'] = chance.pick(DTYPES)
        elif kind == 1:
            entry['shape'] = spoiled_shape(chance, entry['shape'])
        elif kind == 2:
            entry['shape'] = list(reversed(entry['shape'])) if chance.often(50) else [int(np.prod(entry['shape']))]
        elif kind == 3:
            header[renamed(chance, name)] = header.pop(name)
        elif kind == 4:
            header.pop(name)
        elif kind == 5:
            header[renamed(chance, name)] = {'dtype': 'F16', 'shape': [0], 'data_offsets': [len(body)] * 2}
        else:
            header[name] = spoil_tree(chance, entry)
    return joined(header, body, int(chance.pick([0, 2**63, 2**40])) if chance.often(5) else None)


def renamed(chance: Chance, name: str) -> str:
    """Another name, of a deeper block for one."""
    parts = name.split('.')
    numbers = [place for place, part in enumerate(parts) if part.isdigit()]
    if numbers and chance.often(70):
        parts[chance.pick(numbers)] = str(chance.pick([1, 7, 300, 100_000, 10**9, 10**30]))
        return '.'.join(parts)
    return chance.text()


def spoiled_shape(chance: Chance, shape: list[int]) -> list[Any]:
    """Another shape."""
    kind = chance.whole(0, 4)
    if kind == 0:
        return [*shape, 1]
    if kind == 1:
        return shape[1:]
    if kind == 2:
        return [0, *shape[1:]]
    return [chance.pick([0, 1, 3, 5, 4096, 2**31, 2**62]) if chance.often(50) else side for side in shape]


def spoiled_tensor(chance: Chance, tensor: torch.Tensor) -> Any:
    """Another tensor, or something that is none."""
    kind = chance.whole(0, 10)
    if kind == 0:
        return tensor.reshape(-1)
    if kind == 1:
        odd = chance.pick([float('nan'), float('inf'), 0.0, 6e4])
        return torch.full_like(tensor, odd) if tensor.is_floating_point() else torch.zeros_like(tensor)
    if kind == 2:
        return tensor.to(chance.pick(KINDS))
    if kind == 3:
        return torch.zeros([min(int(side), 2048) for side in spoiled_shape(chance, list(tensor.shape))][:4])
    if kind == 4:  # a few bytes that stand for very many
        return torch.zeros(1).expand([chance.pick([16, 4096, 10**6]) for _ in range(max(tensor.dim(), 1))])
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
    return chance.value()


def spoil_pth(chance: Chance, data: bytes) -> bytes:
    """Edit what is pickled, the pickle inside the archive, or the archive."""
    kind = chance.whole(0, 9)
    chance.note(f'.pth: {kind}')
    if kind < 5:
        state: Any = dict(torch.load(io.BytesIO(data), weights_only=True))
        for _ in chance.several():
            name = chance.pick(list(state))
            if chance.often(70):
                state[name] = spoiled_tensor(chance, state[name]) if isinstance(state[name], torch.Tensor) else 1
            else:
                value = state.pop(name) if chance.often(50) else state[name]
                state[renamed(chance, name) if chance.often(80) else chance.number()] = value
        if chance.often(15):
            state = chance.pick([{'ema': state}, {'ema': {'x': state}}, [state], {'state_dict': state}])
        if chance.often(5):
            state = {**state, 'x': Runs()} if isinstance(state, dict) else Runs()
        return torch_saved(state)
    if kind < 8:
        stream = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, 'w') as new:
            for item in old.infolist():
                content = old.read(item)
                if item.filename.endswith('data.pkl') or chance.whole(0, 99) < 1:
                    content = spoil_bytes(chance, content)
                if chance.whole(0, 199) < 1:
                    content = content * 1000
                new.writestr(item.filename, content, chance.pick([0, 0, 0, 8]) if kind == 7 else 0)
        return stream.getvalue()
    return spoil_bytes(chance, data)


def _make_weights() -> list[dict[str, bytes]]:
    from safetensors.torch import load

    return [{'w.safetensors': tiny_weights()}, {'w.pth': torch_saved(load(tiny_weights()))}]


def _spoil_weights(chance: Chance, files: dict[str, bytes]) -> dict[str, bytes | Link]:
    ((name, data),) = files.items()
    if name.endswith('.pth'):
        return {name: spoil_pth(chance, data)}
    return {name: spoil_header(chance, data) if chance.often(75) else spoil_bytes(chance, data)}


def _use_weights(places: Places) -> int:
    """`Tracker.from_weights`, and two frames where that succeeds."""
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

    memory = MemoryConfig(max_working_frames=4, min_working_frames=2, prototypes=4, long_term_elements=64)
    config = TrackerConfig(size=16, memory_every=1, max_objects=4, memory=memory, precision='float32')
    return Tracker.from_weights(tiny_file(), config=config, device='cpu')


def _spoil_memory(chance: Chance, files: dict[str, bytes]) -> dict[str, bytes | Link]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    from xmem_ros.weights.checkpoint import digest

    ((name, data),) = files.items()
    kind = chance.whole(0, 9)
    if kind == 0:
        return {name: spoil_bytes(chance, data)}
    if kind == 1:
        return {name: spoil_header(chance, data)}
    header, body = split(data)
    about = dict(header['__metadata__'])
    if kind < 6:
        state = spoil_tree(chance, json.loads(about['state']))
        about['state'] = json.dumps(state)
    elif kind < 9:
        data = spoil_header(chance, data) if chance.often(40) else _other_tensors(chance, data)
    else:
        about = {**about, chance.pick(list(about)): chance.text()}
    try:  # as whoever wrote it on purpose would
        tensors = load(data)
        header, body = split(data)
        about['digest'] = digest(sorted(tensors.items()), about.get('state', ''))
    except (SafetensorError, ValueError, KeyError, TypeError):
        pass
    return {name: joined({**header, '__metadata__': about}, body)}


def _other_tensors(chance: Chance, data: bytes) -> bytes:
    from safetensors import SafetensorError
    from safetensors.torch import load, save

    tensors = load(data)
    for _ in chance.several():
        name = chance.pick(sorted(tensors))
        chance.note(name)
        new = spoiled_tensor(chance, tensors[name])
        if isinstance(new, torch.Tensor) and new.numel() < 10**6 and new.device.type == 'cpu':
            tensors[name] = new
    try:
        return save({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()})
    except (SafetensorError, ValueError, RuntimeError, KeyError):
        return data


def _use_memory(places: Places) -> int:
    """`Tracker.load`, and three frames where that succeeds."""
    tracker = _tracker()
    tracker.load(places.input / 'm.safetensors')
    for frame in frames():
        tracker.step(frame)
    return 0


def kinds() -> list[Kind]:
    """The kinds of this module."""
    from xmem_ros.errors import MemoryFileError, WeightsError

    return [
        Kind('weights', _make_weights, _spoil_weights, _use_weights, (WeightsError,)),
        Kind('memory', lambda: [{'m.safetensors': _memory()}], _spoil_memory, _use_memory, (MemoryFileError,)),
    ]
