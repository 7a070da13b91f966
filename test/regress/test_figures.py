# SPDX-License-Identifier: MIT
"""Figures of masks, compared with values computed by hand or by vos-benchmark."""

import numpy as np
import pytest
from needs import require

from xmem_ros.errors import ParameterError
from xmem_ros.evaluation.scores import score_masks
from xmem_ros.objects import ObjectState, TrackedObject
from xmem_ros.recordings.seed_plan import PlannedSeeds
from xmem_ros.regress.figures import LOST_AFTER
from xmem_ros.regress.overlaps import figures_of, overlap, score
from xmem_ros.regress.references import VoidValue
from xmem_ros.regress.removals import Removals

SIZE = (40, 60)


def patch(value, x, width=20):
    """Labels with one object, 20 rows high."""
    labels = np.zeros(SIZE, np.uint8)
    labels[10:30, x : x + width] = value
    return labels


def tracked(*labels, age=1, ids=None, names=None):
    """Objects of these labels; ids are the labels unless given."""
    return [
        TrackedObject(i, label, name, ObjectState.TRACKED, 1.0, None, 0, (0.0, 0.0), age, 0, age / 30, 0.0)
        for label, i, name in zip(labels, ids or labels, names or [''] * len(labels), strict=True)
    ]


def run(pairs, objects=None, **options):
    """Figures and scores of (labels, truth) pairs; the first frame is that of the seed."""
    frames = [
        overlap(f'{index:05d}', labels, (objects or (lambda age: tracked(1, age=age)))(index), truth)
        for index, (labels, truth) in enumerate(pairs)
    ]
    scored = score(frames, **options)
    return figures_of(scored), scored


def test_a_mask_shifted_by_a_quarter_has_the_iou_computed_by_hand():
    figures, _ = run([(patch(1, 10), patch(1, 10)), (patch(1, 15), patch(1, 10))])
    assert figures['mean_iou'] == pytest.approx(
        15 / 25
    )  # columns in both masks over columns in either; without the seed's frame
    assert figures['object_iou.object 1'] == figures['mean_iou']


def test_the_mean_is_the_j_of_vos_benchmark():
    require('vos_benchmark')
    random = np.random.default_rng(0)
    seed = np.where(random.random(SIZE) < 0.5, 1, 2).astype(np.uint8)
    pairs = [(seed, seed)]
    for _ in range(8):
        truth = random.choice([0, 1, 2], SIZE, p=[0.2, 0.5, 0.3]).astype(np.uint8)
        noise = random.random(SIZE) < 0.2
        pairs.append((np.where(noise, random.integers(0, 3, SIZE), truth).astype(np.uint8), truth))
    pairs.append((np.zeros(SIZE, np.uint8), np.ones(SIZE, np.uint8)))  # object 2 is absent
    figures, _ = run(pairs, lambda age: tracked(1, 2, age=age))
    expected = score_masks(pairs[1:])
    for value, (j, _) in expected.items():
        assert 100 * figures[f'object_iou.object {value}'] == pytest.approx(j)


def test_an_object_that_continues_under_another_id_is_a_switch_and_scores_0():
    def objects(index):
        return tracked(1, 2, age=index)

    pairs = [(patch(1, 10), patch(5, 10))] + [(patch(1, 10), patch(5, 10))] * 3 + [(patch(2, 10), patch(5, 10))] * 2
    figures, _ = run(pairs, objects)
    assert figures['id_switches'] == 1
    assert figures['mean_iou'] == pytest.approx(3 / 5)
    figures, _ = run([*pairs, (patch(1, 10), patch(5, 10))], objects)
    assert figures['id_switches'] == 2


def test_a_label_that_passes_to_a_new_id_is_a_switch():
    pairs = [(patch(1, 10), patch(1, 10))] * 4
    figures, _ = run(pairs, lambda index: tracked(1, ids=[7 if index < 2 else 8], age=index))
    assert figures['id_switches'] == 1


def test_a_hidden_object_is_not_a_switch():
    empty = np.zeros(SIZE, np.uint8)
    figures, _ = run([(patch(1, 10), patch(1, 10)), (empty, empty), (patch(1, 10), patch(1, 10))])
    assert figures['id_switches'] == 0
    assert figures['mean_iou'] == 1


@pytest.mark.parametrize(('late', 'expected'), [(0, 0), (3, 3), (6, 6)])
def test_recovery_counts_the_wrong_frames_after_the_return(late, expected):
    empty, there = np.zeros(SIZE, np.uint8), patch(1, 10)
    pairs = [(there, there)] * 3 + [(empty, empty)] * 4
    pairs += [(empty, there)] * late + [(there, there)] * (6 - late)
    figures, _ = run(pairs)
    assert figures['recovery_frames'] == expected


def test_an_object_that_is_never_absent_has_no_recovery():
    figures, _ = run([(patch(1, 10), patch(1, 10))] * 3)
    assert 'recovery_frames' not in figures


def test_the_slowest_of_several_recoveries_counts():
    empty, there = np.zeros(SIZE, np.uint8), patch(1, 10)
    pairs = [(there, there)] * 2
    for late in (1, 4, 2):
        pairs += [(empty, empty)] * 2 + [(empty, there)] * late + [(there, there)]
    assert run(pairs)[0]['recovery_frames'] == 4


def test_an_object_that_is_wrong_in_all_of_its_last_frames_is_lost():
    there, elsewhere = patch(1, 10), patch(1, 38)
    good = [(there, there)] * 5
    assert run(good + [(elsewhere, there)] * (LOST_AFTER - 1))[0]['lost_objects'] == 0
    assert run(good + [(elsewhere, there)] * LOST_AFTER)[0]['lost_objects'] == 1


def test_a_reference_object_without_a_match_is_lost_and_scores_0():
    figures, scored = run([(patch(1, 38), patch(1, 5))] * 4)
    assert scored[0].key is None
    assert figures == {'mean_iou': 0, 'object_iou.object 1': 0, 'id_switches': 0, 'lost_objects': 1}


def test_frames_before_an_object_is_seeded_do_not_count():
    late = patch(2, 35)

    def objects(index):
        return tracked(1, age=index) if index < 3 else tracked(1, age=index) + tracked(2, age=index - 3)

    pairs = [(patch(1, 5), patch(1, 5) + late)] * 3 + [(patch(1, 5) + late, patch(1, 5) + late)] * 3
    figures, scored = run(pairs, objects)
    assert figures['mean_iou'] == 1
    assert [len(item.iou) for item in scored] == [5, 2]


@pytest.mark.parametrize('removed', [False, True])
def test_frames_count_after_an_object_is_forgotten_but_not_after_it_is_removed(removed):
    there, empty = patch(1, 10), np.zeros(SIZE, np.uint8)
    pairs = [(there, there)] * 3 + [(empty, there)] * 6
    frames = [
        overlap(
            f'{index:05d}',
            labels,
            tracked(1, age=index) if index < 3 else [],
            truth,
            frozenset({1} if removed and index >= 3 else ()),
        )
        for index, (labels, truth) in enumerate(pairs)
    ]
    scored = score(frames)
    assert len(scored[0].iou) == (2 if removed else 8)
    assert figures_of(scored)['mean_iou'] == (1 if removed else 2 / 8)


def test_frames_of_an_object_without_an_id_count_after_the_last_object_is_forgotten():
    pairs = [(patch(1, 5), patch(1, 5) + patch(2, 35))] * 6
    _, scored = run(pairs, lambda index: tracked(1, age=index) if index < 3 else [])
    assert [len(item.iou) for item in scored] == [5, 5]


def test_a_plan_removes_the_named_objects_and_all_at_a_reset():
    def entry(*ids, removed=(), recorded=True):
        return PlannedSeeds((), ids, removed=removed, recorded=recorded)

    removals = Removals({0: [entry(1, 2)], 3: [entry(3)], 5: [entry(1)], 8: [entry(4)]})
    assert [sorted(removals.at(index)) for index in (0, 3, 4, 5, 6, 8)] == [[], [], [], [1, 2, 3], [2, 3], [2, 3]]
    removals = Removals({0: [entry(1, 2, recorded=False)], 4: [entry(removed=(2,), recorded=False)]})
    assert [sorted(removals.at(index)) for index in (3, 4, 9)] == [[], [2], [2]]


def test_names_assign_objects_to_reference_values():
    pairs = [(patch(1, 5) + patch(2, 35), patch(9, 35))] * 3

    def objects(index):
        return tracked(1, 2, names=['mug', 'ball'], age=index)

    figures, _ = run(pairs, objects)
    assert figures['object_iou.ball'] == 1
    figures, _ = run(pairs, objects, names={9: 'mug'})
    assert figures['object_iou.mug'] == 0
    with pytest.raises(ParameterError, match="'cup'.*'ball', 'mug'"):
        run(pairs, objects, names={9: 'cup'})


def test_objects_with_the_same_name_are_distinguished_by_their_value():
    pairs = [(patch(1, 5) + patch(2, 35), patch(3, 5) + patch(4, 35))] * 2
    figures, _ = run(pairs, lambda index: tracked(1, 2, names=['cup', 'cup'], age=index))
    assert {'object_iou.cup 3', 'object_iou.cup 4'} <= set(figures)


def test_void_pixels_and_slivers_are_ignored():
    truth = patch(1, 10)
    truth[10:30, 30:40] = 255
    figures, _ = run([(patch(1, 10), truth), (patch(1, 10, 30), truth)])
    assert figures['mean_iou'] == 1
    sliver = np.zeros(SIZE, np.uint8)
    sliver[0, :10] = 1
    _, scored = run([(patch(1, 10), patch(1, 10))] * 2 + [(np.zeros(SIZE, np.uint8), sliver)], min_area=16)
    assert list(scored[0].iou) == ['00001']
    _, scored = run([(patch(1, 10), patch(1, 10))] * 2 + [(np.zeros(SIZE, np.uint8), sliver)], min_area=10)
    assert scored[0].iou == {'00001': 1, '00002': 0}


def test_a_reference_of_0_and_255_is_one_object():
    void_value = VoidValue()
    assert not void_value.normalized(np.zeros(SIZE, np.uint8)).any()
    assert set(np.unique(void_value.normalized(patch(255, 10)))) == {0, 1}
    several = VoidValue()
    assert set(np.unique(several.normalized(patch(1, 5) + patch(255, 35)))) == {0, 1, 255}
    assert set(np.unique(several.normalized(patch(255, 10)))) == {0, 255}
