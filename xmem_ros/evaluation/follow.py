# SPDX-License-Identifier: MIT
"""Tracking of seeded objects through named frames."""

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
    """Result of tracking one frame."""

    name: str
    frame: np.ndarray  # H×W×3 uint8 RGB
    values: np.ndarray  # H×W uint8: values of the seeds, 0 background
    planes: list[int]  # value of each plane of `result.probabilities`, first 0, the background
    result: StepResult
    seconds: float  # forward time: image on the device → probabilities of the result's size
    step_seconds: float  # whole step: image in host memory → labels in host memory


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
    """Reset the tracker and track named frames.

    Arguments:
        tracker: tracker whose `max_objects` is at least the number of objects.
        frames: names and frames H×W×3 uint8 RGB.
        seeds: index and frame → seeds of that frame, value 1…255 → H×W bool; usually empty.
        length: number of frames; the last one is not memorised. None: unknown.
        exact_seeds: whether `values` of a seeded frame are the seeds themselves, not their masks
            after scaling to the working size.
        probabilities: whether results have probabilities.
        output_size: H, W of the results; None: those of the frames. If given, `exact_seeds` is
            ignored.

    Raises:
        XMemError: from the tracker; the text begins with the name of the frame.
    """
    tracker.reset()
    value_of = np.zeros(256, np.uint8)  # label → value
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
        # the published clock runs from the image on the device to the probabilities
        outside = sum(result.timings_ms.get(stage, 0.0) for stage in ('preprocess', 'postprocess')) / 1000
        yield FollowedFrame(name, frame, values, planes, result, max(whole - outside, 0.0), whole)
