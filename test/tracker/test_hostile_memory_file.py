# SPDX-License-Identifier: MIT
"""Hostile memory files: refused with a `MemoryFileError`; tracking is unaffected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.errors import MemoryFileError, SeedError
from xmem_ros.memory.config import MemoryConfig
from xmem_ros.tracker import Tracker, TrackerConfig
from xmem_ros.tracker.snapshot import LARGEST_FILE
from xmem_ros.weights.checkpoint import digest

NAN, INF = float('nan'), float('inf')
Tensors, State = dict[str, Tensor], dict[str, Any]


@pytest.fixture(scope='module')
def scene() -> RenderedScene:
    return RenderedScene((96, 160), 20, 3, seed=0)


def make(network, scene: RenderedScene) -> Tracker:
    """Make a tracker of two objects seeded at different times, with all kinds of memory in use."""
    memory = MemoryConfig(max_working_frames=4, min_working_frames=2, long_term_elements=150, prototypes=40)
    tracker = Tracker(network, TrackerConfig(size=96, max_objects=4, memory_every=2, memory=memory), 'cpu')
    frame, truth = scene[0]
    tracker.seed(frame, {'first': truth == 1})
    for number in range(1, 12):
        frame, truth = scene[number]
        tracker.step(frame, {'second': truth == 2} if number == 3 else {}, time=number / 10)
    assert tracker.memory_elements['long_term']
    return tracker


@pytest.fixture(scope='module')
def parts(network, scene: RenderedScene, tmp_path_factory) -> tuple[dict[str, str], Tensors]:
    path = tmp_path_factory.mktemp('memory') / 'm.safetensors'
    make(network, scene).save(path)
    with safe_open(path, framework='pt') as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope='module')
def attacked(network, scene: RenderedScene):
    """A tracker that loads all hostile files; at the end it must track like an untouched one."""
    tracker = make(network, scene)
    yield tracker
    twin = make(network, scene)
    for number in (12, 13):
        ours, theirs = (each.step(scene[number][0], time=number / 10) for each in (tracker, twin))
        assert np.array_equal(ours.labels, theirs.labels)
        assert ours.objects == theirs.objects


@pytest.fixture
def running(attacked: Tracker):
    before = attacked.objects, attacked.memory_elements, attacked.export_state().clock
    yield attacked
    assert (attacked.objects, attacked.memory_elements, attacked.export_state().clock) == before


def write(path: Path, parts, change) -> Path:
    """Write a changed memory file with a matching digest."""
    header, tensors = dict(parts[0]), {name: tensor.clone() for name, tensor in parts[1].items()}
    state = json.loads(header['state'])
    changed = change(state, tensors)
    text = changed if isinstance(changed, str) else json.dumps(state)
    header |= {'state': text, 'digest': digest(sorted(tensors.items()), text)}
    save_file(tensors, path, metadata=header)
    return path


def put(*keys: Any, value: Any):
    """Return a change that sets an entry of the JSON header."""

    def change(state: State, tensors: Tensors) -> None:
        place: Any = state
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def fill(name: str, value: float):
    """Return a change that sets one value of a tensor."""

    def change(state: State, tensors: Tensors) -> None:
        tensors[name].view(-1)[-1] = value

    return change


def become(name: str, how):
    """Return a change that replaces a tensor."""

    def change(state: State, tensors: Tensors) -> None:
        tensors[name] = how(tensors[name]).contiguous()

    return change


def drop(name: str):
    def change(state: State, tensors: Tensors) -> None:
        del tensors[name]

    return change


def odd_flags(state: State, tensors: Tensors) -> None:
    tensors['filled'] = torch.full_like(tensors['filled'], 7, dtype=torch.uint8).view(torch.bool)


def narrower_values(state: State, tensors: Tensors) -> None:
    for name in [name for name in tensors if name.endswith('.values')]:
        tensors[name] = tensors[name][..., :-1].contiguous()


def narrower_keys(state: State, tensors: Tensors) -> None:
    for name in [name for name in tensors if name.endswith(('.key', '.selection'))]:
        tensors[name] = tensors[name][..., :-1].contiguous()


def no_memory(state: State, tensors: Tensors) -> None:
    state['memory'] = state['geometry'] = state['seeds'] = None
    for name in set(tensors) - {'empty'}:
        del tensors[name]


def two_of_one_id(state: State, tensors: Tensors) -> None:
    state['table']['entries'][1]['id'] = state['table']['entries'][0]['id']


FIRST = ('table', 'entries', 0)
CHANGES = {
    'an id below 1': put(*FIRST, 'id', value=-4),
    'an id that is a fraction': put(*FIRST, 'id', value=2.5),
    'an id that is a text': put(*FIRST, 'id', value='1'),
    'an id beyond 32 bits': put(*FIRST, 'id', value=2**40),
    'ids that do not ascend': two_of_one_id,
    'a next id that is taken': put('table', 'next_id', value=1),
    'a next id after which ids end': put('table', 'next_id', value=2**32 - 1),
    'a row of another object': put(*FIRST, 'row', value=1),
    'a row below 0': put(*FIRST, 'row', value=-1),
    'a name that is a number': put(*FIRST, 'name', value=5),
    'a name of megabytes': put(*FIRST, 'name', value='x' * 3_000_000),
    'a name with a null character': put(*FIRST, 'name', value='a\0b'),
    'a name that UTF-8 cannot hold': put(*FIRST, 'name', value='\ud800'),
    'an object seen in the future': put(*FIRST, 'seen_at', value=10**6),
    'a time that is a text': put(*FIRST, 'seen_time', value='now'),
    'a time that is not a number': put(*FIRST, 'seen_time', value=NAN),
    'an unknown state': put(*FIRST, 'shown', 'state', value=9),
    'a score beyond 1': put(*FIRST, 'shown', 'score', value=1e30),
    'a label of another object': put(*FIRST, 'shown', 'label', value=2),
    'a box of one number': put(*FIRST, 'shown', 'box', value=[1]),
    'a box of fractions': put(*FIRST, 'shown', 'box', value=[0.5, 0, 4, 4]),
    'an area below 0': put(*FIRST, 'shown', 'area', value=-1),
    'an unknown entry': put(*FIRST, 'method', value='remove'),
    'no table': put('table', value=None),
    'a clock of nothing': put('clock', value={}),
    'a clock that is no number': put('clock', 'frame', value='soon'),
    'a clock below 0': put('clock', 'frame', value=-5),
    'a clock at infinity': put('clock', 'time', value=INF),
    'a memory frame in the future': put('clock', 'last_memory_frame', value=10**6),
    'cohorts of other objects': put('memory', 'cohorts', value=[[0, 1], [3, 2]]),
    'cohorts that are none': put('memory', 'cohorts', value=[[0], [1]]),
    'more working frames than there are': put('memory', 'ring', value=10_000),
    'less working frames than there are': put('memory', 'ring', value=0),
    'an anchor of nobody known': put('memory', 'anchors', 0, 'rows', value=[3]),
    'a first seed of another object': put('memory', 'anchors', 0, 'first', value=[1]),
    'a frame of no size': put('geometry', 'image_size', value=[0, 160]),
    'a frame of another size': put('geometry', 'working_size', value=[96, 144]),
    'a frame of huge size': put('geometry', 'working_size', value=[60_000, 60_000]),
    'padding below 0': put('geometry', 'padding', value=[-16, 16, 0, 0]),
    'too few counts of seeds': put('seeds', value=[1]),
    'counts of seeds below 0': put('seeds', value=[-1, 1]),
    'no objects but a memory': put('table', 'entries', value=[]),
    'objects but no memory': no_memory,
    'JSON that is none': lambda state, tensors: '{"table": ',
    'JSON that is a list': lambda state, tensors: '[]',
    'JSON of a great depth': lambda state, tensors: '{"table":' * 100_000,
    'values that are not a number': fill('ring.0.values', NAN),
    'keys at infinity': fill('anchor.0.key', INF),
    'keys that overflow': fill('long_term.key', 1e38),
    'keys of integers': become('anchor.0.key', lambda t: t.int()),
    'keys of complex numbers': become('anchor.0.key', lambda t: t.to(torch.complex64)),
    'keys of another width': become('anchor.0.key', lambda t: t[:, :-1]),
    'keys of one dimension': become('anchor.0.key', lambda t: t.flatten()),
    'all keys of another width': narrower_keys,
    'all values of another width': narrower_values,
    'values in eight bits': become('ring.0.values', lambda t: t.to(torch.float8_e4m3fn)),
    'shrinkage below 0': fill('ring.0.shrinkage', -1.0),
    'selection beyond 1': fill('ring.0.selection', 2.0),
    'a life of 0': fill('ring.0.life', 0.0),
    'a use below 0': fill('ring.0.use', -1.0),
    'an owner that is no object': fill('ring.0.owner', 200),
    'an owner below the background': fill('ring.0.owner', -30_000),
    'less values than positions': become('ring.0.values', lambda t: t[:, :-1]),
    'a frame without positions': lambda state, tensors: tensors.update(
        {
            name: t[:, :0] if t.ndim > 1 and t.shape[0] == 2 else t[:0]
            for name, t in tensors.items()
            if 'ring.0.' in name
        }
    ),
    'values for other objects': become('ring.0.values', lambda t: t[:1]),
    'no values': drop('ring.0.values'),
    'an unknown tensor': lambda state, tensors: tensors.update({'ring.99.key': torch.zeros(1, 48)}),
    'sensory memory that is not a number': fill('sensory', NAN),
    'sensory memory beyond 1': fill('sensory', 1e20),
    'sensory memory of another size': become('sensory', lambda t: t[..., :-1]),
    'no sensory memory': drop('sensory'),
    'sensory memory of another width': become('sensory', lambda t: t[:, :-1]),
    'a last sight of another size': become('last_seen', lambda t: t[:, :-1]),
    'a last sight without dimensions': become('last_seen', lambda t: t.sum()),
    'appearances of another width': become('looks', lambda t: t[..., :-1]),
    'appearances in other slots': become('looks', lambda t: t[:, :-1]),
    'appearances that are not a number': fill('looks', NAN),
    'flags that are neither': odd_flags,
}


@pytest.mark.parametrize('name', CHANGES)
def test_a_changed_memory_file_is_refused_and_tracking_is_unaffected(
    running: Tracker, parts, tmp_path: Path, name: str
) -> None:
    path = write(tmp_path / 'm.safetensors', parts, CHANGES[name])
    with pytest.raises(MemoryFileError, match=r'm\.safetensors|does not fit') as raised:
        running.load(path)
    assert len(str(raised.value)) < 1000


def test_the_unchanged_memory_file_is_loaded(network, scene, parts, tmp_path: Path) -> None:
    """The refusals above are therefore due to the changes."""
    path = write(tmp_path / 'm.safetensors', parts, lambda state, tensors: None)
    assert make(network, scene).load(path) == [1, 2]


def test_an_endless_file_is_refused_unread(running: Tracker, tmp_path: Path) -> None:
    with (tmp_path / 'm.safetensors').open('wb') as file:
        file.truncate(LARGEST_FILE + 1)  # takes no room on the disk
    with pytest.raises(MemoryFileError, match='a saved memory has 2.1 GB at most'):
        running.load(tmp_path / 'm.safetensors')


@pytest.mark.parametrize('name', ['x' * 256, 'a\0b', '\ud800'])
def test_a_name_that_cannot_be_saved_is_refused(running: Tracker, scene, name: str) -> None:
    with pytest.raises(SeedError, match='seed 1: the name'):
        running.seed(scene[11][0], {name: scene[11][1] == 3})


def test_loaded_memory_is_independent_of_its_file(network, scene, parts, tmp_path: Path) -> None:
    path = write(tmp_path / 'm.safetensors', parts, lambda state, tensors: None)
    tracker = make(network, scene)
    tracker.load(path)
    path.write_bytes(b'')
    assert [item.id for item in tracker.step(scene[12][0], time=1.2).objects] == [1, 2]
