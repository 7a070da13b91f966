# SPDX-License-Identifier: MIT
"""The rendered scene: repeatable, with exact masks, of moderate difficulty."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from xmem_ros.demo.scene import PERIOD, RenderedScene
from xmem_ros.errors import ParameterError


@pytest.fixture(scope='module')
def clip():
    scene = RenderedScene()
    frames, labels = zip(*scene, strict=True)
    return scene, np.stack(frames), np.stack(labels)


def areas(labels, objects):
    """Areas of the objects in all frames, T×O [px]."""
    return np.array([[np.count_nonzero(image == k + 1) for k in range(objects)] for image in labels])


def test_frames_and_labels_have_the_documented_shapes_and_types(clip):
    scene, frames, labels = clip
    assert len(scene) == len(frames) == 150
    assert frames.shape == (150, 240, 432, 3)
    assert frames.dtype == np.uint8
    assert labels.shape == (150, 240, 432)
    assert labels.dtype == np.uint8
    assert scene.names == ['ball', 'mug', 'box']
    assert set(np.unique(labels)) == {0, 1, 2, 3}


def test_the_same_seed_gives_the_same_frame_in_any_order(clip):
    _, frames, labels = clip
    again = RenderedScene()
    for index in (149, 3, 77, -1):
        frame, mask = again[index]
        np.testing.assert_array_equal(frame, frames[index])
        np.testing.assert_array_equal(mask, labels[index])


def test_another_seed_gives_another_scene(clip):
    _, frames, _ = clip
    frame, _ = RenderedScene(seed=1)[0]
    assert np.abs(frame.astype(int) - frames[0]).mean() > 5


def test_the_motion_repeats_in_a_scene_of_any_length(clip):
    _, _, labels = clip
    _, mask = RenderedScene(frames=PERIOD + 10)[PERIOD + 5]
    np.testing.assert_array_equal(mask, labels[5])


@pytest.mark.parametrize('objects', range(1, 7))
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_objects_start_apart_and_in_full_view(objects, seed):
    scene = RenderedScene(objects=objects, seed=seed)
    _, labels = scene[0]
    assert set(np.unique(labels)) == set(range(objects + 1))
    assert not labels[[0, -1]].any()
    assert not labels[:, [0, -1]].any()
    grown = [cv2.dilate((labels == k + 1).astype(np.uint8), np.ones((3, 3))) for k in range(objects)]
    assert np.sum(grown, axis=0).max() == 1


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_one_object_leaves_and_returns_and_one_is_occluded(seed):
    scene = RenderedScene(seed=seed)
    labels = np.stack([mask for _, mask in scene])
    area = areas(labels, 3)
    away = np.flatnonzero(area[:, 2] == 0)
    assert 20 <= len(away) <= 60  # frames; at 30 a second one to two seconds
    assert (np.diff(away) == 1).all()
    assert area[-1, 2] > 0.8 * area[0, 2]
    # The mug never leaves: what is missing of it is behind something else.
    touches = np.array([(mask[[0, -1]] == 2).any() or (mask[:, [0, -1]] == 2).any() for mask in labels])
    assert not touches.any()
    assert area[:, 1].min() < 0.5 * area[0, 1]


def test_masks_follow_the_visible_edges(clip):
    _, frames, labels = clip
    for index in (0, 40, 120):
        grey = cv2.cvtColor(frames[index], cv2.COLOR_RGB2GRAY).astype(np.float32)
        slope = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
        mask = (labels[index] > 0).astype(np.uint8)
        edge = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0
        assert slope[edge].mean() > 3 * slope[cv2.dilate(mask, np.ones((9, 9))) == 0].mean()


def test_the_camera_moves_and_the_light_changes(clip):
    _, frames, _ = clip
    strips = [cv2.cvtColor(frame[:60], cv2.COLOR_RGB2GRAY).astype(np.float32) for frame in (frames[0], frames[20])]
    (x, y), _ = cv2.phaseCorrelate(*strips)
    assert np.hypot(x, y) > 5  # px, of the wall
    brightness = frames[:, :40].mean(axis=(1, 2, 3))
    assert brightness.max() / brightness.min() > 1.15


def test_objects_move_by_no_more_than_a_tracker_can_follow(clip):
    _, _, labels = clip
    for k in (1, 2, 3):
        for before, after in pairwise(labels):
            if min(np.count_nonzero(before == k), np.count_nonzero(after == k)) > 500:
                shared = np.count_nonzero((before == k) & (after == k))
                assert shared > 0.5 * np.count_nonzero((before == k) | (after == k))


@pytest.mark.parametrize('arguments', [{'objects': 0}, {'objects': 7}, {'frames': 0}, {'size': (32, 400)}])
def test_arguments_out_of_range_are_refused_with_what_is_allowed(arguments):
    with pytest.raises(ParameterError, match='it must be'):
        RenderedScene(**arguments)


def test_an_index_beyond_the_end_raises_an_index_error():
    with pytest.raises(IndexError):
        RenderedScene(frames=3)[3]
