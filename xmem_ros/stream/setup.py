# SPDX-License-Identifier: MIT
"""Preparation of a tracker by the node's parameters, and release of what it used."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

import torch

from xmem_ros.engines.onnx_runtime import OnnxNetwork
from xmem_ros.errors import FrameError
from xmem_ros.host_memory import release_freed_memory
from xmem_ros.parameters.table import NONE
from xmem_ros.tracker import Tracker, TrackerConfig

if TYPE_CHECKING:
    from xmem_ros.parameters.table import Parameters
    from xmem_ros.tracker.engine import Engines

USUAL_SIZE = (480, 640)  # H, W of a camera's images [px]


def make_tracker(parameters: Parameters, engines: Engines | None = None) -> Tracker:
    """Load the weights onto the device, or take them from `engines`.

    Raises:
        WeightsError, DeviceError, ParameterError.
    """
    config = TrackerConfig(
        size=parameters.size,
        precision=parameters.precision,
        engine=parameters.engine,
        cuda_graphs=parameters.cuda_graphs,
        max_objects=parameters.max_objects,
        memory_every=parameters.memory_every,
        min_area=parameters.min_area,
        min_part_share=parameters.min_part_share,
        min_score=parameters.min_score,
        lost_after=parameters.lost_after,
        report_unsure=parameters.report_unsure,
        memory_budget_mb=parameters.memory.budget_mb,
        memory=parameters.memory_config(),
    )
    return Tracker.from_weights(parameters.weights, device=parameters.device, config=config, engines=engines)


def prepare_models(tracker: Tracker, parameters: Parameters) -> None:
    """Export, build and load ONNX models for the image size in the parameter `prepare`.

    Raises:
        XMemError: the models cannot be prepared.
    """
    if parameters.prepare != NONE:
        tracker.prepare(parameters.prepare_size())


def warm_up(tracker: Tracker) -> None:
    """Run dummy frames so that the first real one does not wait; raises `OutOfMemoryError`."""
    # The size of the first image is unknown. ONNX models depend on it, and so does the working size
    # of unscaled images.
    if isinstance(tracker.network, OnnxNetwork) or not tracker.config.size:
        return
    with contextlib.suppress(FrameError):  # the budget is too small for this shape; others may fit
        tracker.warm_up(USUAL_SIZE)


def memory_estimate(tracker: Tracker) -> str:
    """Describe how much memory images of the two common aspect ratios need.

    Raises:
        FrameError: the budget is too small for both. Not raised for unscaled images (size 0), since
            their size is not known yet.
    """
    estimates, errors = [], []
    for shape, size in {'4:3': (480, 640), '16:9': (720, 1280)}.items():
        of = shape if tracker.config.size else f'{size[1]}×{size[0]} px'
        try:
            estimates.append(f'{tracker.memory_bytes_with(size) / 1e6:.0f} MB for images of {of}')
        except FrameError as error:
            estimates.append(f'the budget is too small for images of {of}')
            errors.append(error)
    if len(errors) == len(estimates) and tracker.config.size:
        raise errors[0]
    return ', '.join(estimates)


def release_device() -> None:
    """Release the device and host memory of deleted trackers."""
    gc.collect()  # a tracker and its parts form reference cycles
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call] # of torch
        torch.cuda.empty_cache()
    release_freed_memory()
