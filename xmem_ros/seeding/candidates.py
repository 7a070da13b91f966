# SPDX-License-Identifier: MIT
"""Candidates: possible masks of one object."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xmem_ros.seeding.regions import without_specks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LEAST_AREA = 4  # px of a mask
UNSURE = 0.75  # predicted IoU; of boxes and points on real objects, 5 to 7 % have less, on plain walls nearly all
MOST_OFFERED = 3
SAME_IOU = 0.9  # of two candidates that are offered as one


class Candidate(NamedTuple):
    """Possible mask of an object."""

    mask: np.ndarray  # H×W bool, never empty
    quality: float  # predicted IoU, 0…1; NaN: the seeder predicts none


def best_first(masks: Iterable[np.ndarray], qualities: Sequence[float]) -> list[Candidate]:
    """Return the masks without specks, those of the highest quality first; omit empty ones."""
    found = [Candidate(without_specks(mask), float(quality)) for mask, quality in zip(masks, qualities, strict=True)]
    found.sort(key=lambda candidate: -candidate.quality)
    return [candidate for candidate in found if candidate.mask.sum() >= LEAST_AREA]


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
