# SPDX-License-Identifier: MIT
"""Heap of this process: settings of glibc's allocator. Without glibc nothing happens."""

import contextlib
import ctypes

# mallopt(3)
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_LARGE = 1 << 30  # bytes


def keep_large_blocks() -> bool:
    """Let the allocator reuse freed large blocks; returns whether it does.

    By default the system provides every block above 32 MB and clears each page anew. Activations of
    several objects are that large, and clearing takes a good part of a step with five objects. Call
    this in programs, before threads start: it holds for the whole process.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGE), (_TOP_PAD, 64 << 20))
    return all(bool(mallopt(name, value)) for name, value in wanted)


def release_freed_memory() -> None:
    """Return freed memory to the system.

    The allocator keeps freed large blocks, and blocks of another size do not fit in their place.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
