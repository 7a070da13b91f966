# SPDX-License-Identifier: MIT
"""History of frames, so that a late seed finds its image. No ROS, no torch."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xmem_ros.stream.frame import Frame


HOLD_S = 600.0  # for which a frame is held on request


class History:
    """The newest frames, tracked or not, and frames held on request. Thread-safe.

    Arguments:
        frames: maximum number of frames.
        seconds: maximum difference between the stamps of the oldest and the newest; 0: no limit.
        nbytes: maximum size of images and labels together; 0: no limit.
        least: number of frames that are kept regardless of the limits.
        held: maximum number of frames kept by `hold`; the other limits do not apply to them.
    """

    def __init__(
        self, frames: int, seconds: float = 0.0, nbytes: float = 0.0, *, least: int = 1, held: int = 0
    ) -> None:
        self._min_frames, self._max_frames, self._span_ns, self._nbytes = least, frames, seconds * 1e9, nbytes
        self._frames: deque[Frame] = deque()
        self._held: deque[tuple[float, Frame]] = deque(maxlen=held)  # expiry (time.monotonic), frame
        self._lock = threading.Lock()

    def add(self, frame: Frame) -> None:
        """Add a frame and drop the oldest beyond the limits."""
        with self._lock:
            self._frames.append(frame)
            # Summed anew: a frame grows by its labels when it is tracked.
            used = sum(kept.nbytes for kept in self._frames) if self._nbytes else 0
            while len(self._frames) > self._min_frames and self._is_over(frame, used):
                dropped = self._frames.popleft()
                used -= dropped.nbytes if self._nbytes else 0
            while self._held and self._held[0][0] < time.monotonic():
                self._held.popleft()

    def hold(self, stamp_ns: int) -> bool:
        """Hold the frame of a stamp for `HOLD_S` from now; return whether it is there.

        Beyond the maximum number, the frame requested first is released.
        """
        with self._lock:
            frame = self._find(stamp_ns)
            if frame is None or not self._held.maxlen:
                return False
            kept = [item for item in self._held if item[1] is not frame]
            self._held.clear()
            self._held.extend([*kept, (time.monotonic() + HOLD_S, frame)])
            return True

    def newest(self) -> Frame | None:
        """Return the frame that arrived last."""
        with self._lock:
            return self._frames[-1] if self._frames else None

    def find(self, stamp_ns: int) -> Frame | None:
        """Return the newest frame of a stamp."""
        with self._lock:
            return self._find(stamp_ns)

    def nearest(self, stamp_ns: int, slop_ns: float) -> Frame | None:
        """Return the frame with the nearest stamp, at most `slop_ns` away; on ties, the newest."""
        with self._lock:
            frame = min(reversed(self._frames), key=lambda frame: abs(frame.stamp_ns - stamp_ns), default=None)
        return frame if frame is not None and abs(frame.stamp_ns - stamp_ns) <= slop_ns else None

    def span_ns(self) -> tuple[int, int] | None:
        """Return the stamps of the oldest and the newest frame; None without frames."""
        with self._lock:
            return (self._frames[0].stamp_ns, self._frames[-1].stamp_ns) if self._frames else None

    def clear_labels(self) -> None:
        """Clear the labels of all frames, which a reset has invalidated."""
        with self._lock:
            for frame in [*self._frames, *(frame for _, frame in self._held)]:
                frame.labels = None
                frame.label_ids = {}

    def clear(self) -> None:
        """Drop all frames."""
        with self._lock:
            self._frames.clear()
            self._held.clear()

    def _find(self, stamp_ns: int) -> Frame | None:
        frames = [*(frame for _, frame in self._held), *self._frames]
        return next((frame for frame in reversed(frames) if frame.stamp_ns == stamp_ns), None)

    def _is_over(self, newest: Frame, used: int) -> bool:
        # After a jump back of stamps the age is negative; the other limits drop the old frames.
        age = newest.stamp_ns - self._frames[0].stamp_ns
        return (
            len(self._frames) > self._max_frames
            or bool(self._span_ns and age > self._span_ns)
            or bool(self._nbytes and used > self._nbytes)
        )
