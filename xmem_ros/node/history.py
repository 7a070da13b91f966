# SPDX-License-Identifier: MIT
"""The newest frames, kept so that a seed finds the image that it was made on. No ROS, no torch."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xmem_ros.node.worker import Frame


class History:
    """The newest frames, tracked or not. Thread-safe.

    Arguments:
        frames: most frames that are kept.
        seconds: most between the stamps of the oldest and the newest; 0: no limit.
        nbytes: most that images and labels may take together; 0: no limit.
        least: frames that are kept whatever the limits say.
    """

    def __init__(self, frames: int, seconds: float = 0.0, nbytes: float = 0.0, *, least: int = 1) -> None:
        self._least, self._most, self._span_ns, self._nbytes = least, frames, seconds * 1e9, nbytes
        self._frames: deque[Frame] = deque()
        self._lock = threading.Lock()

    def add(self, frame: Frame) -> None:
        """Keep a frame, and let the oldest go."""
        with self._lock:
            self._frames.append(frame)
            # counted anew: a frame has its labels once it is tracked
            held = sum(kept.nbytes for kept in self._frames) if self._nbytes else 0
            while len(self._frames) > self._least and self._is_over(frame, held):
                gone = self._frames.popleft()
                held -= gone.nbytes if self._nbytes else 0

    def newest(self) -> Frame | None:
        """The frame that arrived last."""
        with self._lock:
            return self._frames[-1] if self._frames else None

    def find(self, stamp_ns: int) -> Frame | None:
        """The newest frame of a stamp."""
        with self._lock:
            return next((frame for frame in reversed(self._frames) if frame.stamp_ns == stamp_ns), None)

    def nearest(self, stamp_ns: int, slop_ns: float) -> Frame | None:
        """The frame whose stamp is nearest, and at most `slop_ns` away; of those as near, the newest."""
        with self._lock:
            frame = min(reversed(self._frames), key=lambda frame: abs(frame.stamp_ns - stamp_ns), default=None)
        return frame if frame is not None and abs(frame.stamp_ns - stamp_ns) <= slop_ns else None

    def span_ns(self) -> tuple[int, int] | None:
        """Stamps of the oldest and the newest frame."""
        with self._lock:
            return (self._frames[0].stamp_ns, self._frames[-1].stamp_ns) if self._frames else None

    def forget_labels(self) -> None:
        """After a reset, what was said of a frame means nothing."""
        with self._lock:
            for frame in self._frames:
                frame.labels = None
                frame.label_ids = {}

    def clear(self) -> None:
        """Let all frames go."""
        with self._lock:
            self._frames.clear()

    def _is_over(self, newest: Frame, held: int) -> bool:
        # stamps may jump back: then the old ones go as these frames become more
        age = newest.stamp_ns - self._frames[0].stamp_ns
        return (
            len(self._frames) > self._most
            or bool(self._span_ns and age > self._span_ns)
            or bool(self._nbytes and held > self._nbytes)
        )
