# SPDX-License-Identifier: MIT
"""Waiting of torch's threads. Must be called before torch is imported, so it imports nothing."""

import os


def wait_asleep() -> None:
    """Let OpenMP's threads sleep while they wait, unless OMP_WAIT_POLICY is set.

    By default they spin. Beside one busy process on two cores, as is usual on a robot, a step then
    takes 1.6 to 2.2 s instead of 0.12 to 0.19 s. OpenMP reads the variable once, when torch loads
    it; child processes inherit it.
    """
    os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
