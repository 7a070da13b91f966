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
        self._left: set[int] = set()  # of those who will not take their turn

    def __enter__(self) -> None:
        with self._changed:
            mine, self._next = self._next, self._next + 1
            try:
                self._changed.wait_for(lambda: self._served == mine)
            except BaseException:  # Ctrl-C, in the main thread
                self._left.add(mine)
                self._pass_on()
                raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._served += 1
            self._pass_on()

    def _pass_on(self) -> None:
        while self._served in self._left:
            self._left.remove(self._served)
            self._served += 1
        self._changed.notify_all()
