# SPDX-License-Identifier: MIT
"""Losses against hand-computed values, and the memory that a clip is tracked with."""

import numpy as np
import pytest
import torch

from xmem_ros.network.config import COMPACT
from xmem_ros.network.model import XMemNetwork
from xmem_ros.training.forward import track_clip
from xmem_ros.training.losses import bootstrapped_cross_entropy, dice_loss, hardest_share


def test_bootstrapping_takes_the_hardest_pixels() -> None:
    logits = torch.zeros(1, 2, 1, 4)
    logits[0, 1, 0] = torch.tensor([0.0, 10.0, 10.0, 10.0])
    labels = torch.ones(1, 1, 4, dtype=torch.int64)
    assert bootstrapped_cross_entropy(logits, labels, 0.25).item() == pytest.approx(np.log(2), abs=1e-5)
    assert bootstrapped_cross_entropy(logits, labels, 1.0).item() == pytest.approx(np.log(2) / 4, abs=1e-3)
    assert [hardest_share(i, 10, 20, 0.2) for i in (0, 15, 30)] == pytest.approx([1, 0.6, 0.2])


def test_dice_counts_only_valid_objects() -> None:
    prob = torch.zeros(1, 2, 1, 4)
    prob[0, 0, 0, :2] = 1
    labels = torch.tensor([[[1, 1, 0, 0]]])
    assert dice_loss(prob, labels, torch.tensor([[True, False]])).item() == pytest.approx(0)
    shifted = torch.tensor([[[0, 1, 1, 0]]])
    # (2·1 + 1) / (2 + 2 + 1)
    assert dice_loss(prob, shifted, torch.tensor([[True, False]])).item() == pytest.approx(1 - 3 / 5)


def test_a_limit_of_reference_frames_keeps_the_first_frame() -> None:
    torch.manual_seed(0)
    network = XMemNetwork(COMPACT)
    images, first = torch.randn(1, 4, 3, 32, 32), torch.ones(1, 1, 32, 32)
    valid = torch.ones(1, 1, dtype=torch.bool)

    def run(frames: int) -> torch.Tensor:
        with torch.no_grad():
            return track_clip(network.eval(), images, first, valid, 0.0, torch.Generator().manual_seed(1), frames)

    everything, one = run(0), run(1)
    assert torch.equal(everything[:, 0], one[:, 0])  # at that time memory has only the first frame
    assert not torch.equal(everything[:, 2], one[:, 2])
    assert torch.equal(everything, run(3))
