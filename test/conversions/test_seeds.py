# SPDX-License-Identifier: MIT
"""Conversion of seed messages to masks; checks precede the seeder."""

import array

import cv2
import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg')

from node_harness import bounding_box, box_seed, iou, mask_seed, points_seed
from sensor_msgs.msg import Image

from xmem_ros.conversions.images import mask_from_image
from xmem_ros.conversions.png_masks import png_image
from xmem_ros.conversions.seeds import read_candidates, read_seeds, replayable
from xmem_ros.demo.scene import RenderedScene
from xmem_ros.errors import FrameError, SeedError, TooManyObjectsError, UnknownObjectError
from xmem_ros.msg import Seed
from xmem_ros.seeding.candidates import Candidate
from xmem_ros.seeding.seeder import GrabCutSeeder

FRAME, TRUTH = RenderedScene(objects=3)[0]
BOX = bounding_box(TRUTH == 1, 4)


class CountingSeeder(GrabCutSeeder):
    """Counts its boxes and remembers masks that points corrected."""

    def __init__(self):
        self.boxes, self.corrected = 0, []

    def __call__(self):
        return self

    def candidates_of_box(self, frame, box):
        self.boxes += 1
        return super().candidates_of_box(frame, box)

    def candidates_of_points(self, frame, points, point_labels, mask=None):
        self.corrected.append(mask)
        return [Candidate(mask, 0.5)] if mask is not None else super().candidates_of_points(frame, points, point_labels)


@pytest.fixture
def seeder():
    return CountingSeeder()


@pytest.mark.parametrize(
    ('last', 'says'),
    [
        (box_seed(0, 0, 3, 3, 'tiny'), r"^seeds\[1\] 'tiny' \(BOX\): the box .* is too small"),
        (box_seed(400, 0, 900, 30), r'^seeds\[1\] \(BOX\): the box .* is not inside the image'),
        (points_seed([(5, 5)], [0]), r'^seeds\[1\] \(POINTS\): no point on the object'),
        (points_seed([(5, 5), (-1, 0)], [1, 1]), r'^seeds\[1\] \(POINTS\): the point \(-1, 0\) is not inside'),
        (mask_seed(np.zeros((9, 9), bool)), r'^seeds\[1\] \(MASK\): the mask is 9×9'),
        (
            mask_seed(np.zeros(TRUTH.shape, np.uint8), kind=Seed.LABELS),
            r'^seeds\[1\] \(LABELS\): the label image is empty',
        ),
        (Seed(kind=9), r'^seeds\[1\] \(9\): kind is 9'),
        (box_seed(*BOX, 'n' * 256), r'^seeds\[1\] .*the name has 256 characters'),
    ],
)
def test_a_faulty_seed_after_a_valid_box_is_refused_before_the_seeder_works(seeder, last, says):
    with pytest.raises(SeedError, match=says):
        read_seeds([box_seed(*BOX), last], FRAME, 8, seeder)
    assert not seeder.boxes


def test_ids_and_number_of_objects_are_checked_before_the_seeder_works(seeder):
    correction = box_seed(*BOX)
    correction.id = 7
    asked = []

    def check(ids):
        asked.append(ids)
        raise UnknownObjectError('no object has the id 7')

    seeds = [mask_seed(TRUTH.astype(np.uint8), kind=Seed.LABELS), correction, points_seed([(212, 145)], [1])]
    with pytest.raises(UnknownObjectError, match='no object has the id 7'):
        read_seeds(seeds, FRAME, 8, seeder, check)
    assert asked == [[0, 0, 0, 7, 0]]  # the label image shows three objects
    assert not seeder.boxes


def test_valid_seeds_keep_their_order_and_are_checked_once(seeder):
    asked = []
    seeds = [box_seed(*BOX, 'box'), mask_seed(TRUTH.astype(np.uint8), 'all', kind=Seed.LABELS), mask_seed(TRUTH == 2)]
    found = read_seeds(seeds, FRAME, 8, seeder, asked.append)
    assert [seed.name for seed in found] == ['box', 'all_1', 'all_2', 'all_3', '']
    for seed, value in zip(found, (1, 1, 2, 3, 2), strict=True):
        assert iou(seed.mask, value == TRUTH) > 0.8
    assert asked == [[0] * 5]
    assert seeder.boxes == 1


def test_points_on_a_known_object_correct_its_mask(seeder):
    known = points_seed([(5, 5)], [0])
    known.id = 7
    found = read_seeds([known], FRAME, 8, seeder, mask_of={7: TRUTH == 2}.get)
    assert (found[0].mask == (TRUTH == 2)).all()
    assert (seeder.corrected[0] == (TRUTH == 2)).all()


def test_no_points_on_a_known_object_leave_its_mask_unchanged(seeder):
    known = points_seed([], [], 'mug')
    known.id = 7
    found = read_seeds([known], FRAME, 8, seeder, mask_of={7: TRUTH == 2}.get)
    assert (found[0].mask == (TRUTH == 2)).all()
    assert (found[0].id, found[0].name) == (7, 'mug')
    assert not seeder.corrected


def test_points_on_an_object_out_of_sight_begin_a_new_mask(seeder):
    known = points_seed([(5, 5)], [0])
    known.id = 7
    with pytest.raises(SeedError, match='no point on the object'):
        read_seeds([known], FRAME, 8, seeder, mask_of=lambda _: np.zeros(TRUTH.shape, bool))


def test_a_replay_gets_the_mask_that_points_corrected(seeder):
    known = points_seed([(5, 5)], [0])
    known.id, known.name = 7, 'mug'
    given = [mask_seed(TRUTH.astype(np.uint8), kind=Seed.LABELS), known, box_seed(*BOX)]
    seeds = read_seeds(given, FRAME, 8, seeder, mask_of={7: TRUTH == 2}.get)
    labels, points, box = replayable(given, seeds)
    assert (labels.kind, labels.mask.encoding) == (Seed.LABELS, 'png')
    assert (mask_from_image(labels.mask) == TRUTH).all()
    assert len(labels.mask.data) < len(given[0].mask.data) / 4
    assert replayable([labels], []) == [labels]
    assert box == given[2]
    assert (points.kind, points.id, points.name) == (Seed.MASK, 7, 'mug')
    assert (mask_from_image(points.mask) == np.where(TRUTH == 2, 255, 0)).all()


def test_a_record_leaves_out_what_a_seed_does_not_use(seeder):
    box, points = box_seed(*BOX), points_seed([(30, 30)], [1])
    for given in (box, points):
        given.mask.data = array.array('B', bytes(1000))
    box.points = points.points
    recorded = replayable([box, points], [])
    assert [len(seed.mask.data) for seed in recorded] == [0, 0]
    assert not recorded[0].points
    assert recorded[1].points == points.points


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'height': 7}, 'the message says 96×7 px and its PNG has 96×64'),
        ({'data': array.array('B', b'GIF89a')}, 'PNG of 6 bytes cannot be read'),
        ({'data': array.array('B')}, 'PNG of 0 bytes cannot be read'),
    ],
)
def test_a_png_that_is_no_such_mask_is_refused(change, reason):
    message = png_image(np.zeros((64, 96), np.uint8), Image)
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(FrameError, match=reason):
        mask_from_image(message)


def test_a_png_with_colours_is_refused():
    message = png_image(np.zeros((64, 96), np.uint8), Image)
    message.data = array.array('B', cv2.imencode('.png', np.zeros((64, 96, 3), np.uint8))[1].tobytes())
    with pytest.raises(FrameError, match='the PNG has colours or 16 bits'):
        mask_from_image(message)


def test_candidates_start_with_the_mask_that_a_seed_gives_and_near_duplicates_are_left_out(seeder, monkeypatch):
    part, whole = TRUTH == 1, TRUTH > 0
    nearly_whole = whole.copy()
    nearly_whole[np.nonzero(whole)[0][0], np.nonzero(whole)[1][0]] = False
    offered = [Candidate(part, 0.9), Candidate(whole, 0.8), Candidate(nearly_whole, 0.7)]
    monkeypatch.setattr(seeder, 'candidates_of_box', lambda *_: offered)
    asked = []
    found = read_candidates(box_seed(*BOX), FRAME, seeder, asked.append)
    assert [candidate.quality for candidate in found] == [0.9, 0.8]
    assert (found[0].mask == read_seeds([box_seed(*BOX)], FRAME, 8, seeder)[0].mask).all()
    assert asked == [[0]]


def test_candidates_of_grabcut_and_of_a_mask_have_no_quality(seeder):
    for seed in (box_seed(*BOX), mask_seed(TRUTH == 1)):
        (candidate,) = read_candidates(seed, FRAME, seeder)
        assert np.isnan(candidate.quality)
        assert iou(candidate.mask, TRUTH == 1) > 0.8


def test_candidates_of_a_faulty_seed_are_refused_before_the_seeder_works(seeder):
    refused = {
        'seed (LABELS): a label image shows several objects': mask_seed(TRUTH.astype(np.uint8), kind=Seed.LABELS),
        "seed 'cup' (BOX): the box .* is too small": box_seed(0, 0, 3, 3, 'cup'),
        'seed (9): kind is 9': Seed(kind=9),
    }
    for says, seed in refused.items():
        with pytest.raises(SeedError, match=says.replace('(', r'\(').replace(')', r'\)')):
            read_candidates(seed, FRAME, seeder)
    assert not seeder.boxes


def test_a_name_without_a_mask_is_refused_with_advice_on_renaming():
    with pytest.raises(SeedError, match=r"'mug' \(MASK\): there is no mask: .* message of ~/object_<label>/mask with"):
        read_seeds([Seed(id=3, name='mug')], FRAME, 8, GrabCutSeeder)


def test_masks_are_not_checked_beforehand():
    """The tracker refuses them when they are applied."""

    def check(_):
        raise AssertionError

    assert read_seeds([mask_seed(TRUTH == 1)], FRAME, 8, GrabCutSeeder, check)[0].mask.sum() == (TRUTH == 1).sum()


def test_a_label_image_of_too_many_objects_is_refused_before_it_is_split(monkeypatch):
    """With 254 values it would become 254 masks of its size."""
    rows, columns = np.indices(TRUTH.shape) // 4
    many = (rows * 64 + columns).astype(np.uint8)  # squares of 4 px
    compared = []

    class Values(np.ndarray):
        def __eq__(self, other):
            compared.append(other)
            return np.asarray(self) == other

    monkeypatch.setattr('xmem_ros.conversions.seeds.mask_from_image', lambda _: many.view(Values))
    labels = mask_seed(many, kind=Seed.LABELS)
    with pytest.raises(TooManyObjectsError, match=r'seeds\[1\].*255 objects, and 7 more are allowed'):
        read_seeds([box_seed(*BOX), labels], FRAME, 8, GrabCutSeeder)
    assert not compared
