# SPDX-License-Identifier: MIT
"""Replay clock: bag time for pacing and /clock."""

from __future__ import annotations

import time

JUMP_NS = 500_000_000  # a larger step back restarts the time; smaller ones are messages out of order


class ReplayClock:
    """Bag time that never decreases, except by a restart when recording times step back.

    Arguments:
        rate: speed limit; 1 is as recorded, 0 is unlimited.
    """

    def __init__(self, rate: float = 0.0) -> None:
        self._rate = rate
        self._now: int | None = None  # bag time [ns]
        self._first, self._begun = 0, 0.0  # bag time [ns], monotonic clock [s]

    def wait_until(self, recorded_ns: int) -> int:
        """Wait for a message's recording time, if the rate is limited; return the bag time [ns].

        That is the message's own recording time, or a later time if one was already reached.
        """
        if self._now is None or recorded_ns < self._now - JUMP_NS:
            self._now = self._first = recorded_ns
            self._begun = time.monotonic()
        self._now = max(self._now, recorded_ns)
        if self._rate:
            due = self._begun + (self._now - self._first) / 1e9 / self._rate
            time.sleep(max(0.0, due - time.monotonic()))
        return self._now
