# SPDX-License-Identifier: MIT
"""A frame of the stream: an image message, its fate and its labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


class Fate(Enum):
    """Whether a frame waits, was tracked or was dropped."""

    WAITING = 'waiting'
    TRACKED = 'tracked'
    DROPPED = 'dropped'


@dataclass(eq=False)
class Frame:
    """An image message and its result."""

    message: Any  # sensor_msgs/Image or CompressedImage
    stamp_ns: int
    fate: Fate = Fate.WAITING
    labels: np.ndarray | None = None  # H×W uint8; None: unknown
    label_ids: dict[int, int] = field(default_factory=dict)  # label → id, as in `labels`
    valid: bool = True  # False: unreadable, or with a negative stamp
    late: bool = False  # dropped because it is a little older than the newest

    @property
    def nbytes(self) -> int:
        """Size of the image, its texts and its labels [bytes]."""
        texts = (
            getattr(getattr(self.message, 'header', None), 'frame_id', ''),
            *(getattr(self.message, name, '') for name in ('encoding', 'format')),
        )
        labels = self.labels.nbytes if self.labels is not None else 0
        return len(self.message.data) + sum(map(len, texts)) + labels
