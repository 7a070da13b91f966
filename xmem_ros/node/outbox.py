# SPDX-License-Identifier: MIT
"""Thread that publishes, so that no subscriber can keep the tracker waiting.

Publishing to a reliable subscriber that is frozen or was killed takes up to some tenths of a second
in the middleware, until it gives the subscriber up. Drawing and encoding are done here, too.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_FRAMES = 10  # that wait; as many as the middleware keeps for each topic


class Outbox:
    """Runs jobs in order, in a thread of its own.

    Arguments:
        log: gets the traceback of a job that raises.
        keep_all: `put` waits while too many frames do; otherwise the oldest of them is dropped.
    """

    def __init__(self, log: Callable[[str], None], *, keep_all: bool = False) -> None:
        self._log, self._keep_all = log, keep_all
        self._jobs: deque[tuple[Callable[[], None], bool]] = deque()  # job; whether it is a frame's
        self._changed = threading.Condition()
        self._closing = False
        self.dropped = 0  # frames that were not published
        self._thread = threading.Thread(target=self._run, name='xmem-publish', daemon=True)
        self._thread.start()

    def put(self, job: Callable[[], None], *, frame: bool = False) -> None:
        """Add a job; only jobs of frames are ever dropped."""
        with self._changed:
            if frame and self._keep_all:
                self._changed.wait_for(lambda: not self._full() or self._closing)
            elif frame and self._full():
                self._jobs.remove(next(entry for entry in self._jobs if entry[1]))
                self.dropped += 1
            self._jobs.append((job, frame))
            self._changed.notify_all()

    def flush(self, seconds: float) -> None:
        """Wait until the jobs so far are done, up to `seconds` [s]."""
        done = threading.Event()
        self.put(done.set)
        end = time.monotonic() + seconds
        while not done.wait(0.1) and self._thread.is_alive() and time.monotonic() < end:
            pass

    def close(self, seconds: float = 1.0) -> None:
        """Finish the jobs and end the thread, within `seconds` [s]; frames left are dropped."""
        end = time.monotonic() + seconds
        if threading.current_thread() is not self._thread:
            self.flush(seconds / 2)
        with self._changed:
            self._closing = True
            self._jobs = deque(entry for entry in self._jobs if not entry[1])
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(max(end - time.monotonic(), 0))

    def _full(self) -> bool:
        return sum(frame for _, frame in self._jobs) >= MOST_FRAMES

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closing)
                if not self._jobs:
                    return
                job, _ = self._jobs.popleft()
                self._changed.notify_all()
            try:
                job()
            except Exception:
                self._log(f'not published: {traceback.format_exc()}')
