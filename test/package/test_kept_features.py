# SPDX-License-Identifier: MIT
"""Features of an image are kept, so that another point costs only the decoder."""

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from xmem_ros.seeding.prompt_network import PromptNetwork
from xmem_ros.seeding.prompt_segmenter import PromptSegmenter, View, _on_grid

FRAME = np.random.default_rng(1).integers(0, 256, (120, 160, 3)).astype(np.uint8)
MASK = np.zeros(FRAME.shape[:2], bool)
MASK[30:70, 40:90] = True


@pytest.fixture
def segmenter(monkeypatch):
    """A segmenter with random weights that counts how often it computes features."""
    torch.manual_seed(1)
    network = PromptNetwork()
    segmenter, compute = PromptSegmenter(network), network.features
    segmenter.computed = 0

    def counted(image):
        segmenter.computed += 1
        return compute(image)

    monkeypatch.setattr(network, 'features', counted)
    return segmenter


def test_more_points_on_a_mask_of_the_same_image_need_no_new_features(segmenter):
    points = np.array([[50, 40], [60, 50], [80, 65]])
    alone = segmenter.candidates_of_points(FRAME, points, np.array([1, 1, 0]), MASK)
    segmenter._kept.clear()
    for count in (1, 2, 3):
        found = segmenter.candidates_of_points(FRAME, points[:count], np.array([1, 1, 0])[:count], MASK)
    assert segmenter.computed == 2
    for one, other in zip(found, alone, strict=True):  # the kept features are the same
        assert one.quality == other.quality
        assert (one.mask == other.mask).all()


def test_another_image_gets_features_of_its_own(segmenter):
    point = (np.array([[50, 40]]), np.array([1]), MASK)
    segmenter.candidates_of_points(FRAME, *point)
    segmenter.candidates_of_points(255 - FRAME, *point)
    assert segmenter.computed == 2


def contains(outer, inner):
    return (outer.left <= inner.left and inner.right <= outer.right) and (
        outer.top <= inner.top and inner.bottom <= outer.bottom
    )


def test_views_on_the_grid_contain_the_view_and_coincide_for_most_small_changes():
    size = (480, 640)
    views = [View(100 + shift, 90 - shift, 231 + shift, 200) for shift in range(8)]
    grid = [_on_grid(view, size) for view in views]
    assert all(contains(outer, inner) and outer.area < 2 * inner.area for outer, inner in zip(grid, views, strict=True))
    assert len(set(grid)) <= 2
    assert _on_grid(View(0, 0, 640, 480), size) == View(0, 0, 640, 480)
    assert _on_grid(View(5, 6, 7, 7), size) == View(5, 6, 7, 7)
