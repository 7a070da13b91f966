# SPDX-License-Identifier: MIT
"""Measures of masks."""

from __future__ import annotations

import numpy as np


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two masks; 1 when both are empty."""
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 1.0


def bounding_box(mask: np.ndarray, margin: int = 0) -> tuple[int, int, int, int]:
    """x, y, width, height of a mask [px], grown by a margin and clipped to the image."""
    ys, xs = np.nonzero(mask)
    x0, y0 = max(xs.min() - margin, 0), max(ys.min() - margin, 0)
    x1, y1 = min(xs.max() + 1 + margin, mask.shape[1]), min(ys.max() + 1 + margin, mask.shape[0])
    return int(x0), int(y0), int(x1 - x0), int(y1 - y0)
