# SPDX-License-Identifier: MIT
"""Footage of the trials' camera, with the ground truth of its object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from xmem_ros.demo.scene import PERIOD, RenderedScene

if TYPE_CHECKING:
    from pathlib import Path

SIZE = (120, 216)  # H, W: small, so that the camera keeps its rate on a busy machine
OBJECT, DECOY = 1, 2  # values in the ground truth: always in view; seeded and removed
SEED = 1  # of the scene
RIGHT_IOU = 0.5


class Footage:
    """A rendered scene as a folder of frames, with its ground truth.

    Arguments:
        folder: for the frames.
        frames: length; the camera begins again after them.
    """

    def __init__(self, folder: Path, frames: int = PERIOD) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.frames, self.truths = [], []
        for number, (frame, truth) in enumerate(RenderedScene(SIZE, frames, 3, seed=SEED)):
            cv2.imwrite(str(folder / f'{number:05d}.png'), frame[..., ::-1])
            self.frames.append(frame)
            self.truths.append(truth)

    def mask(self, index: int, value: int = OBJECT) -> np.ndarray:
        """Return the mask of an object in a frame, H×W bool."""
        return self.truths[index] == value

    def iou(self, index: int, mask: np.ndarray) -> float:
        """Return the IoU of a mask H×W bool with the object."""
        truth = self.mask(index)
        if mask.shape != truth.shape:
            return 0.0
        union = np.count_nonzero(truth | mask)
        return float(np.count_nonzero(truth & mask) / union) if union else 1.0
