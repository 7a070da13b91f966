# SPDX-License-Identifier: MIT
"""Seeders: what turns a box or points into a mask. No torch until one is made."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Protocol

from xmem_ros.checks import checked_path
from xmem_ros.errors import ParameterError, SeedError, quoted
from xmem_ros.seeding import grabcut
from xmem_ros.seeding.candidates import Candidate

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

BUNDLED, GRABCUT = 'bundled', 'grabcut'


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

    def from_boxes(self, frame: np.ndarray, boxes: Sequence[Sequence[int]]) -> list[np.ndarray | SeedError]:
        """Return for each box the best mask, H×W bool, or the error."""
        found: list[np.ndarray | SeedError] = []
        for box in boxes:
            try:
                found.append(self.from_box(frame, box))
            except SeedError as error:
                found.append(error)
        return found

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
        ParameterError: an invalid name.
        WeightsError, EngineError: the weights or models are missing or unusable.
    """
    if name == GRABCUT:
        return GrabCutSeeder()
    if name == BUNDLED:
        from xmem_ros.seeding.prompt_segmenter import PromptSegmenter

        return PromptSegmenter.bundled()
    if not name:
        raise ParameterError(f'seeder is {quoted(name)}; it must be {BUNDLED}, {GRABCUT} or a folder')
    from xmem_ros.seeding.sam import SamSeeder

    return SamSeeder(checked_path('seeder', name, ParameterError).expanduser())
