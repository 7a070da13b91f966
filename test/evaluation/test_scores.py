# SPDX-License-Identifier: MIT
"""J and F compared with figures worked out by hand and with the command of vos-benchmark."""

from __future__ import annotations

import numpy as np
import pytest
from needs import require
from scene_files import save_frame, save_mask

from xmem_ros.errors import FrameError, SeedError
from xmem_ros.evaluation.datasets.options import ReadOptions
from xmem_ros.evaluation.datasets.plain import read_generic
from xmem_ros.evaluation.datasets.sequence import Seed, Sequence
from xmem_ros.evaluation.scores import overall, score_masks, score_sequence, table

require('vos_benchmark')

EMPTY = np.zeros((100, 100), np.uint8)


def square(left, top=10, side=10, value=1):
    mask = np.zeros((100, 100), np.uint8)
    mask[top : top + side, left : left + side] = value
    return mask


# Squares of 10×10 px in 100×100 px. The boundary (pixels that differ from their E, S or SE
# neighbour) is a ring of 11×11 px with 40 px. The tolerance is ceil(0.008·√2·100) = 2 px.


@pytest.mark.parametrize(
    ('mask', 'j', 'f'),
    [
        pytest.param(square(10), 100, 100, id='perfect'),
        pytest.param(square(0, side=0), 0, 0, id='empty'),
        pytest.param(square(60, 60), 0, 0, id='elsewhere'),
        # 9 of 11 columns are shared. Every boundary pixel lies within 2 px of the other boundary.
        pytest.param(square(11), 100 * 90 / 110, 100, id='shifted by 1 px'),
        # 50 of 150 px are shared. Of the ring at 9…19, 20 of 40 px lie within 2 px of the ring at
        # 14…24: columns 12…19 of the upper and lower sides (8 px each), and 2 px at each end of the
        # right side. The same holds the other way round.
        pytest.param(square(15), 100 * 50 / 150, 50, id='shifted by 5 px'),
    ],
)
def test_scores_equal_those_worked_out_by_hand(mask, j, f):
    scores = score_masks([(mask, square(10))])
    assert scores[1] == pytest.approx((j, f))


def test_a_frame_without_the_object_scores_100_only_for_an_empty_mask():
    shown = (square(10), square(10))
    assert score_masks([shown, (EMPTY, EMPTY)])[1] == pytest.approx((100, 100))
    assert score_masks([shown, (square(10), EMPTY)])[1] == pytest.approx((50, 50))


def test_a_missed_object_scores_zero():
    truth = square(10) + square(60, value=2)
    assert score_masks([(square(10), truth), (square(10), truth)]) == {
        1: pytest.approx((100, 100)),
        2: pytest.approx((0, 0)),
    }


def test_a_late_object_counts_from_the_first_ground_truth_that_shows_it():
    truth, late = square(10), square(10) + square(60, value=2)
    # absent in two frames, found in one of the two that show it: half, and not three quarters
    pairs = [(truth, truth), (truth, truth), (late, late), (truth, late)]
    assert score_masks(pairs) == {1: pytest.approx((100, 100)), 2: pytest.approx((50, 50))}


def test_a_late_object_counts_from_the_first_mask_that_shows_it():
    # in the mask from the second frame on, visible from the third: one of two frames is right
    truth, late = square(10), square(10) + square(60, value=2)
    assert score_masks([(truth, truth), (late, truth), (late, late)])[2] == pytest.approx((50, 50))


def test_a_value_that_is_not_in_the_ground_truth_is_not_scored():
    assert score_masks([(square(10) + square(60, value=9), square(10))]) == {1: pytest.approx((100, 100))}
    stolen = square(10)
    stolen[10:20, 15:20] = 9  # half of the object
    assert score_masks([(stolen, square(10))])[1][0] == pytest.approx(50)


def test_255_in_the_ground_truth_is_scored_as_an_object():
    truth = square(10)
    truth[50:, 50:] = 255
    assert score_masks([(square(10), truth)]) == {1: pytest.approx((100, 100)), 255: pytest.approx((0, 0))}
    assert score_masks([(truth, truth)])[255] == pytest.approx((100, 100))


# --- sequences


def write_truth(root, name, masks):
    for index, mask in enumerate(masks):
        save_frame(root / 'JPEGImages' / name / f'{index:05d}.jpg', np.zeros((*mask.shape, 3), np.uint8))
        save_mask(root / 'Annotations' / name / f'{index:05d}.png', mask)


def write_masks(folder, masks):
    for index, mask in enumerate(masks):
        save_mask(folder / f'{index:05d}.png', mask)
    return folder


def generic(root):
    return read_generic(root, ReadOptions())


def test_void_pixels_are_not_scored_with_ignore_void(tmp_path):
    truth = square(10)
    truth[:, 15:] = 255
    write_truth(tmp_path, 'a', [truth] * 3)
    (sequence,) = generic(tmp_path)
    out = write_masks(tmp_path / 'out', [square(10, side=40)] * 3)
    scores = score_sequence(sequence, out, ignore_void=True)['objects']
    # left of the void are 5 columns: the object has 10 px of each, the mask 40 px
    assert list(scores) == ['1']
    assert scores['1']['J'] == pytest.approx(100 * 50 / 200)
    assert list(score_sequence(sequence, out)['objects']) == ['1', '255']


def test_the_first_and_the_last_mask_are_not_scored(tmp_path):
    write_truth(tmp_path, 'a', [square(10)] * 4)
    out = write_masks(tmp_path / 'out', [square(50), square(10), square(11), square(50)])
    scores = score_sequence(generic(tmp_path)[0], out)
    assert scores['frames'] == 2
    assert scores['J'] == pytest.approx((100 + 100 * 90 / 110) / 2)
    assert scores['F'] == 100
    assert scores['J&F'] == pytest.approx((scores['J'] + 100) / 2)


def test_each_object_can_be_scored_on_its_own_frames(tmp_path):
    both = square(10) + square(60, value=2)
    write_truth(tmp_path, 'a', [both] * 5)
    out = write_masks(tmp_path / 'out', [both, square(10), both, square(11), both])
    (whole,) = generic(tmp_path)
    sequence = Sequence(
        name='a',
        frames=whole.frames,
        seeds={'00000': Seed(whole.truth['00000'])},
        written=whole.written,
        truth=whole.truth,
        scored=('00001', '00002', '00003', '00004'),
        scored_objects={1: ('00001', '00003'), 2: ('00001', '00002', '00004')},
    )
    scores = score_sequence(sequence, out)['objects']
    assert scores['1']['J'] == pytest.approx((100 + 100 * 90 / 110) / 2)
    assert scores['2']['J'] == pytest.approx(200 / 3)


def test_the_overall_score_is_the_mean_over_objects_not_over_sequences():
    two = {'J': 50.0, 'F': 50.0, 'J&F': 50.0, 'objects': {'1': {'J': 100.0, 'F': 100.0}, '2': {'J': 0.0, 'F': 0.0}}}
    one = {'J': 100.0, 'F': 80.0, 'J&F': 90.0, 'objects': {'1': {'J': 100.0, 'F': 80.0}}}
    assert overall({'two': two, 'one': one}) == pytest.approx({'J': 200 / 3, 'F': 60, 'J&F': 190 / 3})
    lines = table({'two': two, 'one': one}).splitlines()
    assert lines[-1].split() == ['all', 'objects', '63.3', '66.7', '60.0']
    assert [line.split()[0] for line in lines[1:]] == ['two', 'object', 'object', 'one', 'all']


def test_an_unseeded_object_is_named(tmp_path):
    both = square(10) + square(60, value=2)
    write_truth(tmp_path, 'a', [square(10), both, both, both])
    out = write_masks(tmp_path / 'out', [square(10)] * 4)
    scores = score_sequence(generic(tmp_path)[0], out)
    assert scores['unseeded'] == [2]
    assert scores['objects']['2']['J&F'] == 0
    assert scores['J&F'] == 50


def test_a_missing_mask_and_a_mask_of_another_size_are_named(tmp_path):
    write_truth(tmp_path, 'a', [square(10)] * 4)
    out = write_masks(tmp_path / 'out', [square(10)] * 4)
    save_mask(out / '00002.png', np.ones((50, 60), np.uint8))
    with pytest.raises(FrameError, match=r'00002\.png: the mask is 60×50 px, its ground truth .*00002\.png 100×100'):
        score_sequence(generic(tmp_path)[0], out)
    (out / '00001.png').unlink()
    with pytest.raises(SeedError, match=r'00001\.png: no such mask'):
        score_sequence(generic(tmp_path)[0], out)


def test_scores_equal_those_of_the_command_of_vos_benchmark(tmp_path):
    from vos_benchmark.benchmark import benchmark

    two, void = square(10) + square(60, value=2), square(10) | square(60, value=255)
    cases = {
        'late': ([square(10), square(10), two, two, two], [square(11), two, square(10), two, two]),
        'void': ([void] * 5, [square(12)] * 5),
        'extra': ([square(10)] * 5, [square(10) + square(40, value=7)] * 5),
        'gone': ([two, two, square(10), EMPTY, two], [two, two, two, EMPTY, two]),
        'binary': ([square(10, value=255)] * 5, [square(12, value=255)] * 5),
    }
    for name, (truths, masks) in cases.items():
        write_truth(tmp_path, name, truths)
        write_masks(tmp_path / 'out' / name, masks)
    sequences = {s.name: score_sequence(s, tmp_path / 'out' / s.name) for s in generic(tmp_path)}
    jf, j, f, each = benchmark([str(tmp_path / 'Annotations')], [str(tmp_path / 'out')], num_processes=1, verbose=False)
    result = overall(sequences)
    assert [result['J&F'], result['J'], result['F']] == pytest.approx([jf[0], j[0], f[0]])
    for name, (own_j, own_f) in each[0].items():
        found = {int(value): (one['J'], one['F']) for value, one in sequences[name]['objects'].items()}
        assert found == {value: pytest.approx((own_j[value], own_f[value])) for value in own_j}
