# SPDX-License-Identifier: MIT
"""Candidates: possible masks of one object."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xmem_ros.seeding.regions import without_specks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LEAST_AREA = 4  # px of a mask


class Candidate(NamedTuple):
    """Possible mask of an object."""

    mask: np.ndarray  # H×W bool
    quality: float  # predicted IoU


def best_first(masks: Iterable[np.ndarray], qualities: Sequence[float]) -> list[Candidate]:
    """Return the masks without specks, those of the highest quality first; omit empty ones."""
    found = [Candidate(without_specks(mask), float(quality)) for mask, quality in zip(masks, qualities, strict=True)]
    found.sort(key=lambda candidate: -candidate.quality)
    return [candidate for candidate in found if candidate.mask.sum() >= LEAST_AREA]
