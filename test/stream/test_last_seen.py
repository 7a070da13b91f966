# SPDX-License-Identifier: MIT
"""Which objects a thing in a frame may be, though no box says so."""

import math

import numpy as np
import pytest

from xmem_ros.objects import ObjectState, TrackedObject
from xmem_ros.stream.detection_policy import NOBODY
from xmem_ros.stream.frame import Frame
from xmem_ros.stream.last_seen import Sightings

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
    """That was tracked, and showed these; none: it was dropped."""
    pixels = np.zeros((4, 4), np.uint8)
    for place, label in enumerate(labels):
        pixels[place] = label
    return Frame(None, 1, labels=pixels, label_ids={label: label for label in labels}) if labels else Frame(None, 1)


@pytest.mark.parametrize('state', [ObjectState.OCCLUDED, ObjectState.LOST])
def test_what_was_in_sight_not_long_ago_is_lost_at_its_last_place(state):
    sightings = Sightings()
    sightings.note([item(1), item(2)], 10.0)
    sightings.note([item(1, state), item(2, box=(5, 5, 5, 5))], 14.0)
    objects = [item(1, state), item(2)]
    found = sightings.unplaced(objects, frame(), 4.0)
    assert (found.lost, found.back) == ({1: 'name 1'}, {})
    assert found.places[1] == BOX
    assert sightings.unplaced(objects, frame(), 3.9).lost == {}
    assert sightings.unplaced(objects, frame(), 9.0, without={1}).lost == {}
    assert sightings.unplaced(objects, frame(), 0.0) is NOBODY


def test_what_a_tracked_frame_did_not_show_and_is_in_sight_now_is_back():
    sightings = Sightings()
    objects = [item(1), item(2), item(3, ObjectState.NEW)]
    sightings.note(objects, 10.0)
    assert sightings.unplaced(objects, frame(1), 5.0).back == {2: 'name 2', 3: 'name 3'}
    assert sightings.unplaced(objects, frame(), 5.0).back == {}  # dropped: who knows


def test_objects_out_of_a_file_count_from_the_first_frame_and_those_that_are_gone_not_at_all():
    sightings = Sightings()
    lost = [item(1, ObjectState.LOST)]
    assert sightings.unplaced(lost, frame(), 5.0).lost == {1: 'name 1'}
    sightings.note(lost, 1000.0)
    assert sightings.unplaced(lost, frame(), 5.0).lost == {1: 'name 1'}
    sightings.note(lost, 1006.0)
    assert sightings.unplaced(lost, frame(), 5.0).lost == {}
    sightings.note([], 1007.0)
    sightings.note(lost, 1008.0)
    assert sightings.unplaced(lost, frame(), 5.0).lost == {1: 'name 1'}


def test_time_that_jumps_back_does_not_make_them_younger():
    sightings = Sightings()
    sightings.note([item(1)], 100.0)
    lost = [item(1, ObjectState.LOST)]
    sightings.note(lost, 106.0)
    sightings.note(lost, 3.0)
    assert sightings.unplaced(lost, frame(), 5.0).lost == {}
