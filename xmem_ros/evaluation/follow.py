# SPDX-License-Identifier: MIT
"""Follow seeded objects through named frames: what evaluation and the command line have in common."""

from __future__ import annotations

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
    result: StepResult


def follow(
    tracker: Tracker,
    frames: Iterable[tuple[str, np.ndarray]],
    seeds: Callable[[int, np.ndarray], Mapping[int, np.ndarray]],
    *,
    length: int | None = None,
) -> Iterator[FollowedFrame]:
    """Track frames, each with a name, from the first on; the tracker forgets what it knew.

    Arguments:
        tracker: with room for the objects.
        frames: names and frames H×W×3 uint8 RGB.
        seeds: from a frame's index and the frame to what seeds there: value 1…254 → H×W bool; empty for most frames.
            Such a frame's `values` show the seeds exactly.
        length: number of frames; the last of them is not memorised.

    Raises:
        XMemError: of the tracker, with the frame's name before its text.
    """
    tracker.reset()
    value_of = np.zeros(256, np.uint8)  # the tracker's label → value
    for index, (name, frame) in enumerate(frames):
        masks = seeds(index, frame)
        new = [SeedMask(mask, name=str(value)) for value, mask in masks.items()]
        try:
            result = tracker.step(frame, new, last=length is not None and index == length - 1)
        except XMemError as error:
            raise type(error)(f'frame {name}: {error}') from error
        label_of = {item.id: item.label for item in result.objects}
        for value, key in zip(masks, result.ids, strict=True):
            value_of[label_of[key]] = value
        values = value_of[result.labels]
        for value, mask in masks.items():
            values[mask] = value
        yield FollowedFrame(name, frame, values, result)
