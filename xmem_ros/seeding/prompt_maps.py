# SPDX-License-Identifier: MIT
"""Prompts as maps at stride 4, the input of the prompt network's decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from xmem_ros.seeding.prompt_network import PROMPTS, STRIDE

if TYPE_CHECKING:
    from collections.abc import Sequence

RADIUS = 10.0  # px around a point in which its map is above 0
BOX, ON, OFF, MASK, GIVEN = range(PROMPTS)


def prompt_maps(
    size: tuple[int, int],
    box: Sequence[float] | None,
    points: np.ndarray,
    on_object: np.ndarray,
    mask: np.ndarray | None,
) -> np.ndarray:
    """Draw the prompts of a crop.

    Args:
        size: H, W of the crop [px], multiples of 16.
        box: left, top, right, bottom [px]; None: no box.
        points: N×2 x, y [px]; those outside the crop have no effect.
        on_object: N bool; False: not on the object.
        mask: H/4×W/4 probabilities of the mask so far; None: none.

    Returns:
        5×H/4×W/4 float32, values 0…1.
    """
    height, width = size[0] // STRIDE, size[1] // STRIDE
    maps = np.zeros((PROMPTS, height, width), np.float32)
    if box is not None:
        left, top, right, bottom = (value / STRIDE for value in box)
        across = np.clip(np.minimum(np.arange(width) + 1, right) - np.maximum(np.arange(width), left), 0, 1)
        down = np.clip(np.minimum(np.arange(height) + 1, bottom) - np.maximum(np.arange(height), top), 0, 1)
        maps[BOX] = down[:, None] * across
    for channel, chosen in ((ON, on_object), (OFF, ~on_object)):
        # distances are taken from the nearest cell, so that many points cost no more than one
        cells = np.ones((height, width), np.uint8)
        columns, rows = (points[chosen] / STRIDE).astype(int).T
        inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        if inside.any():
            cells[rows[inside], columns[inside]] = 0
            distance = cv2.distanceTransform(cells, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            maps[channel] = np.maximum(1 - distance * (STRIDE / RADIUS), 0)
    if mask is not None:
        maps[MASK], maps[GIVEN] = mask, 1
    return maps
