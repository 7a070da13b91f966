# SPDX-License-Identifier: MIT
"""CUDA devices: the same masks as on the CPU, and as the reference."""

import contextlib
from pathlib import Path

import numpy as np
import parity
import pytest
import torch

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.errors import OutOfMemoryError
from xmem_ros.tracker import Tracker, TrackerConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='this machine has no CUDA device')


def test_masks_agree_with_the_reference_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    result = parity.compare(Path(__file__).parents[1] / 'data' / 'rendered.npz', 'cuda')
    assert result.sizes_agree
    assert result.largest <= parity.LARGEST_DIFFERENCE


@pytest.mark.parametrize('precision', ['float16', 'bfloat16'])
def test_masks_agree_with_those_of_the_cpu(precision: str) -> None:
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


def test_stages_are_timed_and_memory_has_its_predicted_size() -> None:
    scene = RenderedScene((240, 432), 12, 1, seed=0)
    config = TrackerConfig(size=240, max_objects=2)
    tracker = Tracker.from_weights('compact', device='cuda', config=config)
    tracker.seed(scene[0][0], {'it': scene[0][1] == 1})
    timings = tracker.step(scene[1][0]).timings_ms
    assert {'preprocess', 'key', 'match', 'decode', 'postprocess'} <= set(timings)
    assert all(value > 0 for stage, value in timings.items() if stage != 'value')
    expected = Tracker.memory_bytes_for((240, 432), 2, network=tracker.network.config, config=config)
    assert tracker.memory_bytes == expected


def test_running_out_of_memory_loses_no_object() -> None:
    scene = RenderedScene((240, 432), 12, 2, seed=0)
    tracker = Tracker.from_weights('compact', device='cuda', config=TrackerConfig(size=240, max_objects=8))
    tracker.seed(scene[0][0], {'a': scene[0][1] == 1, 'b': scene[0][1] == 2})
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (4 << 20)) / total)
        for number in range(1, 6):
            with contextlib.suppress(OutOfMemoryError):
                tracker.step(scene[number][0])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert tracker.given_up
    assert [item.id for item in tracker.step(scene[6][0]).objects] == [1, 2]


def test_onnxruntime_tracks_as_torch_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = pytest.importorskip('onnxruntime')
    if 'CUDAExecutionProvider' not in runtime.get_available_providers():
        pytest.skip('this onnxruntime has no CUDA')
    monkeypatch.setenv('XMEM_ROS_ONNX', str(tmp_path))
    scene = RenderedScene((240, 432), 12, 3, seed=0)
    trackers = [
        Tracker.from_weights('compact', device='cuda', config=TrackerConfig(precision='float16', engine=engine))
        for engine in ('torch', 'onnxruntime')
    ]
    for tracker in trackers:
        tracker.seed(scene[0][0], {str(value): scene[0][1] == value for value in (1, 2, 3)})
    for number in range(1, 12):
        ours, theirs = (tracker.step(scene[number][0]).labels for tracker in trackers)
        assert np.mean(ours != theirs) < 0.01


@pytest.mark.parametrize('precision', ['float32', 'float16'])
def test_cuda_graphs_give_the_same_masks(precision: str) -> None:
    scene = RenderedScene((240, 432), 40, 3, seed=0)
    trackers = [
        Tracker.from_weights('compact', device='cuda', config=TrackerConfig(precision=precision, cuda_graphs=graphs))
        for graphs in (False, True)
    ]
    for tracker in trackers:
        tracker.seed(scene[0][0], {str(value): scene[0][1] == value for value in (1, 2)})
    for number in range(1, 40):
        seeds = {'3': scene[number][1] == 3} if number == 20 else ()
        ours, theirs = (tracker.step(scene[number][0], seeds).labels for tracker in trackers)
        assert np.mean(ours != theirs) < 0.001
    assert trackers[1].network.fault == ''
