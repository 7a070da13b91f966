# SPDX-License-Identifier: MIT
"""Memory of the host's processes. All of it concerns glibc; with another C library nothing happens."""

import contextlib
import ctypes

# mallopt(3)
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_LARGE = 1 << 30  # bytes


def keep_large_blocks() -> bool:
    """Have this process reuse large blocks that it freed; returns whether it will.

    By default every block above 32 MB, as activations of several objects are, comes from the system and goes back to
    it, and the system clears each page again, which takes a good part of a step with five objects. To be called before
    threads are started, by programs rather than by the library: it holds for the whole process.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGE), (_TOP_PAD, 64 << 20))
    return all(bool(mallopt(name, value)) for name, value in wanted)


def give_back() -> None:
    """Hand freed memory back to the system.

    Large blocks that are freed leave holes which the allocator keeps, and blocks of another size do not fit into them.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
