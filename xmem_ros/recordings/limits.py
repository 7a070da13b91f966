# SPDX-License-Identifier: MIT
"""What is read of a recording at most: whoever wrote it may have meant to fill memory or disk.

Numbers in a file say nothing until they are compared with the file's size or with these bounds.
"""

from __future__ import annotations

from typing import TypeGuard

from xmem_ros.errors import BagError

MOST_MESSAGE = 256 * 2**20  # bytes of a message or chunk: an image of 64 million pixels of four bytes each
MOST_OPEN = 2 * MOST_MESSAGE  # bytes of chunks whose times overlap, which are held at the same time
MOST_INDEX = 256 * 2**20  # bytes of an index
MOST_TOPICS = 4096
MOST_NAME = 255  # characters of a topic or type
MOST_DEFINITION = 2**20  # characters of a message definition
MOST_DEFINITIONS = 64 * 2**20  # of all of a file
MOST_SEEDS = 64 * 2**20  # bytes of a message of seeds; Python objects take far more than the points they are made of
MOST_SEEDS_IN_ALL = 512 * 2**20
MOST_POINTS = 100_000  # of all seeds
MOST_FAULTS = 100_000  # images that are left out
MOST_TIME_NS = 2**31 * 1_000_000_000  # the end of builtin_interfaces/Time


def check_message(size: int) -> None:
    """Raise `BagError` for a message or chunk of more bytes than are read."""
    if size > MOST_MESSAGE:
        raise BagError(f'a message or chunk of {size} bytes; at most {MOST_MESSAGE} are read')


def check_time(time_ns: object) -> None:
    """Raise `BagError` for what is no time that ROS can say [ns]."""
    if not isinstance(time_ns, int) or not 0 <= time_ns < MOST_TIME_NS:
        raise BagError(f'a message has the time {time_ns!r}; times are nanoseconds from 1970 to 2038')


def is_name(text: object) -> TypeGuard[str]:
    """Whether a topic or type can be shown and used: text of one line, and not too long."""
    return isinstance(text, str) and 0 < len(text) <= MOST_NAME and text.isprintable()
