# SPDX-License-Identifier: MIT
"""Pairs what was said of an image with what arrived beside it, by stamp. No ROS.

message_filters pairs topics with topics; here one side is made in this process, long after its stamp, so that a
synchroniser would have to hold whole images for it.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from xmem_ros.stream.frame import Frame
    from xmem_ros.stream.history import History

R = TypeVar('R')

MOST_WAITING = 10  # results, whose other side may still come


class StampMatcher(Generic[R]):
    """Whichever side comes last, gets the other. Thread-safe.

    Arguments:
        history: that holds what arrived beside the images.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._waiting: deque[tuple[int, R]] = deque()
        self._lock = threading.Lock()

    def add_result(self, stamp_ns: int, result: R, slop_ns: float) -> tuple[Frame | None, int]:
        """Returns what is nearest to it, at most `slop_ns` away, and how many results were given up.

        Where there is nothing yet, the result waits.
        """
        with self._lock:
            found = self._history.nearest(stamp_ns, slop_ns)
            if found is not None:
                return found, 0
            self._waiting.append((stamp_ns, result))
            given_up = max(len(self._waiting) - MOST_WAITING, 0)
            for _ in range(given_up):
                self._waiting.popleft()
            return None, given_up

    def add(self, frame: Frame, slop_ns: float) -> list[R]:
        """Something arrived; returns the results that waited for it."""
        with self._lock:
            self._history.add(frame)
            found = [result for stamp_ns, result in self._waiting if abs(stamp_ns - frame.stamp_ns) <= slop_ns]
            self._waiting = deque(item for item in self._waiting if abs(item[0] - frame.stamp_ns) > slop_ns)
            return found

    def clear(self) -> None:
        """Forget both sides."""
        with self._lock:
            self._history.clear()
            self._waiting.clear()
