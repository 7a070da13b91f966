# SPDX-License-Identifier: MIT
"""Memory of the host's processes."""

import contextlib
import ctypes


def give_back() -> None:
    """Hand freed memory back to the system, where the C library can (glibc); elsewhere nothing happens.

    Large blocks that are freed leave holes which the allocator keeps, and blocks of another size do not fit into them.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
