# SPDX-License-Identifier: MIT
"""Limits on the content of a recording, as protection against hostile files.

A number in a file is used only after a comparison with the file's size or with these bounds.
"""

from __future__ import annotations

from typing import TypeGuard

from xmem_ros.errors import BagError

MAX_MESSAGE_BYTES = 256 * 2**20  # a message or chunk; an image of 64 million pixels of four bytes
MAX_OPEN_BYTES = 2 * MAX_MESSAGE_BYTES  # all decompressed chunks with overlapping times
MAX_INDEX_BYTES = 256 * 2**20
MAX_TOPICS = 4096
MAX_NAME_LENGTH = 255  # characters of a topic or type
MAX_DEFINITION_LENGTH = 2**20  # characters of a message definition
MAX_DEFINITIONS_LENGTH = 64 * 2**20  # characters of all definitions of a file
MAX_QOS_LENGTH = 2 * 2**20  # characters of the QoS of all topics of a file, which is YAML
MAX_SEEDS_BYTES = 64 * 2**20  # a message of seeds; its Python objects are far larger
MAX_ALL_SEEDS_BYTES = 512 * 2**20
MAX_SEEDS = 1000  # in a message
MAX_POINTS = 100_000  # in all seeds of a recording
MAX_SEEDS_DEFINITION_LENGTH = 2**16  # characters; it is parsed to compare its fields
MAX_FAULTS = 100_000  # skipped images
MAX_TIME_NS = 2**31 * 1_000_000_000  # end of builtin_interfaces/Time


class _Lost(bytes):
    """A type of its own, since a recorded message can be empty."""


LOST = _Lost()  # the bytes of a message that is lost with a damaged part of its file


def check_message(size: int) -> None:
    """Raise `BagError` for a message or chunk above `MAX_MESSAGE_BYTES`."""
    if size > MAX_MESSAGE_BYTES:
        raise BagError(f'a message or chunk of {size} bytes; at most {MAX_MESSAGE_BYTES} are read')


def check_time(time_ns: object) -> None:
    """Raise `BagError` for a time [ns] outside the range of builtin_interfaces/Time."""
    if not isinstance(time_ns, int) or not 0 <= time_ns < MAX_TIME_NS:
        raise BagError(f'a message has the time {time_ns!r}; times are nanoseconds from 1970 to 2038')


def is_name(text: object) -> TypeGuard[str]:
    """Return whether a topic or type is one printable line of acceptable length."""
    return isinstance(text, str) and 0 < len(text) <= MAX_NAME_LENGTH and text.isprintable()
