# SPDX-License-Identifier: MIT
"""SIGINT and SIGTERM as a request that the main thread waits for. No ROS."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any


class StopRequest:
    """Request to end the process, by a signal or by `request`.

    Signals raise no KeyboardInterrupt: it would strike at any line of the main thread. Until
    `expect_nodes`, a signal ends the process at once with exit code 0. To be created and awaited in
    the main thread.
    """

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        # The kernel may deliver a signal to another thread, which does not wake the main thread.
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._has_nodes = False
        self.requested = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def expect_nodes(self) -> None:
        """Let signals wait for `wait` from now on, because nodes have to leave the ROS graph."""
        self._has_nodes = True

    def request(self) -> None:
        """Request the end; may be called from any thread and from a signal handler."""
        if not self.requested:
            self.requested = True  # unlike threading.Event, safe in a handler
            with contextlib.suppress(BlockingIOError):  # full of signals, so readable
                os.write(self._write_end, b'.')

    def wait(self) -> None:
        """Wait for the request."""
        while not self.requested:
            os.read(self._read_end, 1)  # then, Python calls the handler of the signal

    def _on_signal(self, _number: int, _frame: Any) -> None:
        if not self._has_nodes:
            os._exit(0)
        self.request()
