# SPDX-License-Identifier: MIT
"""Recorded seeds of images without stamps, as some drivers send them."""

from __future__ import annotations

import dataclasses

import pytest
from needs import require

require('rosbags.rosbag2')

from bag_files import LATE_NS, TOPIC, scene, stamp_of, write_bag

from xmem_ros.conversions.seeds import MASK
from xmem_ros.errors import SeedError
from xmem_ros.offline.tracking import OfflineTracker, track
from xmem_ros.parameters.table import Parameters
from xmem_ros.recordings import typestore
from xmem_ros.recordings.recording import open_recording
from xmem_ros.recordings.seed_plan import recorded_seeds
from xmem_ros.tracker.engine import Engines

PARAMETERS = dataclasses.replace(Parameters(), device='cpu', size=64, max_objects=4)
ENGINES = Engines()
FRAMES = scene(6)
NOWHEN = typestore.header(0, 'camera')


def seeds(index: int, value: int, header=NOWHEN):
    """Return an AcceptedSeeds message with one object of an image."""
    return typestore.accepted_seeds(header, [typestore.seed(MASK, mask=FRAMES[index][1] == value)], [value], [value])


def bag_of(folder, *seeds, stamped: int = 0):
    """Write six images, the first ones with stamps, and seeds by recording time [ns]."""
    items = [
        (TOPIC, stamp_of(index) + LATE_NS, typestore.image(header, pixels, 'rgb8'))
        for index, (pixels, _) in enumerate(FRAMES)
        for header in [typestore.header(stamp_of(index), 'camera') if index < stamped else NOWHEN]
    ]
    items += [('/xmem/seeds', received_ns, message) for received_ns, message in seeds]
    return write_bag(folder / 'bag', sorted(items, key=lambda item: item[1]))


@pytest.mark.parametrize('stamped', [0, 2], ids=['no stamps', 'stamps on the first images'])
def test_seeds_without_a_stamp_are_applied_to_the_newest_image_before_them(tmp_path, stamped):
    after = stamp_of(2) + LATE_NS
    path = bag_of(tmp_path, (after + 1, seeds(2, 1)), (stamp_of(5) + LATE_NS - 1, seeds(4, 2)), stamped=stamped)
    with open_recording(path) as recording:
        plan = recorded_seeds(recording)
        found = list(track(recording, plan, PARAMETERS, engines=ENGINES))
        offline = OfflineTracker(recording, plan, PARAMETERS, engines=ENGINES)
    assert [[item.id for item in frame.objects] for frame in found] == [[], [], [1], [1], [1, 2], [1, 2]]
    assert offline.missed == []
    assert [text.partition(': its image ')[2] for text in offline.notes] == [
        f'has no stamp; used the newest image recorded before it, image {index}' for index in (2, 4)
    ]


def test_a_seed_with_a_stamp_is_applied_to_the_image_with_that_stamp(tmp_path):
    late = stamp_of(4)
    path = bag_of(tmp_path, (late, seeds(1, 1, typestore.header(stamp_of(1), 'camera'))), stamped=2)
    with open_recording(path) as recording:
        found = list(track(recording, recorded_seeds(recording), PARAMETERS, engines=ENGINES))
        assert OfflineTracker(recording, recorded_seeds(recording), PARAMETERS, engines=ENGINES).notes == []
    assert [len(frame.objects) for frame in found] == [0, 1, 1, 1, 1, 1]


def test_seeds_without_a_stamp_before_the_first_image_are_refused(tmp_path):
    path = bag_of(tmp_path, (stamp_of(0), seeds(0, 1)))
    with (
        open_recording(path) as recording,
        pytest.raises(SeedError, match=rf'no unstamped image of .*{TOPIC} was recorded before it'),
    ):
        OfflineTracker(recording, recorded_seeds(recording), PARAMETERS, engines=ENGINES)
