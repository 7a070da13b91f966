# SPDX-License-Identifier: MIT
"""The tracker as a library: seeds, masks, objects that join and leave, refused arguments."""

import math

import numpy as np
import pytest
import torch
from masks import iou
from tiny_networks import TINY_CALIBRATED

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.errors import DeviceError, FrameError, ParameterError, SeedError, UnknownObjectError
from xmem_ros.memory.config import MemoryConfig
from xmem_ros.network.model import XMemNetwork
from xmem_ros.tracker import ObjectState, SeedMask, Tracker, TrackerConfig
from xmem_ros.tracker.frame_processor import SENSORY_KEPT
from xmem_ros.tracker.geometry import FrameGeometry


@pytest.fixture(scope='module')
def scene() -> RenderedScene:
    return RenderedScene((160, 288), 40, 3, seed=0)


@pytest.fixture
def tracker(network) -> Tracker:
    return Tracker(network, TrackerConfig(size=160, max_objects=4), 'cpu')


def masks_of(labels: np.ndarray, *values: int) -> dict[str, np.ndarray]:
    return {f'object {value}': labels == value for value in values}


def test_three_lines_of_code_give_masks(scene: RenderedScene) -> None:
    tracker = Tracker.from_weights('compact', config=TrackerConfig(size=160))
    ids = tracker.seed(scene[0][0], masks_of(scene[0][1], 1))
    result = tracker.step(scene[1][0])
    assert ids == [1]
    assert result.labels.shape == (160, 288)
    assert result.labels.dtype == np.uint8
    assert iou(result.labels == 1, scene[1][1] == 1) > 0.8


def test_objects_are_followed_through_the_scene(tracker: Tracker, scene: RenderedScene) -> None:
    """Three objects, 20 frames; the truth is the renderer's."""
    ids = tracker.seed(scene[0][0], masks_of(scene[0][1], 1, 2, 3))
    scores: dict[int, list[float]] = {i: [] for i in ids}
    for number in range(1, 21):
        frame, truth = scene[number]
        result = tracker.step(frame)
        assert [o.id for o in result.objects] == ids
        for value, found in enumerate(result.objects, 1):
            if (truth == value).sum() > 100:
                scores[found.id].append(iou(result.labels == found.label, truth == value))
    assert all(np.mean(values) > 0.7 for values in scores.values()), {i: np.mean(v) for i, v in scores.items()}


def test_an_observation_describes_the_mask_of_its_object(tracker: Tracker, scene: RenderedScene) -> None:
    tracker.seed(scene[0][0], {'cup': scene[0][1] == 1})
    result = tracker.step(scene[1][0])
    (found,) = result.objects
    ys, xs = np.nonzero(result.labels == found.label)
    assert found.name == 'cup'
    assert found.state is ObjectState.TRACKED
    assert found.frames_since_seed == 1
    assert found.frames_since_seen == 0
    assert found.area == len(xs)
    assert found.box == (xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1)
    assert found.centroid == pytest.approx((xs.mean(), ys.mean()), abs=1e-3)
    assert 0.5 < found.score <= 1


def test_step_with_a_seed_reports_its_mask(tracker: Tracker, scene: RenderedScene) -> None:
    frame, truth = scene[0]
    result = tracker.step(frame, masks_of(truth, 2))
    assert result.ids == [1]
    assert result.objects[0].state is ObjectState.NEW
    assert np.array_equal(result.labels == 1, truth == 2)


def test_without_objects_the_labels_are_background(tracker: Tracker, scene: RenderedScene) -> None:
    result = tracker.step(scene[0][0])
    assert not result.labels.any()
    assert result.objects == []
    assert tracker.memory_bytes == 0


def test_a_later_object_joins_and_leaves_without_affecting_the_others(tracker: Tracker, scene: RenderedScene) -> None:
    first = tracker.seed(scene[0][0], masks_of(scene[0][1], 1))
    for number in range(1, 6):
        tracker.step(scene[number][0])
    second = tracker.seed(scene[5][0], masks_of(scene[5][1], 2))
    assert second == [2]
    result = tracker.step(scene[6][0])
    assert [o.id for o in result.objects] == first + second
    assert iou(result.labels == 2, scene[6][1] == 2) > 0.6
    assert tracker.remove(second) == second
    result = tracker.step(scene[7][0])
    assert [o.id for o in result.objects] == first
    assert iou(result.labels == 1, scene[7][1] == 1) > 0.6
    third = tracker.seed(scene[7][0], masks_of(scene[7][1], 3))
    assert third == [3], 'ids are never used twice'
    assert [o.label for o in tracker.step(scene[8][0]).objects] == [1, 2], 'labels are free again'


def test_a_seed_on_an_earlier_frame_takes_the_other_masks_from_its_labels(
    tracker: Tracker, scene: RenderedScene
) -> None:
    tracker.seed(scene[0][0], masks_of(scene[0][1], 1))
    labels = {n: tracker.step(scene[n][0]).labels for n in range(1, 6)}
    tracker.seed(scene[2][0], masks_of(scene[2][1], 3), labels=labels[2])
    result = tracker.step(scene[6][0])
    assert iou(result.labels == 2, scene[6][1] == 3) > 0.6
    assert iou(result.labels == 1, scene[6][1] == 1) > 0.6


def test_a_correction_keeps_the_id_and_moves_the_mask(tracker: Tracker, scene: RenderedScene) -> None:
    (wrong,) = tracker.seed(scene[0][0], {'it': scene[0][1] == 1})
    tracker.step(scene[1][0])
    assert tracker.seed(scene[1][0], {wrong: scene[1][1] == 2}) == [wrong]
    for _ in range(2):  # the first seed is still remembered; a second correction outweighs it
        tracker.seed(scene[1][0], {wrong: scene[1][1] == 2})
    result = tracker.step(scene[2][0])
    assert [o.id for o in result.objects] == [wrong]
    assert iou(result.labels == 1, scene[2][1] == 2) > iou(result.labels == 1, scene[2][1] == 1)


def test_likeness_is_highest_for_the_object_in_the_mask(tracker: Tracker, scene: RenderedScene) -> None:
    ids = tracker.seed(scene[0][0], masks_of(scene[0][1], 1, 2, 3))
    tracker.step(scene[1][0])
    before = (tracker.objects, tracker.memory_elements, tracker.export_state().clock)
    frame, truth = scene[6]
    alike = tracker.likeness(frame, [truth == 3, truth == 1], ids)
    assert alike.shape == (2, 3)
    assert alike.argmax(1).tolist() == [2, 0]
    assert min(alike[0, 2], alike[1, 0]) > 0.8
    assert (tracker.objects, tracker.memory_elements, tracker.export_state().clock) == before
    assert tracker.likeness(frame, [], ids).shape == (0, 3)
    with pytest.raises(UnknownObjectError, match='no object has the id 7'):
        tracker.likeness(frame, [truth == 1], [7])
    with pytest.raises(SeedError, match='mask 1: its mask is'):
        tracker.likeness(frame, [truth[:5] == 1], ids)


def test_ids_and_number_of_objects_can_be_checked_before_masks_exist(tracker: Tracker, scene: RenderedScene) -> None:
    """Four objects at most, of which one is tracked."""
    tracker.seed(scene[0][0], masks_of(scene[0][1], 1))
    tracker.check_ids([0, 0, 0, 1])
    for ids, error, text in (
        ([0, 0, 0, 0], SeedError, '4 new object.* 1 of at most 4 are tracked'),
        ([1, 1], SeedError, 'corrected twice'),
        ([0, 2], UnknownObjectError, r'no object has the id 2; tracked: 1\b.*; give the id 0 to start a new object'),
        (['1'], UnknownObjectError, 'a whole number from 0'),
    ):
        with pytest.raises(error, match=text):
            tracker.check_ids(ids)


def test_a_hidden_object_becomes_occluded_then_lost_and_returns(network, scene: RenderedScene) -> None:
    tracker = Tracker(network, TrackerConfig(size=160, lost_after=0.5), 'cpu')
    frame, truth = scene[0]
    tracker.seed(frame, {'it': truth == 1})
    tracker.step(frame, time=0.0)
    empty = np.full_like(frame, 90)
    states = [tracker.step(empty, time=0.1 * i).objects[0].state for i in range(1, 9)]
    assert states[0] is ObjectState.OCCLUDED
    assert states[-1] is ObjectState.LOST
    assert tracker.objects[0].box is None
    assert math.isnan(tracker.objects[0].centroid[0])
    assert tracker.objects[0].frames_since_seen == 8
    assert tracker.objects[0].time_since_seen == pytest.approx(0.8)
    assert tracker.objects[0].time_since_seed == pytest.approx(0.8)
    found = [tracker.step(frame, time=1.0 + 0.1 * i).objects[0] for i in range(5)]
    assert found[-1].state is ObjectState.TRACKED
    assert found[-1].id == 1
    assert found[-1].frames_since_seen == 0
    assert found[-1].time_since_seen == 0
    assert found[-1].time_since_seed == pytest.approx(1.4)


def test_time_since_a_seed_starts_at_the_newest_frame_and_is_never_negative(network, scene) -> None:
    tracker = Tracker(network, TrackerConfig(size=96, max_objects=2, min_area=1), 'cpu')
    frame, truth = scene[0]
    tracker.step(frame, time=100.0)
    tracker.seed(frame, {'it': truth == 1})
    assert tracker.step(frame, time=100.5).objects[0].time_since_seed == pytest.approx(0.5)
    tracker.seed(frame, {1: truth == 1})  # a correction is no new beginning
    assert tracker.step(frame, time=101.0).objects[0].time_since_seed == pytest.approx(1.0)
    assert tracker.step(frame, time=50.0).objects[0].time_since_seed == 0.0  # the clock jumped back


@pytest.mark.parametrize('guard', [True, False])
def test_sensory_memory_of_a_long_hidden_object_is_reset(network, scene: RenderedScene, guard: bool) -> None:
    memory = MemoryConfig() if guard else MemoryConfig().published()
    tracker = Tracker(network, TrackerConfig(size=96, max_objects=2, min_area=1, memory=memory), 'cpu')
    frame, truth = scene[0]
    tracker.seed(frame, {'it': truth == 1})
    empty = np.full_like(frame, 90)
    for _ in range(SENSORY_KEPT):
        tracker.step(empty)
    held = tracker.export_state().state.sensory
    assert tracker.objects[0].frames_since_seen == SENSORY_KEPT
    assert held[0].abs().max() > 0
    tracker.step(empty)
    held = tracker.export_state().state.sensory
    assert (held[0].abs().max() == 0) == guard


def test_a_jump_back_in_time_does_not_delay_lost(network, scene: RenderedScene) -> None:
    tracker = Tracker(network, TrackerConfig(size=160, lost_after=0.5), 'cpu')
    frame, truth = scene[0]
    tracker.step(frame, {'it': truth == 1}, time=1000.0)
    empty = np.full_like(frame, 90)
    states = [tracker.step(empty, time=0.1 * i).objects[0].state for i in range(9)]
    assert states[0] is ObjectState.OCCLUDED
    assert states[-1] is ObjectState.LOST


def test_reduced_precision_gives_nearly_the_same_masks(network, scene: RenderedScene) -> None:
    trackers = [Tracker(network, TrackerConfig(size=96, precision=p), 'cpu') for p in ('float32', 'bfloat16')]
    for tracker in trackers:
        tracker.seed(scene[0][0], masks_of(scene[0][1], 1, 2))
    for number in range(1, 6):
        ours, theirs = (tracker.step(scene[number][0]).labels for tracker in trackers)
        assert np.mean(ours != theirs) < 0.02


def test_ids_start_again_after_a_reset(tracker: Tracker, scene: RenderedScene) -> None:
    tracker.seed(scene[0][0], masks_of(scene[0][1], 1, 2))
    tracker.reset()
    assert tracker.objects == []
    assert tracker.memory_elements == {'working': 0, 'long_term': 0}
    assert tracker.seed(scene[0][0], masks_of(scene[0][1], 3)) == [1]


def test_objects_keep_their_ids_when_the_frame_size_changes(tracker: Tracker, network, scene: RenderedScene) -> None:
    native = Tracker(network, TrackerConfig(size=0, max_objects=4), 'cpu')
    frame, truth = scene[0]
    native.seed(frame, masks_of(truth, 1, 2))
    for number in range(1, 4):
        native.step(scene[number][0])
    frame, truth = scene[4]
    smaller = np.ascontiguousarray(frame[::2, ::2])
    for _ in range(2):
        result = native.step(smaller)
    assert [o.id for o in result.objects] == [1, 2]
    assert result.labels.shape == smaller.shape[:2]
    assert native.memory_elements['working'] > 0


@pytest.mark.parametrize('size', [(1, 1), (17, 16), (16, 200), (33, 47)])
def test_frames_of_any_size_are_tracked(network, size: tuple[int, int]) -> None:
    """Fewer positions than top-k and than prototypes, too."""
    config = TrackerConfig(size=0, memory_every=1, memory=MemoryConfig(max_working_frames=3, min_working_frames=2))
    tracker = Tracker(network, config, 'cpu')
    rng = np.random.default_rng(0)
    mask = np.zeros(size, bool)
    mask[: max(size[0] // 2, 1)] = True
    tracker.seed(rng.integers(0, 255, (*size, 3), np.uint8), {'it': mask})
    for _ in range(8):
        assert tracker.step(rng.integers(0, 255, (*size, 3), np.uint8)).labels.shape == size
    assert tracker.memory_elements['long_term'] > 0


def test_memory_is_known_before_the_first_frame_and_does_not_grow(network, scene: RenderedScene) -> None:
    config = TrackerConfig(size=64, max_objects=3, memory_every=1, memory=MemoryConfig(long_term_elements=300))
    tracker = Tracker(network, config, 'cpu')
    expected = Tracker.memory_bytes_for((160, 288), 3, network=network.config, config=config, dtype=torch.float32)
    tracker.seed(scene[0][0], masks_of(scene[0][1], 1))
    assert tracker.memory_bytes == expected
    for number in range(50):
        tracker.step(scene[number % 40][0])
    assert tracker.memory_bytes == expected
    assert tracker.memory_elements['long_term'] == 300


@pytest.mark.parametrize(
    ('seeds', 'error', 'text'),
    [
        ({'a': np.zeros((160, 288), bool)}, SeedError, 'empty'),
        ({'a': np.ones((10, 10), bool)}, SeedError, r'frame is \(160, 288\)'),
        ({7: np.ones((160, 288), bool)}, UnknownObjectError, r'no object has the id 7; tracked: 1\b.*; give a name'),
        ([SeedMask(np.ones((160, 288), bool), id=1)] * 2, SeedError, 'empty|twice'),
        ({str(i): np.eye(160, 288, i, dtype=bool) for i in range(5)}, SeedError, 'at most 4'),
        ({}, SeedError, 'no mask'),
        (np.ones((160, 288), bool), SeedError, r'\{name: mask\}'),
        ({0: np.ones((160, 288), bool)}, SeedError, 'under 0'),
        ({1.5: np.ones((160, 288), bool)}, SeedError, 'under 1.5'),
    ],
)
def test_bad_seeds_are_refused_and_change_nothing(
    tracker: Tracker, scene: RenderedScene, seeds, error: type[Exception], text: str
) -> None:
    tracker.seed(scene[0][0], masks_of(scene[0][1], 1))
    tracker.step(scene[1][0])
    before = (tracker.objects, tracker.memory_elements)
    with pytest.raises(error, match=text):
        tracker.seed(scene[1][0], seeds)
    assert (tracker.objects, tracker.memory_elements) == before
    assert iou(tracker.step(scene[2][0]).labels == 1, scene[2][1] == 1) > 0.7


def test_a_fault_while_seeding_leaves_no_object_behind(
    tracker: Tracker, scene: RenderedScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker.seed(scene[0][0], masks_of(scene[0][1], 1))

    def fail(*args: object) -> None:
        raise RuntimeError('out of memory')

    with monkeypatch.context() as patch:
        patch.setattr(tracker.network, 'encode_value', fail)
        for seeding in (tracker.seed, tracker.step):
            with pytest.raises(RuntimeError, match='out of memory'):
                seeding(scene[1][0], masks_of(scene[1][1], 2))
    assert [o.id for o in tracker.objects] == [1]
    assert iou(tracker.step(scene[2][0]).labels == 1, scene[2][1] == 1) > 0.7


def test_objects_can_be_seeded_corrected_and_removed_in_any_order(scene: RenderedScene) -> None:
    """With the default limits, so that anchors are thinned and demoted."""
    tracker = Tracker(XMemNetwork(TINY_CALIBRATED).eval(), TrackerConfig(size=64, max_objects=6), 'cpu')
    rng = np.random.default_rng(1)
    alive: list[int] = []
    for number in range(80):
        frame, truth = scene[number % 40]
        mask = truth == rng.integers(0, 4)
        choice = rng.integers(4)
        if mask.any() and choice == 0 and len(alive) < 6:
            alive += tracker.seed(frame, {'new': mask})
        elif mask.any() and choice == 1 and alive:
            tracker.seed(frame, {int(rng.choice(alive)): mask})
        elif choice == 2 and len(alive) > 3:
            alive.remove(tracker.remove([int(rng.choice(alive))])[0])
        result = tracker.step(frame)
        assert [o.id for o in result.objects] == alive


def test_an_object_is_not_lost_at_once_after_a_reset(network, scene: RenderedScene) -> None:
    tracker = Tracker(network, TrackerConfig(size=160, lost_after=5.0), 'cpu')
    tracker.step(scene[0][0], time=1000.0)
    tracker.reset()
    tracker.seed(scene[0][0], masks_of(scene[0][1], 1))
    empty = np.full_like(scene[0][0], 90)
    assert tracker.step(empty, time=1000.1).objects[0].state is not ObjectState.LOST


def test_an_elongated_frame_is_refused_before_memory_is_allocated(network) -> None:
    tracker = Tracker(network, TrackerConfig(size=160), 'cpu')
    with pytest.raises(FrameError, match='factor of at most'):
        tracker.seed(np.zeros((2, 640, 3), np.uint8), {'it': np.ones((2, 640), bool)})
    assert tracker.memory_bytes == 0


def test_far_too_many_seeds_are_refused_at_once(tracker: Tracker) -> None:
    masks = {str(i): np.ones((160, 288), bool) for i in range(5)}
    with pytest.raises(SeedError, match='at most 4'):
        tracker.seed(np.zeros((160, 288, 3), np.uint8), masks)


def test_removing_an_unknown_id_removes_none(tracker: Tracker, scene: RenderedScene) -> None:
    tracker.seed(scene[0][0], masks_of(scene[0][1], 1))
    with pytest.raises(UnknownObjectError, match='id 9'):
        tracker.remove([1, 9])
    assert [o.id for o in tracker.objects] == [1]


@pytest.mark.parametrize(
    'frame',
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
)
def test_invalid_frames_are_refused(tracker: Tracker, frame: np.ndarray) -> None:
    with pytest.raises(FrameError, match=r'H×W×3|empty'):
        tracker.step(frame)


def test_the_size_suits_the_weights_unless_given(network) -> None:
    assert Tracker(network, device='cpu').config.size == 240
    assert Tracker(network, TrackerConfig(size=0), 'cpu').config.size == 0
    assert Tracker.memory_bytes_for((480, 854), 1) == Tracker.memory_bytes_for(
        (480, 854), 1, config=TrackerConfig(size=480)
    )


def test_a_missing_device_is_an_error() -> None:
    with pytest.raises(DeviceError, match='use device cpu or auto'):
        Tracker.from_weights('compact', device='cuda:63')
    with pytest.raises(DeviceError, match='unknown device'):
        Tracker.from_weights('compact', device='gpu')


@pytest.mark.parametrize(
    'settings', [{'size': 5}, {'precision': 'half'}, {'memory_every': 0}, {'max_objects': 255}, {'min_part_share': 2}]
)
def test_settings_out_of_range_are_refused(network, settings: dict) -> None:
    with pytest.raises(ParameterError, match=next(iter(settings))):
        Tracker(network, TrackerConfig(**settings), 'cpu')


def test_a_frame_is_scaled_padded_and_scaled_back() -> None:
    """480×854 → 480×854 padded to 480×864, five columns on each side; 720p is scaled first."""
    geometry = FrameGeometry.of((480, 854), 480)
    assert geometry.padded_size == (480, 864)
    assert geometry.padding == (5, 5, 0, 0)
    geometry = FrameGeometry.of((720, 1280), 480)
    assert geometry.working_size == (480, 853)
    assert geometry.padding == (5, 6, 0, 0)
    plane = torch.zeros(1, 480, 864)
    plane[0, 100:200, 5 + 300 : 5 + 400] = 1
    back = geometry.to_image(plane)[0] > 0.5
    ys, xs = np.nonzero(back.numpy())
    assert (ys.min(), ys.max()) == (150, 299)
    assert abs(xs.min() - 450) <= 1
    assert abs(xs.max() - 599) <= 2


def test_warming_up_leaves_no_trace():
    scene = RenderedScene((96, 160), 8, 2, seed=0)
    cold, warm = (Tracker.from_weights('compact', device='cpu', config=TrackerConfig(size=96)) for _ in range(2))
    assert not warm.memory_bytes
    warm.warm_up((96, 160))
    assert warm.memory_bytes == warm.memory_bytes_with((96, 160))
    assert warm.objects == []
    for tracker in (cold, warm):
        assert tracker.seed(scene[0][0], {'it': scene[0][1] == 1}) == [1]
    for number in range(1, 8):
        ours, theirs = (tracker.step(scene[number][0]) for tracker in (warm, cold))
        assert np.array_equal(ours.labels, theirs.labels)
        assert ours.objects == theirs.objects


def test_a_frame_of_any_size_can_be_seeded_while_there_are_no_objects():
    scene = RenderedScene((96, 160), 3, 1, seed=0)
    tracker = Tracker.from_weights('compact', device='cpu', config=TrackerConfig(size=96))
    tracker.warm_up((96, 96))
    assert tracker.seed(scene[0][0], {'it': scene[0][1] == 1}, labels=np.zeros((96, 160), np.uint8)) == [1]
    assert np.mean(tracker.step(scene[1][0]).labels == scene[1][1]) > 0.9
