# SPDX-License-Identifier: MIT
"""A fair lock, for several trackers on one device. No ROS, no torch."""

from __future__ import annotations

import threading
from types import TracebackType


class FairLock:
    """A lock granted in the order of requests; Python's own lock may starve a thread.

    Use as a context manager: `with lock: …`.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next = self._served = 0
        self._abandoned: set[int] = set()  # tickets whose waiting was interrupted

    def __enter__(self) -> None:
        with self._changed:
            ticket, self._next = self._next, self._next + 1
            try:
                self._changed.wait_for(lambda: self._served == ticket)
            except BaseException:  # Ctrl-C, in the main thread
                self._abandoned.add(ticket)
                self._pass_on()
                raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._served += 1
            self._pass_on()

    def _pass_on(self) -> None:
        while self._served in self._abandoned:
            self._abandoned.remove(self._served)
            self._served += 1
        self._changed.notify_all()
