# SPDX-License-Identifier: MIT
"""Policy for seeds from a detector."""

import math
from types import SimpleNamespace as Some

import pytest

from xmem_ros.parameters.groups import SeedDetectionParameters
from xmem_ros.stream.detection_policy import (
    Candidate,
    UnlocatedObjects,
    assign_ids,
    candidates_of,
    iou,
    select_candidates,
)

SIZE = (100, 200)


def detection(x, y, width, height, *results, theta=0.0):
    """Build a vision_msgs/Detection2D, whose box is given by its centre."""
    centre = Some(position=Some(x=x + width / 2, y=y + height / 2), theta=theta)
    hypotheses = [Some(hypothesis=Some(class_id=name, score=score)) for name, score in results]
    return Some(bbox=Some(center=centre, size_x=width, size_y=height), results=hypotheses)


def found(*detections, **policy):
    return candidates_of(Some(detections=list(detections)), SeedDetectionParameters(**policy))


def chosen(candidates, known=(), most=10):
    return [(candidate.name, box) for candidate, box in select_candidates(candidates, known, SIZE, 0.3, most)]


def test_boxes_are_sorted_by_score_and_unlikely_ones_dropped():
    candidates = found(
        detection(0, 0, 10, 10, ('cup', 0.6)),
        detection(20, 0, 10, 10, ('cup', 0.4), ('mug', 0.9)),
        detection(40, 0, 10, 10, ('cup', 0.49)),
        detection(60, 0, 10, 10),
    )
    assert [(item.name, item.score) for item in candidates] == [('mug', 0.9), ('cup', 0.6)]
    assert candidates[1].box == (0, 0, 10, 10)


def test_only_allowed_classes_are_accepted():
    boxes = [detection(20 * i, 0, 10, 10, (name, 0.9)) for i, name in enumerate(['cup', 'person', 'traffic light'])]
    assert [item.name for item in found(*boxes, classes=('traffic light', 'cup'))] == ['cup', 'traffic light']
    assert len(found(*boxes, classes=())) == 3
    assert found(*boxes, classes=('Cup',)) == []


def test_a_box_without_a_hypothesis_is_accepted_only_without_filters():
    assert found(detection(0, 0, 10, 10)) == []
    assert [item.name for item in found(detection(0, 0, 10, 10), min_score=0.0)] == ['']


@pytest.mark.parametrize('bad', [math.nan, math.inf, 0.0, -3.0])
def test_invalid_boxes_are_skipped(bad):
    assert found(detection(0, 0, bad, 10, ('cup', 0.9))) == []
    assert found(detection(0, 0, 10, bad, ('cup', 0.9))) == []
    assert found(detection(0, 0, 10, 10, ('cup', math.nan))) == []
    if not math.isfinite(bad):
        assert found(detection(bad, 0, 10, 10, ('cup', 0.9))) == []


def test_a_rotated_box_becomes_the_upright_box_around_it():
    (candidate,) = found(detection(10, 20, 40, 20, ('cup', 0.9), theta=math.pi / 2))
    assert candidate.box == pytest.approx((20, 10, 40, 50))


def test_boxes_are_clipped_to_the_image_and_dropped_outside_it():
    candidates = [
        Candidate('left', 0.9, (-10.0, 5.4, 9.6, 20.0)),
        Candidate('beside', 0.9, (-10.0, 5.0, -1.0, 20.0)),
        Candidate('corner', 0.9, (190.0, 90.0, 400.0, 1e9)),
    ]
    assert chosen(candidates) == [('left', (0, 5, 10, 15)), ('corner', (190, 90, 10, 10))]


def test_tracked_and_already_chosen_objects_are_not_chosen_again():
    candidates = [
        Candidate('known', 0.9, (10.0, 10.0, 50.0, 50.0)),
        Candidate('cup', 0.8, (100.0, 10.0, 140.0, 50.0)),
        Candidate('mug', 0.7, (101.0, 11.0, 141.0, 51.0)),
        Candidate('neighbour', 0.6, (130.0, 10.0, 170.0, 50.0)),  # IoU 10/70 with the cup
    ]
    assert [name for name, _ in chosen(candidates, [(12, 12, 40, 40)])] == ['cup', 'neighbour']
    assert [name for name, _ in chosen(candidates, [], 1)] == ['known']
    assert chosen(candidates, [], 0) == chosen(candidates, [], -1) == []


def test_box_iou_equals_values_computed_by_hand():
    assert iou((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert iou((0, 0, 10, 10), (5, 0, 10, 10)) == pytest.approx(50 / 150)
    assert iou((0, 0, 10, 10), (10, 0, 10, 10)) == iou((0, 0, 0, 0), (0, 0, 0, 0)) == 0


def test_at_max_objects_only_candidates_for_hidden_objects_are_tried():
    candidates = [Candidate(name, 0.9, (20.0 * i, 0.0, 20.0 * i + 10, 10.0)) for i, name in enumerate('abcb')]
    for room, names in ((0, ['b', 'b']), (1, ['a', 'b', 'b']), (2, ['a', 'b', 'c', 'b'])):
        found = select_candidates(candidates, [], SIZE, 0.3, 10, room, UnlocatedObjects({4: 'b'}, {}))
        assert [candidate.name for candidate, _ in found] == names
    assert [candidate.name for candidate, _ in select_candidates(candidates, [], SIZE, 0.3, 2, 9)] == ['a', 'b']


def assigned(names, unlocated, alike, least, room=5):
    """Assign ids to candidates of 10×10 px, 20 px apart."""
    chosen = [(Candidate(name, 0.9, (0, 0, 0, 0)), (20 * number, 0, 10, 10)) for number, name in enumerate(names)]
    return assign_ids(chosen, unlocated, alike, SeedDetectionParameters(min_likeness=least), room)


def test_a_box_is_assigned_to_the_most_similar_object_of_its_class():
    lost = UnlocatedObjects({1: 'cup', 2: 'cup', 3: 'bowl'}, {})
    alike = {1: [0.8, 0.9, 0.0], 2: [0.75, 0.95, 0.0], 3: [0.99, 0.99, 0.5]}
    assert assigned(['cup', 'cup', 'bowl'], lost, alike, 0.7) == [1, 2, 0]
    assert assigned(['cup', 'cup', 'bowl'], lost, alike, 0.4) == [1, 2, 3]
    assert assigned(['cup', 'cup', 'bowl'], lost, alike, 0.85) == [0, 2, 0]


def test_the_class_suffices_at_the_last_position_of_an_object():
    alike = {1: [0.9, 0.1]}
    for place, ids in (((21, 1, 10, 10), [0, 1]), ((27, 0, 10, 10), [1, 0]), ((20, 0, 40, 40), [1, 0])):
        assert assigned(['cup', 'cup'], UnlocatedObjects({1: 'cup'}, {}, {1: place}), alike, 0.7) == ids
    assert assigned(['cup', 'bowl'], UnlocatedObjects({1: 'cup'}, {}, {1: (21, 1, 10, 10)}), {1: [0.1, 0.1]}, 0.7) == [
        0,
        0,
    ]


def test_an_object_is_corrected_once_and_other_boxes_need_room():
    alike = {7: [0.8, 0.9, 0.7, 0.7]}
    assert assigned(['cup'] * 4, UnlocatedObjects({7: 'cup'}, {}), alike, 0.7, room=2) == [0, 7, 0, None]


def test_an_object_that_is_visible_again_is_not_corrected():
    assert assigned(['cup', 'cup'], UnlocatedObjects({}, {1: 'cup'}), {1: [0.9, 0.2]}, 0.7) == [None, 0]
