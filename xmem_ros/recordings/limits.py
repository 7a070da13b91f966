# SPDX-License-Identifier: MIT
"""What is read of a recording at most: whoever wrote it may have meant to fill memory or disk.

Numbers in a file say nothing until they are compared with the file's size or with these bounds.
"""

from __future__ import annotations

from typing import TypeGuard

from xmem_ros.errors import BagError

MAX_MESSAGE_BYTES = 256 * 2**20  # bytes of a message or chunk: an image of 64 million pixels of four bytes each
MAX_OPEN_BYTES = 2 * MAX_MESSAGE_BYTES  # bytes of chunks whose times overlap, which are held at the same time
MAX_INDEX_BYTES = 256 * 2**20  # bytes of an index
MAX_TOPICS = 4096
MAX_NAME_LENGTH = 255  # characters of a topic or type
MAX_DEFINITION_LENGTH = 2**20  # characters of a message definition
MAX_DEFINITIONS_LENGTH = 64 * 2**20  # of all of a file
MAX_SEEDS_BYTES = (
    64 * 2**20
)  # bytes of a message of seeds; Python objects take far more than the points they are made of
MAX_ALL_SEEDS_BYTES = 512 * 2**20
MAX_POINTS = 100_000  # of all seeds
MAX_FAULTS = 100_000  # images that are left out
MAX_TIME_NS = 2**31 * 1_000_000_000  # the end of builtin_interfaces/Time


def check_message(size: int) -> None:
    """Raise `BagError` for a message or chunk of more bytes than are read."""
    if size > MAX_MESSAGE_BYTES:
        raise BagError(f'a message or chunk of {size} bytes; at most {MAX_MESSAGE_BYTES} are read')


def check_time(time_ns: object) -> None:
    """Raise `BagError` for what is no time that ROS can say [ns]."""
    if not isinstance(time_ns, int) or not 0 <= time_ns < MAX_TIME_NS:
        raise BagError(f'a message has the time {time_ns!r}; times are nanoseconds from 1970 to 2038')


def is_name(text: object) -> TypeGuard[str]:
    """Whether a topic or type can be shown and used: text of one line, and not too long."""
    return isinstance(text, str) and 0 < len(text) <= MAX_NAME_LENGTH and text.isprintable()
