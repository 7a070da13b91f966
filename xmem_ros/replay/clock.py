# SPDX-License-Identifier: MIT
"""The time of a bag while it is replayed: how fast it goes, and what /clock says."""

from __future__ import annotations

import time

JUMP_NS = 500_000_000  # a bag's time that steps back by more is another beginning, not messages out of order


class BagTime:
    """Goes through the times of a bag, never back but where the bag itself begins anew.

    Arguments:
        rate: at most as fast as this, 1 is as recorded; 0: as fast as it is asked.
    """

    def __init__(self, rate: float = 0.0) -> None:
        self._rate = rate
        self._now: int | None = None  # of the bag [ns]
        self._first, self._begun = 0, 0.0  # of the bag [ns], and of the monotonic clock [s]

    def reach(self, recorded_ns: int) -> int:
        """Wait until it is a message's time, where a rate is given; returns the time of the bag then [ns].

        That is the message's own, unless a later one has been reached already.
        """
        if self._now is None or recorded_ns < self._now - JUMP_NS:
            self._now = self._first = recorded_ns
            self._begun = time.monotonic()
        self._now = max(self._now, recorded_ns)
        if self._rate:
            due = self._begun + (self._now - self._first) / 1e9 / self._rate
            time.sleep(max(0.0, due - time.monotonic()))
        return self._now
