# SPDX-License-Identifier: MIT
"""Offline tracking: on which image seeds apply, ids of objects, skipped images."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from needs import require

require('rosbags.rosbag2')

from bag_files import LATE_NS, SIZE, TOPIC, image_items, seeds_message, stamp_of, write_bag

from xmem_ros.conversions.seeds import LABELS, MASK
from xmem_ros.errors import BagError, FrameError, SeedError, UnknownObjectError
from xmem_ros.offline.tracking import Checkpoint, OfflineTracker, track
from xmem_ros.parameters.table import Parameters
from xmem_ros.recordings import typestore
from xmem_ros.recordings.recording import open_recording
from xmem_ros.recordings.seed_plan import PlannedSeeds, recorded_seeds
from xmem_ros.tracker import ObjectState, snapshot
from xmem_ros.tracker.engine import Engines

PARAMETERS = dataclasses.replace(Parameters(), device='cpu', size=64, max_objects=4)
ENGINES = Engines()


def mask_seed(frames, index, value, *, object_id=0, name=''):
    return typestore.seed(MASK, object_id=object_id, name=name, mask=frames[index][1] == value)


def tracked(path, plan=None, topic=''):
    with open_recording(path, topic) as recording:
        plan = recorded_seeds(recording) if plan is None else plan
        return list(track(recording, plan, PARAMETERS, engines=ENGINES))


def seeded_bag(folder, frames, *seeds, name='bag'):
    """Write a bag of images and seeds; seeds: pairs (index of the image before, message)."""
    items = image_items(frames)
    for after, message in seeds:
        items.append(('/xmem/seeds', stamp_of(after) + LATE_NS + 1, message))
    return write_bag(folder / name, sorted(items, key=lambda item: item[1]))


def test_recorded_seeds_are_applied_on_the_image_of_their_stamp(frames, tmp_path):
    message = seeds_message(2, [mask_seed(frames, 2, 1, name='mug'), mask_seed(frames, 2, 2)], [1, 2])
    found = tracked(seeded_bag(tmp_path, frames, (6, message)))  # recorded four images after its image
    assert [item.frame.index for item in found] == list(range(10))
    assert [len(item.objects) for item in found] == [0, 0] + [2] * 8
    assert [item.state for item in found[2].objects] == [ObjectState.NEW] * 2
    assert [item.state for item in found[9].objects] == [ObjectState.TRACKED] * 2
    assert [item.name for item in found[9].objects] == ['mug', '']
    truth = frames[9][1] == 1
    shown = found[9].labels == 1
    assert (truth & shown).sum() / (truth | shown).sum() > 0.8  # measured 0.88, seven images later
    (applied,) = found[2].applied
    assert (applied.ids, applied.labels) == ((1, 2), (1, 2))


def test_objects_keep_their_recorded_ids(frames, tmp_path):
    first = seeds_message(1, [mask_seed(frames, 1, 1)], [5])
    second = seeds_message(4, [mask_seed(frames, 4, 2)], [9])
    found = tracked(seeded_bag(tmp_path, frames, (1, first), (5, second)))
    assert [[item.id for item in frame.objects] for frame in found] == [[]] + [[5]] * 3 + [[5, 9]] * 6


def test_a_recorded_correction_applies_to_the_object_with_the_recorded_id(frames, tmp_path):
    first = seeds_message(0, [mask_seed(frames, 0, 2, name='mug')], [7])  # the mask of the other object
    second = seeds_message(5, [mask_seed(frames, 5, 1, object_id=7)], [7])
    found = tracked(seeded_bag(tmp_path, frames, (1, first), (6, second)))
    assert [(item.id, item.name) for item in found[9].objects] == [(7, 'mug')]
    shown = found[5].labels > 0
    assert (shown & (frames[5][1] == 1)).sum() > 0.9 * shown.sum()


def test_the_first_correction_of_an_object_seeded_before_the_recording_starts_it(frames, tmp_path):
    message = seeds_message(3, [mask_seed(frames, 3, 1, object_id=12, name='mug')], [12])
    found = tracked(seeded_bag(tmp_path, frames, (3, message)))
    assert [(item.id, item.state) for item in found[3].objects] == [(12, ObjectState.NEW)]


def test_recorded_ids_that_start_again_mean_a_reset_of_the_node(frames, tmp_path):
    first = seeds_message(0, [mask_seed(frames, 0, 1, name='old'), mask_seed(frames, 0, 2)], [1, 2])
    second = seeds_message(5, [mask_seed(frames, 5, 2, name='new')], [1])
    found = tracked(seeded_bag(tmp_path, frames, (0, first), (5, second)))
    assert [item.name for item in found[4].objects] == ['old', '']
    assert [(item.id, item.name, item.label) for item in found[9].objects] == [(1, 'new', 1)]


def test_objects_of_a_recorded_label_image_have_their_recorded_ids(frames, tmp_path):
    message = seeds_message(1, [typestore.seed(LABELS, name='toy', mask=frames[1][1])], [3, 4])
    found = tracked(seeded_bag(tmp_path, frames, (2, message)))
    assert [(item.id, item.name) for item in found[9].objects] == [(3, 'toy_1'), (4, 'toy_2')]


def test_several_recorded_calls_for_one_image_are_applied_in_order(frames, tmp_path):
    first = seeds_message(2, [mask_seed(frames, 2, 2, name='mug')], [1])
    second = seeds_message(2, [mask_seed(frames, 2, 1, object_id=1)], [1])
    third = seeds_message(2, [mask_seed(frames, 2, 2, name='duck')], [2])
    found = tracked(seeded_bag(tmp_path, frames, (2, first), (3, second), (4, third)))
    assert [(item.id, item.name) for item in found[2].objects] == [(1, 'mug'), (2, 'duck')]
    np.testing.assert_array_equal(found[2].masks[1], frames[2][1] == 1)
    assert len(found[2].applied) == 3


def test_a_recorded_seed_without_its_image_is_reported_and_does_not_end_the_run(frames, tmp_path):
    early = seeds_message(-3, [mask_seed(frames, 0, 2)], [1])
    good = seeds_message(0, [mask_seed(frames, 0, 1)], [2])
    path = seeded_bag(tmp_path, frames, (0, early), (0, good))
    with open_recording(path) as recording:
        offline = OfflineTracker(recording, recorded_seeds(recording), PARAMETERS, engines=ENGINES)
        found = [offline.step(frame) for frame in recording.frames()]
    assert [item.id for item in found[9].objects] == [2]
    (told,) = offline.missed
    assert '/xmem/seeds, message 0: no image of' in told
    assert '1700000000.023456790' in told  # stamp_of(-3)


def test_an_unusable_recorded_seed_is_reported_and_does_not_end_the_run(frames, tmp_path):
    empty = typestore.seed(MASK, mask=np.zeros(SIZE, np.uint8))
    first = seeds_message(1, [empty], [1])
    second = seeds_message(2, [mask_seed(frames, 2, 1)], [2])
    path = seeded_bag(tmp_path, frames, (1, first), (2, second))
    with open_recording(path) as recording:
        offline = OfflineTracker(recording, recorded_seeds(recording), PARAMETERS, engines=ENGINES)
        found = [offline.step(frame) for frame in recording.frames()]
    assert all(item is not None for item in found)
    assert [item.id for item in found[2].objects] == [2]
    assert 'image 000001: seeds[0] (MASK): the mask is empty' in offline.missed[0]


def test_recorded_seeds_of_another_camera_are_refused(frames, tmp_path):
    items = [
        (TOPIC, stamp_of(index), typestore.image(typestore.header(5 + index, ''), frames[0][0], 'rgb8'))
        for index in range(3)
    ]
    items.append(('/xmem/seeds', stamp_of(3), seeds_message(0, [mask_seed(frames, 0, 1)], [1])))
    with pytest.raises(SeedError, match='none of the 1 recorded seeds belongs to an image of .*image topic'):
        tracked(write_bag(tmp_path / 'bag', items))


def test_one_of_several_topics_of_seeds_has_to_be_named(frames, tmp_path):
    message = seeds_message(0, [mask_seed(frames, 0, 1)], [1])
    items = [
        *image_items(frames),
        ('/front/xmem/seeds', stamp_of(9), message),
        ('/rear/xmem/seeds', stamp_of(9), message),
    ]
    path = write_bag(tmp_path / 'bag', items)
    with open_recording(path) as recording:
        with pytest.raises(BagError, match='/front/xmem/seeds, /rear/xmem/seeds; name .* such as /front'):
            recorded_seeds(recording)
        assert len(recorded_seeds(recording, '/rear/xmem/seeds')) == 1
        with pytest.raises(BagError, match='no topic /xmem/seeds'):
            recorded_seeds(recording, '/xmem/seeds')


# --- unusable images


def bad_messages():
    header = typestore.header(stamp_of(4), 'camera')
    claims = {'header': header, 'encoding': 'rgb8', 'is_bigendian': 0, 'data': np.zeros(100, np.uint8)}
    yield (
        'huge',
        typestore.make(typestore.IMAGE, height=100_000, width=100_000, step=300_000, **claims),
        '100000×100000',
    )
    yield 'short', typestore.make(typestore.IMAGE, height=64, width=96, step=288, **claims), 'is cut off'
    yield 'empty', typestore.make(typestore.IMAGE, height=0, width=0, step=0, **claims), 'no pixels'
    unknown = typestore.image(header, np.zeros((*SIZE, 3), np.uint8), 'rgb8')
    unknown.encoding = 'smell'
    yield 'unknown', unknown, "'smell' cannot be read"


@pytest.mark.parametrize(
    ('name', 'message', 'reason'), list(bad_messages()), ids=lambda value: value if isinstance(value, str) else ''
)
def test_an_undecodable_image_is_skipped_and_does_not_affect_the_others(frames, tmp_path, name, message, reason):
    plan = [PlannedSeeds((mask_seed(frames, 0, 1),), (1,), index=0)]
    items = image_items(frames)
    without = tracked(write_bag(tmp_path / 'without', items[:4] + items[5:]), plan)
    items[4] = (TOPIC, items[4][1], message)
    with open_recording(write_bag(tmp_path / 'bag', items)) as recording:
        offline = OfflineTracker(recording, plan, PARAMETERS, engines=ENGINES)
        found = [item for frame in recording.frames() if (item := offline.step(frame))]
    assert [fault.index for fault in offline.dropped] == [4]
    assert reason in offline.dropped[0].reason
    assert len(found) == len(without) == 9
    for one, other in zip(found, without, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        assert one.objects == other.objects


def test_a_seed_of_an_undecodable_image_is_refused(frames, tmp_path):
    items = image_items(frames)
    items[4] = (TOPIC, items[4][1], next(bad_messages())[1])
    path = write_bag(tmp_path / 'bag', items)
    plan = [PlannedSeeds((mask_seed(frames, 4, 1),), (1,), index=4, source='seeds.yaml, entry 1')]
    with pytest.raises(FrameError, match='seeds.yaml, entry 1: image 000004 cannot be used'):
        tracked(path, plan)


def test_a_seed_of_a_message_that_is_not_an_image_is_refused(frames, tmp_path):
    items = image_items(frames)
    items[4] = (TOPIC, items[4][1], (typestore.IMAGE, b'\x00\x01\x00\x00'))
    plan = [PlannedSeeds((mask_seed(frames, 4, 1),), (1,), index=4, source='seeds.yaml, entry 1')]
    with pytest.raises(FrameError, match='entry 1: image 4 of .*bag cannot be used: not a sensor_msgs/msg/Image'):
        tracked(write_bag(tmp_path / 'bag', items), plan)


@pytest.mark.parametrize(('policy', 'ids'), [('keep', [1]), ('reset', [])])
def test_stamps_that_jump_back_keep_or_reset_the_objects_and_are_reported(frames, tmp_path, policy, ids):
    again = [(topic, time + 10**10, message) for topic, time, message in image_items(frames[:4])]
    path = write_bag(tmp_path / 'bag', image_items(frames) + again)
    parameters = dataclasses.replace(PARAMETERS, on_time_jump=policy, time_jump_threshold=0.2)
    with open_recording(path) as recording:
        plan = [PlannedSeeds((mask_seed(frames, 2, 1),), (1,), index=2)]
        offline = OfflineTracker(recording, plan, parameters, engines=ENGINES)
        found = [offline.step(frame) for frame in recording.frames()]
    assert [item.id for item in found[9].objects] == [1]
    assert [item.id for item in found[12].objects] == ids
    assert offline.notes[0] == 'images 0 to 1 precede the first seed, so no object is tracked there'
    assert 'image 000010: stamps jumped back by 0.300 s' in offline.notes[1]


# --- seeds given by the user


def test_a_seed_by_stamp_needs_an_image_of_that_stamp(frames, tmp_path):
    path = write_bag(tmp_path / 'bag', image_items(frames))
    plan = [PlannedSeeds((mask_seed(frames, 3, 1),), (1,), stamp_ns=stamp_of(3))]
    assert [len(item.objects) for item in tracked(path, plan)] == [0] * 3 + [1] * 7
    plan = [dataclasses.replace(plan[0], stamp_ns=stamp_of(3) + 1)]
    with pytest.raises(SeedError, match=r'the nearest are 1700000000.223456788 and 1700000000.256790121'):
        tracked(path, plan)


def test_a_seed_beyond_the_end_is_refused(frames, tmp_path):
    path = write_bag(tmp_path / 'bag', image_items(frames))
    with pytest.raises(SeedError, match='there is no image 10: .* has 10, counted from 0'):
        tracked(path, [PlannedSeeds((mask_seed(frames, 3, 1),), (1,), index=10)])


def test_objects_are_removed_and_unknown_ids_refused(frames, tmp_path):
    path = write_bag(tmp_path / 'bag', image_items(frames))
    begin = PlannedSeeds((mask_seed(frames, 0, 1), mask_seed(frames, 0, 2)), (1, 2), index=0)
    found = tracked(path, [begin, PlannedSeeds((), (), index=5, removed=(1,))])
    assert [[item.id for item in frame.objects] for frame in found] == [[1, 2]] * 5 + [[2]] * 5
    with pytest.raises(UnknownObjectError, match='image 000005: no object has the id 3'):
        tracked(path, [begin, PlannedSeeds((), (), index=5, removed=(3,))])
    wrong = PlannedSeeds((mask_seed(frames, 5, 1, object_id=8),), (8,), index=5)
    unknown = 'no object has the id 8 here, so it cannot be corrected; known ids: 1, 2'
    with pytest.raises(UnknownObjectError, match=unknown):
        tracked(path, [begin, wrong])


def test_resuming_from_a_checkpoint_gives_the_results_of_an_uninterrupted_run(frames, tmp_path):
    items = image_items(frames)
    items[3] = (TOPIC, items[3][1], next(bad_messages())[1])
    first = seeds_message(1, [mask_seed(frames, 1, 1, name='mug')], [4])
    second = seeds_message(7, [mask_seed(frames, 7, 1, object_id=4), mask_seed(frames, 7, 2)], [4, 6])
    items += [('/xmem/seeds', stamp_of(2) + 1, first), ('/xmem/seeds', stamp_of(8) + 1, second)]
    path = write_bag(tmp_path / 'bag', sorted(items, key=lambda item: item[1]))
    whole = tracked(path)
    with open_recording(path) as recording:
        offline = OfflineTracker(recording, recorded_seeds(recording), PARAMETERS, engines=ENGINES)
        begun = [offline.step(frame) for frame in recording.frames() if frame.index < 5]
        saved = offline.checkpoint()
        snapshot.write(saved.snapshot, tmp_path / 'memory.safetensors')
    with open_recording(path) as recording:
        read = snapshot.read(tmp_path / 'memory.safetensors', saved.snapshot.weights)
        start = Checkpoint(saved.index, read, json.loads(json.dumps(saved.notes)))
        rest = list(track(recording, recorded_seeds(recording), PARAMETERS, start=start, engines=ENGINES))
    assert [item.frame.index for item in rest] == [5, 6, 7, 8, 9]
    for one, other in zip([*filter(None, begun), *rest], whole, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        assert [dataclasses.replace(item, score=0) for item in one.objects] == [
            dataclasses.replace(item, score=0) for item in other.objects
        ]
