# SPDX-License-Identifier: MIT
"""Join of a forward and a backward pass: where an object changes, overlaps, labels and times."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xmem_ros.objects import ObjectState, TrackedObject
from xmem_ros.offline.joining import Join, agreement_of
from xmem_ros.offline.segments import Segments, StoredFrame, lookup_of

SIZE = (8, 24)  # H, W in px


def observed(object_id, mask, *, label=0, score=0.9, since=0, name=''):
    """Make an object with its mask H×W bool."""
    shown = np.flatnonzero(mask.any(axis=0))
    box = (int(shown[0]), 0, len(shown), SIZE[0]) if len(shown) else None
    state = ObjectState.TRACKED if since else ObjectState.NEW
    centroid = (0.0, 0.0) if box else (math.nan, math.nan)
    item = TrackedObject(
        object_id,
        label or object_id,
        name,
        state,
        score,
        box,
        int(mask.sum()),
        centroid,
        since,
        0,
        since / 10,
        0.0,
    )
    return item, mask


def columns(first, count):
    """Make a mask of some columns, H×W bool."""
    mask = np.zeros(SIZE, bool)
    mask[:, first : first + count] = True
    return mask


def stored(index, *found, seeded=()):
    """Make the results of an image; found: pairs of object and mask."""
    labels = np.zeros(SIZE, np.uint8)
    for item, mask in found:
        labels[mask] = item.label
    objects = [item for item, _ in found]
    value_of = {item.id: 100 + item.id for item in objects}
    values = lookup_of(objects, value_of)[labels]
    return StoredFrame(index, index, index, '', f'{index}', labels, values, objects, value_of, [], seeded)


def joined(folder, forward, backward):
    """Join the results of images; backward: in the order of the recording. Return the frames."""
    last = len(backward) - 1
    passes = Segments(folder), Segments(folder, 'backward_')
    for segments, frames in ((passes[0], forward), (passes[1], backward[::-1])):
        for number in range(0, len(frames), 4):
            writer = segments.segment()
            for place, frame in enumerate(frames[number : number + 4], number):
                index = place if segments is passes[0] else last - frame.index
                writer.add(StoredFrame(index, *list(vars(frame).values())[1:]))
            writer.finish({})
    join = Join(*passes, last, min_part_share=0.1, count=len(forward))
    return list(join.frames())


def between(forward, backward, last):
    """Make both passes of an object seeded in images 0 and `last`; a pass: columns of its masks."""
    ahead = [
        stored(i, observed(1, columns(forward[i], 4), since=i), seeded=(1,) if i in (0, last) else ())
        for i in range(last + 1)
    ]
    back = [stored(i, observed(1, columns(backward[i], 4), since=last - i)) for i in range(last + 1)]
    return ahead, back


def places(frames):
    """Return the first column of the object in each image; −1 without one."""
    return [int(np.flatnonzero(frame.labels.any(axis=0))[0]) if frame.labels.any() else -1 for frame in frames]


def test_an_object_changes_after_the_image_where_both_masks_agree_best(tmp_path):
    forward, backward = [0, 1, 2, 3, 4, 5, 6], [9, 9, 9, 4, 5, 5, 6]
    assert forward[5] == backward[5], 'the only image between the seeds with equal masks'
    frames = joined(tmp_path, *between(forward, backward, 6))
    assert places(frames) == [0, 1, 2, 3, 4, 5, 6]
    (tmp_path / 'early').mkdir()
    backward = [9, 1, 3, 4, 5, 6, 6]
    assert places(joined(tmp_path / 'early', *between(forward, backward, 6))) == [0, 1, 3, 4, 5, 6, 6]


@pytest.mark.parametrize(('last', 'expected'), [(6, [0, 0, 0, 0, 9, 9, 0]), (5, [0, 0, 0, 9, 9, 0])])
def test_an_object_whose_masks_never_agree_changes_in_the_middle(tmp_path, last, expected):
    frames = joined(tmp_path, *between([0] * (last + 1), [9] * (last + 1), last))
    assert places(frames) == expected


def test_two_empty_masks_agree():
    assert agreement_of(columns(0, 0), columns(0, 0)) == 1
    assert agreement_of(columns(0, 4), columns(0, 0)) == 0
    assert agreement_of(columns(0, 4), columns(2, 4)) == pytest.approx(1 / 3)


@pytest.mark.parametrize(('scores', 'owner'), [((0.8, 0.7), 1), ((0.7, 0.8), 2), ((0.8, 0.8), 1)])
def test_where_objects_overlap_the_higher_score_wins_and_then_the_lower_id(tmp_path, scores, owner):
    first = [stored(0, observed(1, columns(0, 8)), seeded=(1,))]
    first.append(stored(1, observed(1, columns(0, 8), since=1, score=scores[0])))
    second = observed(2, columns(6, 8), name='cup')
    first.append(stored(2, observed(1, columns(0, 4), since=2), second, seeded=(2,)))
    back = [stored(i, observed(2, columns(6, 8), since=2 - i, score=scores[1])) for i in range(3)]
    frames = joined(tmp_path, first, back)
    assert set(frames[1].labels[0, 6:8]) == {owner}
    assert set(frames[1].values[0, 6:8]) == {100 + owner}
    areas = {item.id: item.area for item in frames[1].objects}
    assert areas == {1: 64 if owner == 1 else 48, 2: 48 if owner == 1 else 64}
    boxes = {item.id: item.box for item in frames[1].objects}
    assert boxes == {1: (0, 0, 8 if owner == 1 else 6, 8), 2: (8 if owner == 1 else 6, 0, 6 if owner == 1 else 8, 8)}
    assert set(frames[0].labels[0, 6:8]) == {1}, 'the seed of an image is never covered'


def test_an_object_that_is_covered_completely_is_occluded_and_has_no_box(tmp_path):
    first = [stored(0, observed(1, columns(0, 8)), seeded=(1,)), stored(1, observed(2, columns(9, 4)), seeded=(2,))]
    back = [stored(i, observed(2, columns(2, 4), since=1 - i)) for i in range(2)]
    (item,) = [item for item in joined(tmp_path, first, back)[0].objects if item.id == 2]
    assert (item.state, item.area, item.box) == (ObjectState.OCCLUDED, 0, None)


def test_times_before_the_first_seed_are_those_until_it(tmp_path):
    ahead = [stored(i) for i in range(3)]
    ahead.append(stored(3, observed(1, columns(3, 4), name='cup'), seeded=(1,)))
    ahead += [stored(i, observed(1, columns(i, 4), since=i - 3, name='cup')) for i in (4, 5)]
    ahead.append(stored(6, observed(1, columns(6, 4), since=3, name='mug'), seeded=(1,)))
    back = [stored(i, observed(1, columns(i, 4), since=6 - i, name='mug')) for i in range(7)]
    objects = [frame.objects[0] for frame in joined(tmp_path, ahead, back)]
    assert [item.frames_since_seed for item in objects] == [3, 2, 1, 0, 1, 2, 3]
    assert [item.time_since_seed for item in objects] == pytest.approx([0.3, 0.2, 0.1, 0, 0.1, 0.2, 0.3])
    assert [item.name for item in objects] == ['cup'] * 6 + ['mug']


def test_an_object_with_the_label_of_a_removed_one_gets_a_label_of_its_own(tmp_path):
    ahead = [stored(0, observed(1, columns(0, 4)), seeded=(1,)), stored(1, observed(1, columns(0, 4), since=1))]
    ahead.append(stored(2, observed(2, columns(8, 4), label=1), seeded=(2,)))
    back = [stored(i, observed(2, columns(8, 4), label=1, since=2 - i)) for i in range(3)]
    frames = joined(tmp_path, ahead, back)
    assert [[(item.id, item.label) for item in frame.objects] for frame in frames] == [[(1, 1), (2, 2)]] * 2 + [
        [(2, 2)]
    ]
    assert [set(np.unique(frame.labels)) for frame in frames] == [{0, 1, 2}] * 2 + [{0, 2}]
    assert [set(np.unique(frame.values)) for frame in frames] == [{0, 101, 102}] * 2 + [{0, 102}]


def test_objects_that_only_the_backward_pass_has_are_left_out(tmp_path):
    ahead = [stored(0, observed(1, columns(0, 4)), seeded=(1,)), stored(1, observed(1, columns(0, 4)), seeded=(1,))]
    back = [stored(i, observed(1, columns(0, 4), since=1 - i), observed(2, columns(8, 4))) for i in range(2)]
    assert [[item.id for item in frame.objects] for frame in joined(tmp_path, ahead, back)] == [[1], [1]]
