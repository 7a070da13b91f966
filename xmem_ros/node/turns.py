# SPDX-License-Identifier: MIT
"""One device for several trackers: each gets it in its turn. No ROS, no torch."""

from __future__ import annotations

import threading
from types import TracebackType


class Turns:
    """A lock that is given in the order in which it was asked for; Python's own may starve a thread.

    with turns: …
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next = self._served = 0

    def __enter__(self) -> None:
        with self._changed:
            mine, self._next = self._next, self._next + 1
            self._changed.wait_for(lambda: self._served == mine)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._served += 1
            self._changed.notify_all()
