# SPDX-License-Identifier: MIT
"""Masks from boxes and points by the bundled network, on the rendered scene."""

import threading

import numpy as np
import pytest
import torch

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.errors import SeedError, WeightsError
from xmem_ros.seeding import prompt_segmenter
from xmem_ros.seeding.prompt_network import PromptNetwork
from xmem_ros.seeding.prompt_segmenter import PromptSegmenter
from xmem_ros.seeding.prompt_weights import load_prompt_network, save_prompt_network
from xmem_ros.seeding.seeder import make_seeder
from xmem_ros.weights.files import find_weights

FRAME, TRUTH = RenderedScene(objects=3)[0]


@pytest.fixture(scope='module')
def seeder():
    return make_seeder()


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def box_of(mask):
    ys, xs = np.nonzero(mask)
    return xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()


def middle_of(mask):
    ys, xs = np.nonzero(mask)
    nearest = np.argmin((xs - xs.mean()) ** 2 + (ys - ys.mean()) ** 2)
    return int(xs[nearest]), int(ys[nearest])


@pytest.mark.parametrize('value', [1, 2, 3])
def test_a_box_gives_the_mask_of_its_object(seeder, value):
    assert iou(seeder.from_box(FRAME, box_of(value == TRUTH)), value == TRUTH) > 0.8


@pytest.mark.parametrize('value', [1, 2, 3])
def test_a_point_gives_the_mask_of_its_object(seeder, value):
    assert iou(seeder.from_points(FRAME, np.array([middle_of(value == TRUTH)]), np.array([1])), value == TRUTH) > 0.6


def test_a_point_corrects_a_mask(seeder):
    """A mask of two objects loses the one with a point of label 0."""
    both = (TRUTH == 1) | (TRUTH == 2)
    found = seeder.from_points(FRAME, np.array([middle_of(TRUTH == 2)]), np.array([0]), both)
    assert iou(found, TRUTH == 1) > iou(both, TRUTH == 1) + 0.1


def test_candidates_come_best_first_and_are_not_empty(seeder):
    found = seeder.candidates_of_points(FRAME, np.array([middle_of(TRUTH == 1)]), np.array([1]))
    qualities = [candidate.quality for candidate in found]
    assert qualities == sorted(qualities, reverse=True)
    assert all(candidate.mask.any() for candidate in found)
    assert all(0 <= quality <= 1 for quality in qualities)


def test_masks_have_the_size_of_any_frame(seeder):
    for height, width in ((33, 41), (16, 300), (900, 1600)):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[height // 4 : height // 2, width // 4 : width // 2] = 255
        box = (width // 4 - 1, height // 4 - 1, width // 4 + 2, max(height // 4 + 2, 4))
        assert seeder.from_box(frame, box).shape == (height, width)


def test_the_result_does_not_depend_on_earlier_prompts_or_other_threads(seeder):
    def work(found):
        for value in (1, 2, 3):
            found.append(seeder.from_box(FRAME, box_of(value == TRUTH)))
            found.append(seeder.from_points(FRAME, np.array([middle_of(value == TRUTH)]), np.array([1])))

    results = [[] for _ in range(4)]
    threads = [threading.Thread(target=work, args=(found,)) for found in results[:-1]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    work(results[-1])
    for found in results[:-1]:
        assert all((one == other).all() for one, other in zip(found, results[-1], strict=True))


def test_further_points_on_an_image_reuse_its_features(monkeypatch):
    seeder, runs = PromptSegmenter.bundled(), []
    real = seeder._network.features
    monkeypatch.setattr(seeder._network, 'features', lambda image: runs.append(1) or real(image))
    point = middle_of(TRUTH == 1)
    seeder.from_points(FRAME, np.array([point]), np.array([1]))
    first = len(runs)
    seeder.from_points(FRAME, np.array([point, (3, 3)]), np.array([1, 0]))
    assert len(runs) - first <= 1  # of the closer view, if it has moved


def test_another_image_of_the_same_size_is_not_taken_for_the_first(seeder):
    box = box_of(TRUTH == 1)
    first = seeder.from_box(FRAME, box)
    changed = FRAME.copy()
    changed[TRUTH == 1] = 0
    seeder.from_box(changed, box)
    assert (seeder.from_box(FRAME, box) == first).all()


def test_features_of_few_crops_are_kept(seeder):
    for x in range(0, 200, 10):
        seeder.from_box(FRAME, (x, 20, 90, 90))
    assert len(seeder._kept) <= prompt_segmenter.KEPT_CROPS


def test_nothing_in_a_box_is_said(monkeypatch):
    network = PromptNetwork().eval()
    torch.nn.init.constant_(network.mask.bias, -50.0)
    seeder = PromptSegmenter(network)
    with pytest.raises(SeedError, match='nothing stands out in the box x 10, y 10, 50×50'):
        seeder.from_box(FRAME, (10, 10, 50, 50))
    with pytest.raises(SeedError, match='nothing stands out at the points'):
        seeder.from_points(FRAME, np.array([[20, 20]]), np.array([1]))


def test_weights_are_read_back_as_written(tmp_path):
    network = PromptNetwork().eval()
    save_prompt_network(network, tmp_path / 'prompts.safetensors')
    read = load_prompt_network(tmp_path / 'prompts.safetensors').state_dict()
    for name, tensor in network.state_dict().items():
        assert torch.allclose(read[name].float(), tensor.float(), atol=1e-3), name


def test_weights_of_a_tracker_are_refused():
    with pytest.raises(WeightsError, match='not the weights of a prompt network'):
        load_prompt_network(find_weights('compact'))


def test_boxes_at_once_give_the_masks_of_each_box_alone(seeder):
    boxes = [box_of(value == TRUTH) for value in (1, 2, 3)] * 4  # more than are taken at once
    together = seeder.from_boxes(FRAME, boxes)
    for mask, box in zip(together, boxes, strict=True):
        assert iou(mask, seeder.from_box(FRAME, box)) > 0.99  # sums are rounded in another order


def test_boxes_of_one_shape_are_one_pass_of_the_network(monkeypatch):
    seeder, runs = PromptSegmenter.bundled(), []
    real = seeder._network.features
    monkeypatch.setattr(seeder._network, 'features', lambda image: runs.append(len(image)) or real(image))
    seeder.from_boxes(FRAME, [(x, 60, 50, 50) for x in (20, 90, 160, 230)])
    assert runs == [4]


def test_a_box_without_an_object_does_not_spoil_the_others(monkeypatch):
    seeder = PromptSegmenter.bundled()
    box = box_of(TRUTH == 1)
    alone = seeder.from_box(FRAME, box)
    real = prompt_segmenter._candidates
    monkeypatch.setattr(
        prompt_segmenter,
        '_candidates',
        lambda *given: [candidate for candidate in real(*given) if iou(candidate.mask, alone) > 0.5],
    )
    mask, error = seeder.from_boxes(FRAME, [box, box_of(TRUTH == 2)])
    assert iou(mask, alone) > 0.99
    assert isinstance(error, SeedError)


def test_a_further_point_corrects_the_mask_of_the_points_before(monkeypatch):
    seeder, runs = PromptSegmenter.bundled(), []
    points, labels = np.array([middle_of(TRUTH == 1), (3, 3), middle_of(TRUTH == 2)]), np.array([1, 0, 0])
    monkeypatch.setattr(seeder, '_predict', lambda *given, real=seeder._predict: runs.append(1) or real(*given))
    at_once = seeder.from_points(FRAME, points, labels)
    seeder._found.clear()
    for count in (1, 2):
        seeder.from_points(FRAME, points[:count], labels[:count])
    before = len(runs)
    assert (seeder.from_points(FRAME, points, labels) == at_once).all()
    assert len(runs) - before == 1


def test_many_points_are_taken_in_a_bounded_number_of_looks(monkeypatch):
    seeder, runs = PromptSegmenter.bundled(), []
    monkeypatch.setattr(seeder, '_predict', lambda *given, real=seeder._predict: runs.append(1) or real(*given))
    ys, xs = np.nonzero(TRUTH == 1)
    points = np.column_stack([xs, ys])[:900]
    seeder.from_points(FRAME, points, np.ones(len(points), int))
    assert len(runs) <= prompt_segmenter.ONE_BY_ONE + 3
    assert len(seeder._found) <= prompt_segmenter.KEPT_PROMPTS
