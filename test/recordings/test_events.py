# SPDX-License-Identifier: MIT
"""Events of a node, as a plan for tracking its bag again."""

import numpy as np
import pytest
from bag_files import TOPIC, image_items, scene, seeds_message, stamp_of, write_bag

from xmem_ros.conversions.seeds import MASK, POINTS
from xmem_ros.errors import BagError
from xmem_ros.recordings import events, typestore
from xmem_ros.recordings.recording import open_recording
from xmem_ros.recordings.seed_plan import recorded_seeds, resolve

FRAMES = scene(6)
MASKS = [typestore.seed(MASK, mask=FRAMES[0][1] == 1)]


def event(kind, session, sequence, *, after=None, image=None, seeds=(), ids=(), file=''):
    """Make an xmem_ros/TrackingEvent; after and image are indices of images."""
    header = typestore.header(0 if image is None else stamp_of(image), 'camera')
    return typestore.make(
        typestore.TRACKING_EVENT,
        header=header,
        kind=kind,
        session=session,
        sequence=sequence,
        after=typestore.time_message(0 if after is None else stamp_of(after)),
        seeds=list(seeds),
        ids=np.array(ids, np.uint32),
        labels=np.array(ids if kind == events.SEED else [], np.uint8),
        file=file,
        sha256='',
    )


def plan_of(tmp_path, *messages, more=(), images=None):
    """Return the entries for each image, and the notes.

    messages: index of the image recorded before, and the event.
    """
    items = image_items(FRAMES) if images is None else images
    items = items + [('/xmem/events', items[index][1] + 1 + n, one) for n, (index, one) in enumerate(messages)]
    with open_recording(write_bag(tmp_path / 'bag', [*items, *more]), TOPIC) as recording:
        places, missed = resolve(recorded_seeds(recording), recording)
        assert missed == []
        return places, recording.notes


def summary(places):
    return {
        index: [(entry.reset or False, entry.removed, entry.ids) for entry in entries]
        for index, entries in sorted(places.items())
    }


def seed(sequence, image, *ids, session=1, after=None):
    return event(events.SEED, session, sequence, image=image, after=after, seeds=MASKS * len(ids), ids=ids)


def test_a_removal_takes_place_before_the_next_image(tmp_path):
    start, removal = event(events.START, 1, 0), event(events.REMOVE, 1, 2, after=3, ids=[1])
    places, notes = plan_of(tmp_path, (0, start), (1, seed(1, 0, 1)), (3, removal))
    assert summary(places) == {0: [(False, (), (1,))], 4: [(False, (1,), ())]}
    assert notes == []


def test_a_removal_comes_after_the_seeds_of_its_object_whatever_their_images(tmp_path):
    removal = event(events.REMOVE, 1, 2, after=1, ids=[1])  # the seed's image was dropped
    places, _ = plan_of(tmp_path, (0, event(events.START, 1, 0)), (1, seed(1, 3, 1)), (1, removal))
    assert summary(places) == {3: [(False, (), (1,))], 4: [(False, (1,), ())]}


def test_objects_are_forgotten_before_the_first_image_that_is_seeded_after_a_reset(tmp_path):
    reset, again = event(events.RESET, 2, 0, after=4, ids=[1, 2]), seed(1, 2, 1, session=2)
    places, _ = plan_of(
        tmp_path, (0, event(events.START, 1, 0)), (0, seed(1, 0, 1)), (3, seed(2, 3, 2)), (4, reset), (4, again)
    )
    assert summary(places) == {0: [(False, (), (1,))], 2: [(True, (), ()), (False, (), (1,))]}


def test_changes_after_the_last_image_are_left_out(tmp_path):
    removal = event(events.REMOVE, 1, 2, after=5, ids=[1])
    places, _ = plan_of(tmp_path, (0, event(events.START, 1, 0)), (1, seed(1, 0, 1)), (5, removal))
    assert summary(places) == {0: [(False, (), (1,))]}


def test_a_restart_of_the_node_is_found_by_the_time_of_its_recording(tmp_path):
    places, notes = plan_of(
        tmp_path, (0, event(events.START, 1, 0)), (0, seed(1, 0, 1)), (2, event(events.START, 1, 0)), (4, seed(1, 4, 1))
    )
    assert summary(places) == {0: [(False, (), (1,))], 3: [(True, (), ())], 4: [(False, (), (1,))]}
    assert notes == []


def test_the_images_of_a_change_are_found_without_stamps(tmp_path):
    items = image_items(FRAMES)
    for _, _, message in items:
        message.header.stamp.sec = message.header.stamp.nanosec = 0
    given = event(events.SEED, 1, 1, seeds=MASKS, ids=[1])
    removal = event(events.REMOVE, 1, 2, ids=[1])
    places, _ = plan_of(tmp_path, (0, event(events.START, 1, 0)), (1, given), (3, removal), images=items)
    assert summary(places) == {1: [(False, (), (1,))], 4: [(False, (1,), ())]}


def test_missing_events_are_noted(tmp_path):
    _, notes = plan_of(tmp_path, (1, seed(3, 1, 4)), (2, seed(5, 2, 6)), (3, event(events.RESET, 2, 0, after=2)))
    assert [note.partition(': events')[2].split(' are')[0] for note in notes] == [
        ' before number 3 of session 1',
        ' before number 5 of session 1',
    ]


def test_events_take_precedence_over_seeds_of_the_same_bag(tmp_path):
    old = ('/xmem/seeds', stamp_of(2), seeds_message(2, MASKS, [9]))
    places, _ = plan_of(tmp_path, (0, event(events.START, 1, 0)), (1, seed(1, 0, 1)), more=[old])
    assert summary(places) == {0: [(False, (), (1,))]}


def test_events_without_objects_are_no_seeds(tmp_path):
    items = [*image_items(FRAMES), ('/xmem/events', stamp_of(1), event(events.START, 1, 0))]
    with open_recording(write_bag(tmp_path / 'bag', items), TOPIC) as recording:
        assert recorded_seeds(recording) == []


def test_an_event_with_too_many_points_or_cut_off_is_refused(tmp_path, monkeypatch):
    points = typestore.seed(POINTS, points=[(1, 1)] * 9, point_labels=[1] * 9)
    given = event(events.SEED, 1, 1, image=0, seeds=[points, points], ids=[1, 2])
    raw = typestore.serialize(given)
    assert typestore.count_points(raw, typestore.TRACKING_EVENT) == 18
    for number, bad in enumerate((raw[: len(raw) // 2], raw)):
        items = [*image_items(FRAMES), ('/xmem/events', stamp_of(1), (typestore.TRACKING_EVENT, bad))]
        path = write_bag(tmp_path / f'{number}', items)
        with open_recording(path, TOPIC) as recording, pytest.raises(BagError, match='cut off|more than 17 points'):
            recorded_seeds(recording)
        monkeypatch.setattr('xmem_ros.recordings.seed_plan.MAX_POINTS', 17)
