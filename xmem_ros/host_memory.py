# SPDX-License-Identifier: MIT
"""Settings of glibc's allocator for this process; without glibc they have no effect."""

import contextlib
import ctypes

# mallopt(3)
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_LARGE = 1 << 30  # bytes


def keep_large_blocks() -> bool:
    """Let the allocator reuse freed large blocks; returns whether it does.

    By default, glibc requests every block above 32 MB from the system, which clears each page.
    Activations of several objects are that large, and clearing takes a considerable part of a step
    with five objects. Call this in programs, before threads start; it affects the whole process.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGE), (_TOP_PAD, 64 << 20))
    return all(bool(mallopt(name, value)) for name, value in wanted)


def release_freed_memory() -> None:
    """Return freed memory to the system.

    The allocator keeps freed large blocks, in which blocks of another size may not fit.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
