# SPDX-License-Identifier: MIT
"""rclpy's executor of several threads, without its idle turns."""

from __future__ import annotations

import time

from rclpy.executors import MultiThreadedExecutor

PAUSE_S = 1e-4


class PatientExecutor(MultiThreadedExecutor):
    """Lets a thread of the pool begin before it looks again.

    rclpy hands over what is ready and looks again at once. Until a thread has begun with it, it finds the same again
    and hands it over again, hundreds of times where the interpreter's lock is busy, and the callback begins the later.
    With images that come one after the other, as in `benchmarks/soak.py --node`, half as many were tracked.
    """

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """As rclpy's, and then a pause."""
        super().spin_once(timeout_sec)
        time.sleep(PAUSE_S)
