# SPDX-License-Identifier: MIT
"""Objects that join, are corrected and leave: the others are unaffected, and no memory grows."""

import gc
import weakref

import cv2
import numpy as np
import pytest
import torch
from masks import iou
from tiny_networks import TINY_CALIBRATED

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.memory.config import MemoryConfig
from xmem_ros.network.model import XMemNetwork
from xmem_ros.objects import ObjectState
from xmem_ros.tracker import Tracker, TrackerConfig


@pytest.fixture(scope='module')
def scene() -> RenderedScene:
    return RenderedScene((160, 288), 60, 3, seed=2)


def near(first: np.ndarray, second: np.ndarray) -> bool:
    """Return whether two masks are within 8 px of each other."""
    return bool((cv2.dilate(first.astype(np.uint8), np.ones((17, 17))).astype(bool) & second).any())


def held(tracker: Tracker, row: int) -> list[torch.Tensor]:
    """Return keys, values and usage of all positions that an object reads."""
    memory = tracker._segmenter.memory
    assert memory is not None
    store = memory.store
    where = torch.cat([torch.arange(a.start, a.start + a.size) for a in store.arenas])
    where = where[store.valid[row, where]]
    tensors = (store.key, store.shrinkage, store.selection, store.values[row], store.use, store.life)
    return [tensor[where].clone() for tensor in tensors]


def test_removing_an_object_leaves_the_memory_of_others_bit_identical(network, scene: RenderedScene) -> None:
    memory = MemoryConfig(max_working_frames=4, min_working_frames=2, long_term_elements=300, prototypes=60)
    tracker = Tracker(network, TrackerConfig(size=96, max_objects=4, memory_every=2, memory=memory), 'cpu')
    tracker.seed(scene[0][0], {'a': scene[0][1] == 1})
    for number in range(1, 45):
        frame, truth = scene[number]
        tracker.step(frame)
        if number == 10:
            tracker.seed(frame, {'b': truth == 2})
        if number == 30:
            tracker.seed(frame, {2: truth == 2, 'c': truth == 3})
    assert tracker.memory_elements['long_term'] == 300
    for removed in (2, 3):
        before = held(tracker, 0)
        tracker.remove([removed])
        assert all(torch.equal(old, new) for old, new in zip(before, held(tracker, 0), strict=True))


def test_adding_an_object_appends_nothing_to_the_memory_of_others(network, scene: RenderedScene) -> None:
    tracker = Tracker(network, TrackerConfig(size=160, max_objects=4, memory_every=2), 'cpu')
    tracker.seed(scene[0][0], {'a': scene[0][1] == 1})
    for number in range(1, 12):
        tracker.step(scene[number][0])
    before, size = held(tracker, 0), tracker.memory_elements['working']
    tracker.seed(scene[11][0], {'b': scene[11][1] == 2})
    assert tracker.memory_elements['working'] == size + 10 * 18
    assert all(torch.equal(old, new) for old, new in zip(before, held(tracker, 0), strict=True))
    assert len(held(tracker, 1)[0]) == 10 * 18
    tracker.seed(scene[11][0], {2: scene[11][1] == 2})
    assert all(torch.equal(old, new) for old, new in zip(before, held(tracker, 0), strict=True))


def test_masks_do_not_depend_on_another_object_apart_from_it(network, scene) -> None:
    """Alone, beside an object seeded with it or later, and after another one was removed."""

    def masks(events: dict[int, object]) -> list[np.ndarray]:
        tracker = Tracker(network, TrackerConfig(size=128, max_objects=4), 'cpu')
        tracker.seed(scene[0][0], {'a': scene[0][1] == 2})
        out = []
        for number in range(1, 32):
            out.append(tracker.step(scene[number][0]).labels == 1)
            if number in events:
                events[number](tracker, *scene[number])
        return out

    def add(tracker: Tracker, frame: np.ndarray, truth: np.ndarray) -> None:
        tracker.seed(frame, {'b': truth == 3})

    def remove(tracker: Tracker, *_) -> None:
        tracker.remove([2])

    alone = masks({})
    truth = [scene[number][1] == 2 for number in range(1, 32)]
    touching = [near(scene[number][1] == 3, mask) for number, mask in enumerate(truth, 1)]
    for other in ({1: add}, {15: add}, {1: add, 20: remove}):
        compared = 0
        for mine, together, mask, touches in zip(alone, masks(other), truth, touching, strict=True):
            if mask.sum() > 100 and not touches:
                compared += 1
                assert iou(mine, together) >= 0.98
        assert compared >= 8


def test_the_first_object_is_tracked_after_many_later_seeds(network, scene: RenderedScene) -> None:
    """Their anchors displace its own, which must still contain background."""
    tracker = Tracker(network, TrackerConfig(size=96, max_objects=16), 'cpu')
    tracker.seed(scene[0][0], {'a': scene[0][1] == 1})
    for number in range(1, 13):
        tracker.seed(scene[number][0], {'b': scene[number][1] == 2})
    result = tracker.step(scene[13][0])
    assert iou(result.labels == 1, scene[13][1] == 1) > 0.85


def test_memory_does_not_grow_with_more_successive_objects_than_labels() -> None:
    scene = RenderedScene((64, 112), 4, 2, seed=0)
    network = XMemNetwork(TINY_CALIBRATED).eval()
    tracker = Tracker(network, TrackerConfig(size=64, max_objects=3), 'cpu')
    (frame, truth), (later, _) = scene[0], scene[1]
    (kept,) = tracker.seed(frame, {'kept': truth == 1})
    tracker.step(later)
    size, elements = tracker.memory_bytes, tracker.memory_elements
    pointers = {
        t.data_ptr() for t in (*tracker._segmenter.memory.store._shared, *tracker._segmenter.memory.store._per_row)
    }
    ids = set()
    for _ in range(260):  # labels end at 255
        (new,) = tracker.seed(later, {'passing': truth == 2})
        ids.add(new)
        tracker.remove([new])
        assert tracker.memory_elements == elements
    assert len(ids | {kept}) == 261
    assert tracker.memory_bytes == size
    assert pointers == {
        t.data_ptr() for t in (*tracker._segmenter.memory.store._shared, *tracker._segmenter.memory.store._per_row)
    }
    assert [item.id for item in tracker.step(frame).objects] == [kept]


def test_stores_of_the_previous_image_size_are_freed_at_once(network) -> None:
    """The garbage collector would free them only after many sizes."""
    scene = RenderedScene((64, 112), 2, 1, seed=0)
    tracker = Tracker(network, TrackerConfig(size=64, max_objects=2), 'cpu')
    tracker.seed(scene[0][0], {'it': scene[0][1] == 1})
    tracker.step(scene[1][0])
    before = weakref.ref(tracker._segmenter.memory.store)
    gc.disable()
    try:
        tracker.step(np.ascontiguousarray(scene[1][0][:, :80]))
        assert before() is None
    finally:
        gc.enable()
    assert [item.id for item in tracker.objects] == [1]


@pytest.mark.parametrize('size', [(16, 16), (20, 48), (33, 17), (64, 64)])
def test_frames_of_a_few_memory_positions_are_tracked(network, size: tuple[int, int]) -> None:
    """From one position at stride 16: fewer than top-k and the prototypes of a consolidation."""
    random = np.random.default_rng(0)
    config = TrackerConfig(size=0, max_objects=2, memory_every=1, min_area=1)
    tracker = Tracker(network, config, 'cpu')
    mask = np.zeros(size, bool)
    mask[4:12, 4:12] = True
    tracker.seed(random.integers(0, 255, (*size, 3)).astype(np.uint8), {'a': mask})
    for _ in range(40):
        result = tracker.step(random.integers(0, 255, (*size, 3)).astype(np.uint8))
        assert result.labels.shape == size
        assert [item.id for item in result.objects] == [1]


def test_a_similar_looking_object_is_not_reported_as_the_lost_one(network, scene: RenderedScene) -> None:
    """The scene is cut to others, one of which looks similar, and then back."""
    tracker = Tracker(network, TrackerConfig(size=96, max_objects=2, report_unsure=False), 'cpu')
    tracker.seed(scene[0][0], {'a': scene[0][1] == 1})
    for number in range(1, 20):
        tracker.step(scene[number][0])
    states = []
    random = np.random.default_rng(0)
    for _ in range(30):
        frame = random.integers(0, 255, (10, 18, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
        (found,) = tracker.step(frame).objects
        states.append(found.state)
        if found.state is not ObjectState.TRACKED:
            assert found.box is None
            assert found.area == 0
    assert np.mean([state in (ObjectState.OCCLUDED, ObjectState.LOST) for state in states]) > 0.9
    for number in range(19, 30):
        result = tracker.step(scene[number][0])
    assert iou(result.labels == 1, scene[29][1] == 1) > 0.7
    assert result.objects[0].state is ObjectState.TRACKED
