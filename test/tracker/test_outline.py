# SPDX-License-Identifier: MIT
"""Boxes and centroids of masks, with and without their specks."""

import math

import numpy as np
import pytest
import torch

from xmem_ros.tracker.geometry import observe_labels, outline

SHARE = 0.05


def mask_with(size: tuple[int, int], *rectangles: tuple[int, int, int, int]) -> np.ndarray:
    """Make a mask, H×W 0/1, with these rectangles x, y, width, height set."""
    mask = np.zeros(size, np.uint8)
    for x, y, width, height in rectangles:
        mask[y : y + height, x : x + width] = 1
    return mask


def joint_of(labels: np.ndarray, planes: int) -> torch.Tensor:
    """Make probabilities that `observe_labels` converts to these labels."""
    return torch.stack([torch.from_numpy((labels == plane).astype(np.float32)) for plane in range(planes)])


def test_a_distant_speck_is_in_the_mask_and_not_in_the_box() -> None:
    body, speck = (40, 30, 50, 20), (150, 100, 4, 4)
    labels = mask_with((120, 160), body, speck)
    with_specks, everything = observe_labels(joint_of(labels, 2), [0, 7])
    without, found = observe_labels(joint_of(labels, 2), [0, 7], SHARE)
    assert np.array_equal(with_specks, without)
    assert (without == 7).sum() == found[7].area == 50 * 20 + 16
    assert found[7].box == body
    assert found[7].centroid == pytest.approx((40 + 24.5, 30 + 9.5))
    assert everything[7].box == (40, 30, 114, 74)
    assert everything[7].area == found[7].area
    assert everything[7].score == found[7].score == 1


def test_parts_of_at_least_the_minimum_share_count() -> None:
    body = (0, 0, 20, 20)  # 400 px, of which 0.05 are 20 px
    assert outline(mask_with((64, 64), body, (40, 40, 5, 4)), SHARE)[0] == (0, 0, 45, 44)
    assert outline(mask_with((64, 64), body, (40, 40, 19, 1)), SHARE)[0] == body


def test_an_object_cut_into_many_equal_parts_keeps_its_box() -> None:
    bars = [(10 + 8 * number, 20, 2, 60) for number in range(40)]  # each is 1/40 of the whole
    box, centroid = outline(mask_with((100, 400), *bars), SHARE)
    assert box == (10, 20, 8 * 39 + 2, 60)
    assert centroid == pytest.approx((10 + 4 * 39 + 0.5, 49.5))


@pytest.mark.parametrize('size', [(120, 160), (480, 640), (1200, 1921)])
def test_boxes_are_exact_at_any_image_size(size: tuple[int, int]) -> None:
    """Large masks are examined in cells, but box and centroid are exact to a pixel."""
    height, width = size
    rng = np.random.default_rng(0)
    for _ in range(20):
        w, h = int(rng.integers(width // 4, width // 2)), int(rng.integers(height // 4, height // 2))
        x, y = int(rng.integers(0, width // 3)), int(rng.integers(0, height // 3))
        body = mask_with(size, (x, y, w, h))
        # a part of the body that hangs on by a corner, which connects it
        body[y + h : y + h + 5, x + w : x + w + 5] = 1
        specks = [(width - 1, height - 1, 1, 1), (width - 2, 0, 2, 2), (0, height - 3, 2, 3)]
        box, centroid = outline(body | mask_with(size, *specks), SHARE)
        ys, xs = np.nonzero(body)
        assert box == (x, y, w + 5, h + 5)
        assert centroid == pytest.approx((xs.mean(), ys.mean()))


def test_the_minimum_share_does_not_change_a_mask_of_one_part() -> None:
    mask = mask_with((480, 640), (0, 0, 640, 480))
    mask[100:200, 100:300] = 0
    assert outline(mask, SHARE) == outline(mask)


def test_noise_and_single_pixels_are_boxed_whole() -> None:
    assert outline(mask_with((480, 640), (639, 479, 1, 1)), SHARE) == ((639, 479, 1, 1), (639.0, 479.0))
    noise = (np.random.default_rng(0).random((480, 640)) > 0.5).astype(np.uint8)
    assert outline(noise, SHARE)[0] == (0, 0, 640, 480)


def test_an_empty_mask_has_no_box() -> None:
    for share in (0, SHARE, 1):
        box, centroid = outline(np.zeros((4, 5), np.uint8), share)
        assert box is None
        assert all(map(math.isnan, centroid))
