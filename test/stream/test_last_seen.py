# SPDX-License-Identifier: MIT
"""Objects without a known box in a frame: lost or returned."""

import math

import numpy as np
import pytest

from xmem_ros.objects import ObjectState, TrackedObject
from xmem_ros.stream.detection_policy import NO_OBJECTS
from xmem_ros.stream.frame import Frame
from xmem_ros.stream.last_seen import LastSeen

BOX = (1, 2, 3, 4)


def item(object_id, state=ObjectState.TRACKED, box=BOX):
    seen = state in (ObjectState.NEW, ObjectState.TRACKED)
    return TrackedObject(
        object_id,
        object_id,
        f'name {object_id}',
        state,
        0.9,
        box if seen else None,
        12,
        (math.nan, math.nan),
        9,
        0,
        0.3,
        0.0,
    )


def frame(*labels):
    """Build a tracked frame that shows these labels; without labels, a dropped one."""
    pixels = np.zeros((4, 4), np.uint8)
    for place, label in enumerate(labels):
        pixels[place] = label
    return Frame(None, 1, labels=pixels, label_ids={label: label for label in labels}) if labels else Frame(None, 1)


@pytest.mark.parametrize('state', [ObjectState.OCCLUDED, ObjectState.LOST])
def test_a_recently_visible_object_is_lost_at_its_last_box(state):
    last_seen = LastSeen()
    last_seen.update([item(1), item(2)], 10.0)
    last_seen.update([item(1, state), item(2, box=(5, 5, 5, 5))], 14.0)
    objects = [item(1, state), item(2)]
    found = last_seen.unlocated(objects, frame(), 4.0)
    assert (found.lost, found.returned) == ({1: 'name 1'}, {})
    assert found.last_boxes[1] == BOX
    assert last_seen.unlocated(objects, frame(), 3.9).lost == {}
    assert last_seen.unlocated(objects, frame(), 9.0, exclude={1}).lost == {}
    assert last_seen.unlocated(objects, frame(), 0.0) is NO_OBJECTS


def test_an_object_hidden_in_the_frame_and_visible_now_has_returned():
    last_seen = LastSeen()
    objects = [item(1), item(2), item(3, ObjectState.NEW)]
    last_seen.update(objects, 10.0)
    assert last_seen.unlocated(objects, frame(1), 5.0).returned == {2: 'name 2', 3: 'name 3'}
    assert last_seen.unlocated(objects, frame(), 5.0).returned == {}  # dropped: unknown


def test_loaded_objects_are_timed_from_the_first_frame_and_removed_ones_are_forgotten():
    last_seen = LastSeen()
    lost = [item(1, ObjectState.LOST)]
    assert last_seen.unlocated(lost, frame(), 5.0).lost == {1: 'name 1'}
    last_seen.update(lost, 1000.0)
    assert last_seen.unlocated(lost, frame(), 5.0).lost == {1: 'name 1'}
    last_seen.update(lost, 1006.0)
    assert last_seen.unlocated(lost, frame(), 5.0).lost == {}
    last_seen.update([], 1007.0)
    last_seen.update(lost, 1008.0)
    assert last_seen.unlocated(lost, frame(), 5.0).lost == {1: 'name 1'}


def test_a_jump_back_in_time_does_not_shorten_the_absence():
    last_seen = LastSeen()
    last_seen.update([item(1)], 100.0)
    lost = [item(1, ObjectState.LOST)]
    last_seen.update(lost, 106.0)
    last_seen.update(lost, 3.0)
    assert last_seen.unlocated(lost, frame(), 5.0).lost == {}
