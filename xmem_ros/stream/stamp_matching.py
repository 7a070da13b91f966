# SPDX-License-Identifier: MIT
"""Matching of tracking results with messages beside the images, by stamp. No ROS.

message_filters matches topics with topics. Here one side is produced in this process, long after
its stamp, so a synchroniser would have to hold whole images.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from xmem_ros.stream.frame import Frame
    from xmem_ros.stream.history import History

R = TypeVar('R')

MAX_WAITING = 10  # results without a match yet


class StampMatcher(Generic[R]):
    """Matches results with frames, in whatever order they arrive. Thread-safe.

    Arguments:
        history: holds the frames that arrived beside the images.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._waiting: deque[tuple[int, R]] = deque()
        self._lock = threading.Lock()

    def add_result(self, stamp_ns: int, result: R, slop_ns: float) -> tuple[Frame | None, int]:
        """Add a result; without a match it waits.

        Returns:
            The nearest frame, at most `slop_ns` away, or None; and the number of waiting results
            that were discarded.
        """
        with self._lock:
            match = self._history.nearest(stamp_ns, slop_ns)
            if match is not None:
                return match, 0
            self._waiting.append((stamp_ns, result))
            discarded = max(len(self._waiting) - MAX_WAITING, 0)
            for _ in range(discarded):
                self._waiting.popleft()
            return None, discarded

    def add(self, frame: Frame, slop_ns: float) -> list[R]:
        """Add a frame; return the results that waited for it."""
        with self._lock:
            self._history.add(frame)
            matched = [result for stamp_ns, result in self._waiting if abs(stamp_ns - frame.stamp_ns) <= slop_ns]
            self._waiting = deque(item for item in self._waiting if abs(item[0] - frame.stamp_ns) > slop_ns)
            return matched

    def clear(self) -> None:
        """Drop frames and waiting results."""
        with self._lock:
            self._history.clear()
            self._waiting.clear()
