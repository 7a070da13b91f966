# SPDX-License-Identifier: MIT
"""A frame of the stream: an image that arrived, what became of it, and its labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


class Fate(Enum):
    """What became of a frame."""

    WAITING = 'waiting'
    TRACKED = 'tracked'
    DROPPED = 'dropped'


@dataclass(eq=False)
class Frame:
    """An image that arrived, and what the tracker said of it."""

    message: Any  # sensor_msgs/Image or CompressedImage
    stamp_ns: int
    fate: Fate = Fate.WAITING
    labels: np.ndarray | None = None  # H×W uint8; None: not known
    label_ids: dict[int, int] = field(default_factory=dict)  # label → id, when `labels` was made
    valid: bool = True  # False: nothing can read it

    @property
    def nbytes(self) -> int:
        """That the image takes, with its labels."""
        return len(self.message.data) + (self.labels.nbytes if self.labels is not None else 0)
