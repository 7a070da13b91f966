# SPDX-License-Identifier: MIT
"""How torch's threads wait; imports nothing, since it must be called before torch is imported."""

import os


def wait_asleep() -> None:
    """Have OpenMP's threads sleep while they wait, unless OMP_WAIT_POLICY says otherwise.

    By default they spin, which costs a multiple of the time as soon as anything else runs on the machine, as on a robot
    it always does: 1.6 to 2.2 s a step instead of 0.12 to 0.19 s beside one busy process on two cores. OpenMP reads the
    variable once, when torch loads it; child processes inherit it.
    """
    os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
