# SPDX-License-Identifier: MIT
"""Memory files: a tracker continues bit for bit, or refuses the file and is unchanged."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.errors import MemoryFileError
from xmem_ros.memory.config import MemoryConfig
from xmem_ros.tracker import Tracker, TrackerConfig
from xmem_ros.weights.checkpoint import load_network
from xmem_ros.weights.files import find_weights

SMALL = MemoryConfig(max_working_frames=4, min_working_frames=2, long_term_elements=150, prototypes=40)


@pytest.fixture(scope='module')
def scene() -> RenderedScene:
    return RenderedScene((96, 160), 40, 3, seed=0)


def make(network, **settings) -> Tracker:
    config = {'size': 96, 'max_objects': 4, 'memory_every': 2, 'memory': SMALL, **settings}
    return Tracker(network, TrackerConfig(**config), 'cpu')


def a_while(tracker: Tracker, scene: RenderedScene) -> None:
    """Track three objects, seeded at different times, one removed, until positions are evicted."""
    frame, truth = scene[0]
    tracker.seed(frame, {'first': truth == 1})
    for number in range(1, 30):
        frame, truth = scene[number]
        tracker.step(frame, time=number / 10)
        if number == 5:
            tracker.seed(frame, {'gone': truth == 3})
        if number == 9:
            tracker.seed(frame, {'late': truth == 2})
        if number == 12:
            tracker.remove([2])
        if number == 20:
            tracker.seed(frame, {1: truth == 1})
    assert tracker.memory_elements['long_term'] == 150


@pytest.fixture(scope='module')
def saved(network, scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Memory file of a tracker after `a_while`."""
    tracker = make(network)
    a_while(tracker, scene)
    path = tmp_path_factory.mktemp('saved') / 'm.safetensors'
    tracker.save(path)
    return path


def go_on(tracker: Tracker, scene: RenderedScene) -> list[tuple[np.ndarray, list]]:
    results = [tracker.step(scene[number][0], time=number / 10) for number in range(30, 40)]
    return [(result.labels, result.objects) for result in results]


def test_a_restarted_tracker_continues_bit_for_bit(network, scene: RenderedScene, tmp_path: Path) -> None:
    tracker = make(network)
    a_while(tracker, scene)
    before = tracker.objects
    tracker.save(tmp_path / 'memory.safetensors')
    expected = go_on(tracker, scene)
    other = make(network)
    other.seed(scene[0][0], {'something': scene[0][1] == 2, 'else': scene[0][1] == 3})
    assert other.load(tmp_path / 'memory.safetensors') == [1, 3]
    assert other.objects == before
    for (labels, objects), (want, wanted) in zip(go_on(other, scene), expected, strict=True):
        assert np.array_equal(labels, want)
        assert objects == wanted
    assert other.seed(scene[0][0], {'new': scene[0][1] == 3}) == [4], 'ids go on'


def test_a_second_save_replaces_the_file_and_leaves_nothing_beside_it(network, scene, tmp_path: Path) -> None:
    tracker = make(network)
    tracker.save(tmp_path / 'memory.safetensors')
    tracker.seed(scene[0][0], {'cup': scene[0][1] == 1})
    tracker.save(tmp_path / 'memory.safetensors')
    assert [path.name for path in tmp_path.iterdir()] == ['memory.safetensors']
    assert make(network).load(tmp_path / 'memory.safetensors') == [1]


def test_a_memory_file_without_objects_keeps_the_next_id(network, scene, tmp_path: Path) -> None:
    tracker = make(network)
    tracker.seed(scene[0][0], {'cup': scene[0][1] == 1})
    tracker.remove([1])
    tracker.save(tmp_path / 'm.safetensors')
    other = make(network)
    assert other.load(tmp_path / 'm.safetensors') == []
    assert other.seed(scene[0][0], {'cup': scene[0][1] == 1}) == [2]


def test_a_memory_file_fits_another_working_size_and_other_settings(network, scene, saved: Path) -> None:
    smaller = MemoryConfig(max_working_frames=3, min_working_frames=2, long_term_elements=60, prototypes=20)
    other = make(network, size=144, max_objects=8, memory=smaller)
    assert other.load(saved) == [1, 3]
    frame, truth = scene[30]
    result = other.step(frame)
    mask = result.labels == 1
    assert (mask & (truth == 1)).sum() > 0.5 * (mask | (truth == 1)).sum()
    assert other.memory_elements['long_term'] <= 60


@pytest.mark.parametrize('keep', [0, 7, 100, 0.5, 0.999])
def test_a_truncated_file_is_refused_and_changes_nothing(network, scene, saved, tmp_path: Path, keep: float) -> None:
    data = saved.read_bytes()
    path = tmp_path / 'm.safetensors'
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    tracker = make(network)
    tracker.seed(scene[0][0], {'it': scene[0][1] == 1})
    before, elements = tracker.objects, tracker.memory_elements
    with pytest.raises(MemoryFileError, match='cut off'):
        tracker.load(path)
    assert tracker.objects == before
    assert tracker.memory_elements == elements


def test_a_memory_file_with_a_flipped_bit_is_refused(network, saved: Path, tmp_path: Path) -> None:
    data = bytearray(saved.read_bytes())
    data[-1000] ^= 4
    (tmp_path / 'm.safetensors').write_bytes(data)
    with pytest.raises(MemoryFileError, match='digest'):
        make(network).load(tmp_path / 'm.safetensors')


def test_a_memory_file_with_a_changed_header_is_refused(network, saved: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(saved, tmp_path))
    with safe_open(path, framework='pt') as file:
        state = file.metadata()['state']
    changed_header(path, state=state.replace('"next_id":4', '"next_id":5'))
    with pytest.raises(MemoryFileError, match='digest'):
        make(network).load(path)


def test_all_anchors_are_restored(network, scene, tmp_path: Path) -> None:
    """More anchors than whole frames fit, so that some are thinned."""
    tracker = make(network)
    frame, truth = scene[0]
    for value in (1, 2, 3):
        (key,) = tracker.seed(frame, {'it': truth == value})
        for _ in range(2):
            tracker.seed(frame, {key: truth == value})
    tracker.remove([3])
    tracker.seed(frame, {'it': truth == 3})
    sizes = [entry.positions for entry in tracker._segmenter.memory.anchors.frames]
    assert len(set(sizes)) > 1
    tracker.save(tmp_path / 'm.safetensors')
    other = make(network)
    other.load(tmp_path / 'm.safetensors')
    other.step(scene[1][0])
    assert [entry.positions for entry in other._segmenter.memory.anchors.frames] == sizes
    tracker.step(scene[1][0])
    assert other.memory_elements == tracker.memory_elements


def test_objects_are_removed_before_the_first_image_after_a_load(network, scene, saved: Path) -> None:
    other = make(network)
    other.load(saved)
    other.remove([1])
    assert [item.id for item in other.step(scene[30][0]).objects] == [3]
    store = other._segmenter.memory.store
    assert not store.valid[0].any()
    assert not (store.owner == 0).any()
    other.load(saved)
    other.remove([1, 3])
    assert other.step(scene[30][0]).objects == []
    assert other.memory_bytes == 0


def changed_header(path: Path, **values: str) -> None:
    with safe_open(path, framework='pt') as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata={**header, **values})


def test_a_memory_file_of_another_version_is_refused(network, tmp_path: Path) -> None:
    tracker = make(network)
    tracker.save(tmp_path / 'm.safetensors')
    changed_header(tmp_path / 'm.safetensors', version='99')
    with pytest.raises(MemoryFileError, match="version '99' of the format, but this program reads"):
        tracker.load(tmp_path / 'm.safetensors')


def test_a_memory_file_of_other_weights_is_refused(network, scene, tmp_path: Path) -> None:
    make(network).save(tmp_path / 'm.safetensors')
    other_network = load_network(find_weights('compact'))
    with torch.no_grad():
        next(other_network.parameters())[0, 0, 0, 0] += 1
    with pytest.raises(MemoryFileError, match='made with other weights'):
        make(other_network).load(tmp_path / 'm.safetensors')


def test_files_other_than_memory_files_are_refused(network, tmp_path: Path) -> None:
    tracker = make(network)
    with pytest.raises(MemoryFileError, match='no such file'):
        tracker.load(tmp_path / 'none.safetensors')
    (tmp_path / 'text.safetensors').write_text('not a safetensors file at all')
    with pytest.raises(MemoryFileError, match='not readable'):
        tracker.load(tmp_path / 'text.safetensors')
    save_file({'x': torch.zeros(3)}, tmp_path / 'other.safetensors')
    with pytest.raises(MemoryFileError, match='another safetensors file'):
        tracker.load(tmp_path / 'other.safetensors')


def test_objects_beyond_max_objects_are_refused(network, scene, tmp_path: Path) -> None:
    tracker = make(network)
    tracker.seed(scene[0][0], {'a': scene[0][1] == 1, 'b': scene[0][1] == 2})
    tracker.save(tmp_path / 'm.safetensors')
    with pytest.raises(MemoryFileError, match='max_objects is 1: raise it to 2'):
        make(network, max_objects=1).load(tmp_path / 'm.safetensors')


def test_an_unwritable_path_is_named(network, tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(MemoryFileError, match='cannot be written'):
        make(network).save(tmp_path / 'file' / 'm.safetensors')
