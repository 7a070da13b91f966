# SPDX-License-Identifier: MIT
"""On a CUDA device: the same masks as on the CPU, and the same as the reference."""

from pathlib import Path

import numpy as np
import parity
import pytest
import torch

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.tracker import Tracker, TrackerConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='this machine has no CUDA device')


def test_parity_with_the_reference_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    result = parity.compare(Path(__file__).parent / 'data' / 'rendered.npz', 'cuda')
    assert result.sizes_agree
    assert result.largest <= parity.LARGEST_DIFFERENCE


@pytest.mark.parametrize('precision', ['float16', 'bfloat16'])
def test_masks_are_those_of_the_cpu(precision: str) -> None:
    scene = RenderedScene((240, 432), 30, 3, seed=0)
    trackers = [
        Tracker.from_weights('compact', device=device, config=TrackerConfig(size=240, precision=kind))
        for device, kind in (('cpu', 'float32'), ('cuda', precision))
    ]
    for tracker in trackers:
        tracker.seed(scene[0][0], {str(value): scene[0][1] == value for value in (1, 2, 3)})
    for number in range(1, 30):
        ours, theirs = (tracker.step(scene[number][0]).labels for tracker in trackers)
        assert np.mean(ours != theirs) < 0.01


def test_stages_are_timed_and_memory_is_as_announced() -> None:
    scene = RenderedScene((240, 432), 12, 1, seed=0)
    config = TrackerConfig(size=240, max_objects=2)
    tracker = Tracker.from_weights('compact', device='cuda', config=config)
    tracker.seed(scene[0][0], {'it': scene[0][1] == 1})
    timings = tracker.step(scene[1][0]).timings_ms
    assert {'preprocess', 'key', 'match', 'decode', 'postprocess'} <= set(timings)
    assert all(value > 0 for stage, value in timings.items() if stage != 'value')
    expected = Tracker.memory_bytes_for((240, 432), 2, network=tracker.network.config, config=config)
    assert tracker.memory_bytes == expected
