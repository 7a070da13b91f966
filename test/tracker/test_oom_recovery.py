# SPDX-License-Identifier: MIT
"""Out-of-memory recovery: the frame is tracked with less memory, and no object is lost.

On a CPU the fault is injected, at every place in turn; test_cuda.py provokes it with the
allocator's limit.
"""

import numpy as np
import pytest
import torch

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.errors import FrameError, OutOfMemoryError
from xmem_ros.memory.config import MemoryConfig
from xmem_ros.memory.memory import Memory
from xmem_ros.memory.store import Store
from xmem_ros.network.model import XMemNetwork
from xmem_ros.tracker import Tracker, TrackerConfig

SMALL = MemoryConfig(max_working_frames=4, min_working_frames=2, long_term_elements=160, prototypes=40)


@pytest.fixture(scope='module')
def scene() -> RenderedScene:
    return RenderedScene((128, 208), 40, 3, seed=0)


CONFIG = TrackerConfig(size=128, max_objects=4, memory_every=2, memory=SMALL)


@pytest.fixture(scope='module')
def tracked(network, scene: RenderedScene) -> Tracker:
    """A tracker that has tracked two objects up to frame 18."""
    tracker = Tracker(network, CONFIG, 'cpu')
    frame, truth = scene[0]
    tracker.seed(frame, {'a': truth == 1, 'b': truth == 2})
    for number in range(1, 19):
        tracker.step(scene[number][0])
    return tracker


@pytest.fixture
def tracker(network, scene: RenderedScene, tracked: Tracker) -> Tracker:
    """A new tracker that continues with frame 19, and so has allocated its stores."""
    tracker = Tracker(network, CONFIG, 'cpu')
    tracker.import_state(tracked.export_state())
    tracker.step(scene[19][0])
    return tracker


class Failing:
    """Wrapper of a method whose chosen calls fail like an allocation."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, times: int, after: int = 0):
        self.left, self.after, self.calls = times, after, 0
        original = getattr(owner, name)

        def call(*args, **kwargs):
            self.calls += 1
            if self.calls > self.after and self.left:
                self.left -= 1
                raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)


PLACES = [
    (XMemNetwork, 'encode_image'),
    (Memory, 'read'),
    (XMemNetwork, 'decode'),
    (XMemNetwork, 'encode_value'),
    (Memory, 'consolidate'),
]


@pytest.fixture(scope='module')
def undisturbed(network, scene: RenderedScene, tracked: Tracker) -> list[tuple[np.ndarray, list[int], dict[str, int]]]:
    """Labels, ids and memory elements of frames 20 to 27 without a fault."""
    tracker = Tracker(network, CONFIG, 'cpu')
    tracker.import_state(tracked.export_state())
    tracker.step(scene[19][0])
    results = [(tracker.step(scene[number][0]), tracker.memory_elements) for number in range(20, 28)]
    return [(result.labels, [o.id for o in result.objects], elements) for result, elements in results]


@pytest.mark.parametrize(('owner', 'name'), PLACES, ids=[name for _, name in PLACES])
def test_smaller_chunks_are_tried_first_and_keep_the_masks(
    monkeypatch, scene, tracker: Tracker, undisturbed, owner: type, name: str
) -> None:
    """Smaller chunks give the same masks, and a failed attempt leaves no trace."""
    failing = Failing(monkeypatch, owner, name, times=1)
    differing = []
    for number, (labels, ids, elements) in enumerate(undisturbed, 20):
        result = tracker.step(scene[number][0])
        differing.append((result.labels != labels).mean())
        assert [o.id for o in result.objects] == ids
        assert tracker.memory_elements == elements
    assert failing.left == 0
    assert tracker.given_up == ['memory is read in smaller parts']
    assert np.mean(differing) < 1e-4  # products of another shape round otherwise: single pixels at the rim


def test_long_term_memory_is_halved_next_and_then_the_size_is_lowered(monkeypatch, scene, tracker: Tracker) -> None:
    before = tracker.memory_bytes
    Failing(monkeypatch, Memory, 'read', times=3)
    result = tracker.step(scene[20][0])
    assert [o.id for o in result.objects] == [1, 2]
    assert tracker.given_up == [
        'memory is read in smaller parts',
        'long-term memory was halved to 80 elements',
        'the working size was lowered to 96 px',
    ]
    assert tracker.memory_bytes < before
    truth = scene[21][1]
    labels = tracker.step(scene[21][0]).labels
    assert ((labels == 1) & (truth == 1)).sum() > 0.5 * ((labels == 1) | (truth == 1)).sum()
    assert tracker.memory_elements['long_term'] <= 80


def test_the_frame_is_refused_after_the_last_measure_and_the_objects_stay(monkeypatch, scene, tracker) -> None:
    with monkeypatch.context() as patched:
        Failing(patched, XMemNetwork, 'encode_image', times=100)
        with pytest.raises(OutOfMemoryError, match='nothing more can be given up'):
            tracker.step(scene[20][0])
    assert [o.id for o in tracker.objects] == [1, 2]
    tracker.remove([1])
    result = tracker.step(scene[21][0])
    assert [o.id for o in result.objects] == [2]
    truth = scene[21][1] == 2
    assert ((result.labels == 2) & truth).sum() > 0.5 * truth.sum()


def test_a_failed_reallocation_of_stores_loses_nothing(monkeypatch, scene, tracker: Tracker) -> None:
    """A larger image needs new stores; if they fail, the state waits in host memory."""
    with monkeypatch.context() as patched:
        Failing(patched, Store, '__init__', times=2)
        large = np.repeat(scene[20][0], 2, 0)[:200]
        result = tracker.step(large)
    assert [o.id for o in result.objects] == [1, 2]
    assert [o.id for o in tracker.step(scene[21][0]).objects] == [1, 2]


def test_a_failed_seed_uses_no_id(monkeypatch, scene, tracker: Tracker) -> None:
    frame, truth = scene[20]
    with monkeypatch.context() as patched:
        Failing(patched, XMemNetwork, 'encode_value', times=100)
        with pytest.raises(OutOfMemoryError):
            tracker.seed(frame, {'c': truth == 3})
    assert tracker.seed(frame, {'c': truth == 3}) == [3]


def test_a_seed_that_fails_at_its_start_is_repeated(monkeypatch, scene, tracker: Tracker) -> None:
    from xmem_ros.tracker import frame_processor as module

    original, failed = module.mask_to_tensor, []

    def once(*args):
        if not failed:
            failed.append(True)
            raise torch.cuda.OutOfMemoryError('CUDA out of memory.')
        return original(*args)

    monkeypatch.setattr(module, 'mask_to_tensor', once)
    assert tracker.seed(scene[20][0], {'c': scene[20][1] == 3}) == [3]
    assert len(tracker.given_up) == 1


def test_seeded_objects_stay_if_consolidation_is_impossible(monkeypatch, scene, tracker: Tracker) -> None:
    Failing(monkeypatch, Memory, 'consolidate', times=1000)
    assert tracker.seed(scene[20][0], {'c': scene[20][1] == 3}) == [3]
    for number in range(21, 29):
        assert [o.id for o in tracker.step(scene[number][0]).objects] == [1, 2, 3]
    assert tracker.given_up[-1] == 'working frames were dropped without being consolidated'


def test_the_size_of_the_first_image_is_lowered_if_none_is_set(monkeypatch, network, scene) -> None:
    tracker = Tracker(network, TrackerConfig(size=0, max_objects=2, memory=SMALL), 'cpu')
    Failing(monkeypatch, Store, '__init__', times=2)
    assert tracker.seed(scene[0][0], {'a': scene[0][1] == 1}) == [1]
    assert tracker.given_up[-1] == 'the working size was lowered to 96 px'


def test_other_errors_do_not_start_recovery(monkeypatch, scene, tracker: Tracker) -> None:
    def broken(*_):
        raise RuntimeError('some other fault')

    monkeypatch.setattr(XMemNetwork, 'encode_image', broken)
    with pytest.raises(RuntimeError, match='some other fault'):
        tracker.step(scene[20][0])
    assert tracker.given_up == []


# --- budget


def test_stores_take_the_predicted_memory(network, scene: RenderedScene) -> None:
    for memory in (SMALL, MemoryConfig(), MemoryConfig(long_term=False)):
        config = TrackerConfig(size=128, max_objects=5, memory=memory)
        foretold = Tracker.memory_bytes_for((128, 208), 5, network=network.config, config=config, dtype=torch.float32)
        tracker = Tracker(network, config, 'cpu')
        tracker.seed(scene[0][0], {'a': scene[0][1] == 1})
        assert tracker.memory_bytes == foretold


@pytest.mark.parametrize('budget', [12.0, 20.0, 40.0])
def test_memory_stays_within_a_budget_and_uses_it(network, scene: RenderedScene, budget: float) -> None:
    config = TrackerConfig(size=128, max_objects=5, memory_budget_mb=budget)
    tracker = Tracker(network, config, 'cpu')
    tracker.seed(scene[0][0], {'a': scene[0][1] == 1})
    assert tracker.memory_bytes <= budget * 1e6
    unlimited = Tracker.memory_bytes_for(
        (128, 208), 5, network=network.config, config=TrackerConfig(size=128), dtype=torch.float32
    )
    assert tracker.memory_bytes >= 0.97 * min(budget * 1e6, unlimited)


def test_a_budget_that_is_too_small_is_refused_with_the_minimum(network, scene: RenderedScene) -> None:
    tracker = Tracker(network, TrackerConfig(size=128, max_objects=5, memory_budget_mb=1), 'cpu')
    with pytest.raises(FrameError, match=r'memory.budget_mb is 1, but frames of 208×128 px .* need .* MB at least'):
        tracker.seed(scene[0][0], {'a': scene[0][1] == 1})
