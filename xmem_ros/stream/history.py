# SPDX-License-Identifier: MIT
"""The newest frames, kept so that a seed finds the image that it was made on. No ROS, no torch."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xmem_ros.stream.frame import Frame


HOLD_S = 600.0  # that a frame is kept on request


class History:
    """The newest frames, tracked or not, and some older ones that were asked for. Thread-safe.

    Arguments:
        frames: most frames that are kept.
        seconds: most between the stamps of the oldest and the newest; 0: no limit.
        nbytes: most that images and labels may take together; 0: no limit.
        least: frames that are kept whatever the limits say.
        held: most frames that are kept beside these because `hold` named them; the other limits do not apply to them.
    """

    def __init__(
        self, frames: int, seconds: float = 0.0, nbytes: float = 0.0, *, least: int = 1, held: int = 0
    ) -> None:
        self._least, self._most, self._span_ns, self._nbytes = least, frames, seconds * 1e9, nbytes
        self._frames: deque[Frame] = deque()
        self._held: deque[tuple[float, Frame]] = deque(maxlen=held)  # with the end of their time, time.monotonic()
        self._lock = threading.Lock()

    def add(self, frame: Frame) -> None:
        """Keep a frame, and let the oldest go."""
        with self._lock:
            self._frames.append(frame)
            # counted anew: a frame has its labels once it is tracked
            taken = sum(kept.nbytes for kept in self._frames) if self._nbytes else 0
            while len(self._frames) > self._least and self._is_over(frame, taken):
                gone = self._frames.popleft()
                taken -= gone.nbytes if self._nbytes else 0
            while self._held and self._held[0][0] < time.monotonic():
                self._held.popleft()

    def hold(self, stamp_ns: int) -> bool:
        """Keep the frame of a stamp for `HOLD_S` from now, however many come meanwhile; returns whether it is there.

        Where too many are held, the one that was asked for first goes.
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
        """The frame that arrived last."""
        with self._lock:
            return self._frames[-1] if self._frames else None

    def find(self, stamp_ns: int) -> Frame | None:
        """The newest frame of a stamp."""
        with self._lock:
            return self._find(stamp_ns)

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
            for frame in [*self._frames, *(frame for _, frame in self._held)]:
                frame.labels = None
                frame.label_ids = {}

    def clear(self) -> None:
        """Let all frames go."""
        with self._lock:
            self._frames.clear()
            self._held.clear()

    def _find(self, stamp_ns: int) -> Frame | None:
        frames = [*(frame for _, frame in self._held), *self._frames]
        return next((frame for frame in reversed(frames) if frame.stamp_ns == stamp_ns), None)

    def _is_over(self, newest: Frame, taken: int) -> bool:
        # stamps may jump back: then the old ones go as these frames become more
        age = newest.stamp_ns - self._frames[0].stamp_ns
        return (
            len(self._frames) > self._most
            or bool(self._span_ns and age > self._span_ns)
            or bool(self._nbytes and taken > self._nbytes)
        )
