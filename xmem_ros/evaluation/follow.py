# SPDX-License-Identifier: MIT
"""Follow seeded objects through named frames: what evaluation and the command line have in common."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xmem_ros.errors import XMemError
from xmem_ros.tracker import SeedMask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from xmem_ros.tracker import StepResult, Tracker


@dataclass(frozen=True)
class FollowedFrame:
    """One frame, and what the tracker said of it."""

    name: str
    frame: np.ndarray  # H×W×3 uint8 RGB
    values: np.ndarray  # H×W uint8: the objects' values as seeded, 0 = background
    planes: list[int]  # the value of each plane of `result.probabilities`; 0, the background's, first
    result: StepResult
    seconds: float  # forward time: from the image on the device to probabilities of the result's size
    step_seconds: float  # of the whole step: from an image in the host's memory to labels there


def follow(
    tracker: Tracker,
    frames: Iterable[tuple[str, np.ndarray]],
    seeds: Callable[[int, np.ndarray], Mapping[int, np.ndarray]],
    *,
    length: int | None = None,
    exact_seeds: bool = True,
    probabilities: bool = False,
    output_size: tuple[int, int] | None = None,
) -> Iterator[FollowedFrame]:
    """Track frames, each with a name, from the first on; the tracker forgets what it knew.

    Arguments:
        tracker: with room for the objects.
        frames: names and frames H×W×3 uint8 RGB.
        seeds: from a frame's index and the frame to what seeds there: value 1…255 → H×W bool; empty for most frames.
        length: number of frames; the last of them is not memorised.
        exact_seeds: such a frame's `values` show the seeds exactly, else what is left of them at the working size.
        probabilities: keep them in the result.
        output_size: H, W of the result, if not the frame's; then seeds are not shown exactly.

    Raises:
        XMemError: of the tracker, with the frame's name before its text.
    """
    tracker.reset()
    value_of = np.zeros(256, np.uint8)  # the tracker's label → value
    for index, (name, frame) in enumerate(frames):
        masks = seeds(index, frame)
        new = [SeedMask(mask, name=str(value)) for value, mask in masks.items()]
        last = length is not None and index == length - 1
        try:
            begin = time.perf_counter()
            result = tracker.step(frame, new, last=last, probabilities=probabilities, output_size=output_size)
            whole = time.perf_counter() - begin
        except XMemError as error:
            raise type(error)(f'frame {name}: {error}') from error
        label_of = {item.id: item.label for item in result.objects}
        for value, key in zip(masks, result.ids, strict=True):
            value_of[label_of[key]] = value
        values = value_of[result.labels]
        if exact_seeds and output_size is None:
            for value, mask in masks.items():
                values[mask] = value
        planes = [0, *(int(value_of[item.label]) for item in result.objects)]
        # as published, the clock starts with the image on the device, and stops before labels are taken
        outside = sum(result.timings_ms.get(stage, 0.0) for stage in ('preprocess', 'postprocess')) / 1000
        yield FollowedFrame(name, frame, values, planes, result, max(whole - outside, 0.0), whole)
