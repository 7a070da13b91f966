# SPDX-License-Identifier: MIT
"""Masks from boxes, points and label images of the rendered scene."""

import time

import numpy as np
import pytest
from masks import bounding_box, iou

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.errors import SeedError
from xmem_ros.seeding import checks, grabcut


def middle_of(mask):
    ys, xs = np.nonzero(mask)
    nearest = np.argmin((ys - ys.mean()) ** 2 + (xs - xs.mean()) ** 2)
    return xs[nearest], ys[nearest]


@pytest.fixture(scope='module')
def scene():
    return RenderedScene(objects=4)[0]


@pytest.mark.parametrize('label', [1, 2, 3, 4])
def test_a_box_around_an_object_finds_it(scene, label):
    frame, labels = scene
    mask = grabcut.mask_from_box(frame, bounding_box(labels == label, 4))
    assert iou(mask, labels == label) > 0.9  # 0.98 and more when this was written


def test_nothing_outside_the_box_belongs_to_its_mask(scene):
    frame, labels = scene
    x, y, width, height = bounding_box(labels == 1, -6)  # cuts into the object
    mask = grabcut.mask_from_box(frame, (x, y, width, height))
    inside = np.zeros_like(mask)
    inside[y : y + height, x : x + width] = True
    assert mask.any()
    assert not (mask & ~inside).any()


def test_a_box_of_the_whole_image_finds_an_object(scene):
    frame, _ = scene
    mask = grabcut.mask_from_box(frame, (0, 0, frame.shape[1], frame.shape[0]))
    assert 0 < mask.sum() < mask.size


@pytest.mark.parametrize('label', [1, 2, 3, 4])
def test_a_point_in_the_middle_finds_the_object(scene, label):
    frame, labels = scene
    mask = grabcut.mask_from_points(frame, np.array([middle_of(labels == label)]), np.array([1]))
    assert iou(mask, labels == label) > 0.8  # 0.89 and more when this was written


def test_background_points_are_excluded(scene):
    frame, labels = scene
    inside = middle_of(labels == 2)
    apart = (inside[0] + 8, inside[1])
    mask = grabcut.mask_from_points(frame, np.array([inside, apart]), np.array([1, 0]))
    assert mask[inside[1], inside[0]]
    assert not mask[apart[1], apart[0]]


def test_the_mask_is_connected_to_the_points(scene):
    import cv2

    frame, labels = scene
    point = middle_of(labels == 3)
    mask = grabcut.mask_from_points(frame, np.array([point]), np.array([1]))
    assert mask[point[1], point[0]]
    assert cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[0] == 2


def test_the_same_seed_always_gives_the_same_mask(scene):
    frame, labels = scene
    box, point = bounding_box(labels == 1, 5), np.array([middle_of(labels == 2)])
    first = grabcut.mask_from_box(frame, box), grabcut.mask_from_points(frame, point, np.array([1]))
    grabcut.mask_from_box(frame, bounding_box(labels == 4, 9))
    second = grabcut.mask_from_box(frame, box), grabcut.mask_from_points(frame, point, np.array([1]))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_a_large_image_takes_about_as_long_as_a_small_one():
    frame, labels = RenderedScene(size=(720, 1280), frames=1)[0]
    box = bounding_box(labels == 1, 10)
    spent = []
    for _ in range(3):
        begun = time.thread_time()
        mask = grabcut.mask_from_box(frame, box)
        spent.append(time.thread_time() - begun)
    assert iou(mask, labels == 1) > 0.9
    assert min(spent) < 0.5  # s of processor time; GrabCut on the whole image takes several


def test_a_label_image_gives_a_mask_for_each_value():
    labels = np.zeros((6, 8), np.uint8)
    labels[1, 1:3], labels[4, 4:8] = 200, 7
    masks = checks.masks_from_labels(labels, (6, 8))
    assert list(masks) == [7, 200]
    assert masks[7].sum() == 4
    assert masks[200].sum() == 2


def test_any_non_zero_value_belongs_to_a_mask():
    mask = np.zeros((6, 8), np.uint8)
    mask[2, 3] = 1
    assert checks.mask_from_mask(mask, (6, 8)).sum() == 1


@pytest.mark.parametrize(
    ('box', 'says'),
    [
        ((10, 10, 0, 5), 'too small'),
        ((10, 10, 3, 30), 'too small'),
        ((-5, 10, 30, 30), 'not inside the image of 432×240: clip it'),
        ((420, 10, 30, 30), 'not inside the image'),
        ((10, 230, 30, 30), 'not inside the image'),
    ],
)
def test_an_unusable_box_is_refused(scene, box, says):
    with pytest.raises(SeedError, match=says):
        grabcut.mask_from_box(scene[0], box)


@pytest.mark.parametrize(
    ('points', 'labels', 'says'),
    [
        ([], [], 'no point on the object'),
        ([(5, 5)], [0], 'no point on the object'),
        ([(5, 5)], [1, 0], 'give one label for each point'),
        ([(5, 5), (9, 9)], [1, 2], 'allowed: 1 .on the object'),
        ([(500, 5)], [1], 'not inside the image of 432×240'),
        ([(5, -1)], [1], 'not inside the image'),
        ([(float('nan'), 5)], [1], 'not inside the image'),
        ([(5, 5), (5.4, 5.4)], [1, 0], 'give it one label'),
    ],
)
def test_unusable_points_are_refused(scene, points, labels, says):
    with pytest.raises(SeedError, match=says):
        grabcut.mask_from_points(scene[0], np.array(points), np.array(labels))


def test_an_empty_or_wrong_sized_mask_is_refused():
    with pytest.raises(SeedError, match='the mask is empty'):
        checks.mask_from_mask(np.zeros((6, 8), bool), (6, 8))
    with pytest.raises(SeedError, match='the mask is 8×6, but the image is 16×12: resize the mask to 16×12'):
        checks.mask_from_mask(np.ones((6, 8), bool), (12, 16))
    with pytest.raises(SeedError, match='the label image is empty'):
        checks.masks_from_labels(np.zeros((6, 8), np.uint8), (6, 8))
    with pytest.raises(SeedError, match='resize the label image to 9×6'):
        checks.masks_from_labels(np.ones((6, 8), np.uint8), (6, 9))
