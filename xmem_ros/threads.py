# SPDX-License-Identifier: MIT
"""Wait policy of torch's threads; to be set before torch is imported."""

import os


def wait_asleep() -> None:
    """Let OpenMP's threads sleep while they wait, unless OMP_WAIT_POLICY is set.

    By default they spin. If another process is busy on the same two cores, a step then takes 1.6 to
    2.2 s instead of 0.12 to 0.19 s. OpenMP reads the variable once, when torch loads it; child
    processes inherit it.
    """
    os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
