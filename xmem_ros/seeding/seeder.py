# SPDX-License-Identifier: MIT
"""Seeders: what turns a box or points into a mask. No torch until one is made."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from xmem_ros.errors import ParameterError, quoted
from xmem_ros.seeding import grabcut

if TYPE_CHECKING:
    from collections.abc import Sequence

BUNDLED, GRABCUT = 'bundled', 'grabcut'
SEEDERS = (BUNDLED, GRABCUT)
SAME_IOU = 0.9  # of two candidates that are offered as one


class Candidate(NamedTuple):
    """Possible mask of an object."""

    mask: np.ndarray  # H×W bool, never empty
    quality: float  # predicted IoU, 0…1; NaN: the seeder predicts none


def distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Drop candidates that a better one resembles by an IoU of `SAME_IOU` or more."""
    kept: list[Candidate] = []
    for candidate in candidates:
        if all(_iou(candidate.mask, better.mask) < SAME_IOU for better in kept):
            kept.append(candidate)
    return kept


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    both = np.count_nonzero(one & other)
    return both / max(np.count_nonzero(one) + np.count_nonzero(other) - both, 1)


class Seeder(Protocol):
    """Segments objects from prompts. Several threads may use one.

    frame is H×W×3 uint8 RGB. A prompt may fit several objects, such as a part and the whole.
    Results are the possible masks, at least one, best first. All methods raise `SeedError` for an
    unusable prompt, or if nothing stands out there.
    """

    def candidates_of_box(self, frame: np.ndarray, box: Sequence[int]) -> list[Candidate]:
        """Segment the object in a box x, y, width, height [px]."""

    def candidates_of_points(
        self, frame: np.ndarray, points: np.ndarray, point_labels: np.ndarray, mask: np.ndarray | None = None
    ) -> list[Candidate]:
        """Segment the object under points.

        points: N×2 x, y [px]; point_labels: N, 1 = on the object, 0 = not on it. mask: H×W bool,
        the object so far, which the points correct; then no point has to be on the object.
        """

    def from_box(self, frame: np.ndarray, box: Sequence[int]) -> np.ndarray:
        """Return the best mask of `candidates_of_box`, H×W bool."""
        return self.candidates_of_box(frame, box)[0].mask

    def from_points(
        self, frame: np.ndarray, points: np.ndarray, point_labels: np.ndarray, mask: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the best mask of `candidates_of_points`, H×W bool."""
        return self.candidates_of_points(frame, points, point_labels, mask)[0].mask


class GrabCutSeeder(Seeder):
    """GrabCut on colours: one candidate without a quality. Needs no weights."""

    def candidates_of_box(self, frame: np.ndarray, box: Sequence[int]) -> list[Candidate]:
        """Segment by `grabcut.mask_from_box`."""
        return [Candidate(grabcut.mask_from_box(frame, box), math.nan)]

    def candidates_of_points(
        self, frame: np.ndarray, points: np.ndarray, point_labels: np.ndarray, mask: np.ndarray | None = None
    ) -> list[Candidate]:
        """Segment by `grabcut.mask_from_points`; the mask so far is ignored."""
        del mask
        return [Candidate(grabcut.mask_from_points(frame, points, point_labels), math.nan)]


@functools.lru_cache(2)
def make_seeder(name: str = BUNDLED) -> Seeder:
    """Make a seeder, or return the one made before. It works on the CPU.

    A tracker that records CUDA graphs must not share its GPU with another thread.

    Args:
        name: 'bundled', 'grabcut', or a folder of ONNX models, see `sam`.

    Raises:
        ParameterError: another name.
        WeightsError: the weights are missing or unusable.
    """
    if name == GRABCUT:
        return GrabCutSeeder()
    if name == BUNDLED:
        from xmem_ros.seeding.prompt_segmenter import PromptSegmenter

        return PromptSegmenter.bundled()
    raise ParameterError(f'seeder is {quoted(name)}; it must be {" or ".join(SEEDERS)}')
