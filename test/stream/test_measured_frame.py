# SPDX-License-Identifier: MIT
"""Clouds of a rendered RGB-D frame, cut out by exact and by inexact masks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import rgbd_scene as scene

from xmem_ros.objects import ObjectState, TrackedObject
from xmem_ros.stream.depth import Camera
from xmem_ros.stream.measured_frame import MeasuredFrame

VIEW = scene.view(3)
CAMERA = Camera(scene.FOCAL, scene.FOCAL, scene.CX, scene.CY, scene.SIZE)


def item(labels: np.ndarray, label: int) -> TrackedObject:
    x, y, width, height = cv2.boundingRect((labels == label).astype(np.uint8))
    box = (x, y, width, height) if width else None
    return TrackedObject(label, label, '', ObjectState.TRACKED, 1.0, box, 0, (0.0, 0.0), 0, 0, 0.0, 0.0)


def frame(labels: np.ndarray = VIEW.labels, depth: np.ndarray = VIEW.depth) -> MeasuredFrame:
    return MeasuredFrame(0, labels, tuple(item(labels, label) for label in (1, 2)), depth, CAMERA)


def of_object(measured: MeasuredFrame, label: int, **options: int) -> np.ndarray:
    return measured.object_points(measured.objects[label - 1], **options)


@pytest.mark.parametrize('label', [scene.BALL, scene.BOX])
def test_an_object_has_the_points_of_all_its_visible_sides(label):
    found, truth = of_object(frame(), label), VIEW.points[VIEW.labels == label]
    assert len(found) > 0.8 * len(truth)
    assert (VIEW.distance(found, label) < 0.02).mean() >= 0.98
    assert np.linalg.norm(found.mean(axis=0) - truth.mean(axis=0)) < 0.01


@pytest.mark.parametrize('label', [scene.BALL, scene.BOX])
def test_a_mask_that_spills_onto_the_wall_adds_no_points(label):
    wide = cv2.dilate((VIEW.labels == label).astype(np.uint8), np.ones((17, 17), np.uint8)) * np.uint8(label)
    found = of_object(frame(wide), label)
    assert (VIEW.distance(found, label) < 0.02).mean() >= 0.98
    assert np.linalg.norm(found.mean(axis=0) - VIEW.points[VIEW.labels == label].mean(axis=0)) < 0.01


def test_the_background_has_no_points_of_objects_and_all_others():
    found = frame().background_points()
    for label in (scene.BALL, scene.BOX):
        assert (VIEW.distance(found, label) < 0.02).mean() < 1e-3
    assert len(found) > 0.9 * (VIEW.labels == 0).sum()


def test_objects_and_background_share_no_pixel_at_any_spacing():
    for every in (1, 3, 7):
        parts = [frame().background_points(every=every), *(of_object(frame(), label, every=every) for label in (1, 2))]
        together = np.concatenate(parts)
        assert len(np.unique(together, axis=0)) == len(together)
        pixels = np.round(together[:, :2] / together[:, 2:] * scene.FOCAL + (scene.CX, scene.CY)).astype(int)
        assert (pixels % every == 0).all()


def test_millimetres_and_metres_give_the_same_points():
    metres = VIEW.depth.astype(np.float32) / 1000
    metres[VIEW.depth == 0] = np.nan
    assert np.allclose(of_object(frame(depth=metres), 1), of_object(frame(), 1), atol=1e-6)
    assert np.allclose(frame(depth=metres).background_points(), frame().background_points(), atol=1e-6)


def test_an_object_without_a_mask_or_without_depth_has_no_points():
    assert of_object(frame(np.zeros_like(VIEW.labels)), 1).shape == (0, 3)
    assert of_object(frame(depth=np.zeros_like(VIEW.depth)), 1).shape == (0, 3)
    assert frame(depth=np.zeros_like(VIEW.depth)).background_points().shape == (0, 3)


def test_a_wider_rim_leaves_more_out_of_both_clouds():
    narrow, wide = (frame().background_points(rim=rim) for rim in (0, 8))
    assert len(wide) < len(narrow)
    assert len(of_object(frame(), 1, rim=8)) < len(of_object(frame(), 1, rim=0))
