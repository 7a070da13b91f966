# SPDX-License-Identifier: MIT
"""Overlap and bounding box of masks."""

from __future__ import annotations

import numpy as np


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Return the intersection over union of two masks; 1 if both are empty."""
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 1.0


def bounding_box(mask: np.ndarray, margin: int = 0) -> tuple[int, int, int, int]:
    """Return the box x, y, width, height [px] of a mask, with a margin, clipped to the image."""
    ys, xs = np.nonzero(mask)
    x0, y0 = max(xs.min() - margin, 0), max(ys.min() - margin, 0)
    x1, y1 = min(xs.max() + 1 + margin, mask.shape[1]), min(ys.max() + 1 + margin, mask.shape[0])
    return int(x0), int(y0), int(x1 - x0), int(y1 - y0)
