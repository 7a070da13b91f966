# SPDX-License-Identifier: MIT
"""Connected parts of masks."""

from __future__ import annotations

import cv2
import numpy as np


def connected_to(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Keep the connected parts of a mask that contain at least one of the points."""
    _, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    return np.isin(parts, parts[points[:, 1], points[:, 0]]) & mask


def without_specks(mask: np.ndarray) -> np.ndarray:
    """Drop parts smaller than a tenth of the largest."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count <= 2:
        return mask
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    return (areas >= 0.1 * areas.max())[parts] & mask
