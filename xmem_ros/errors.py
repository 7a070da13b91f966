# SPDX-License-Identifier: MIT
"""Errors that a user can cause. Their text says what was given, what is allowed and what to do."""

from collections.abc import Sequence

MOST_QUOTED = 80  # characters of what was given


def quoted(given: object, most: int = MOST_QUOTED) -> str:
    """What was given, for an error's text: a message that holds all of a huge input can be read by nobody."""
    text = repr(given)
    return text if len(text) <= most else f'{text[:most]}… ({len(text)} characters)'


def listed(given: Sequence[object], most: int = 10) -> str:
    """The first of what was given, and how many there are."""
    text = ', '.join(map(str, given[:most]))
    return text if len(given) <= most else f'{text}, … ({len(given)} in all)'


def told(error: Exception) -> str:
    """What went wrong, in a line: an error of a library begins with its type, since not every one says anything."""
    first = next(iter(str(error).strip().splitlines()), '')
    if first and isinstance(error, XMemError | OSError):
        return first
    return f'{type(error).__name__}: {first}' if first else type(error).__name__


def printable(text: str) -> str:
    """A text for a terminal: what a recording calls things may hold characters that command the terminal."""
    return ''.join(c if c.isprintable() or c == '\n' else repr(c)[1:-1] for c in text)


class XMemError(Exception):
    """Base of every error that this package raises on purpose."""


class FrameError(XMemError, ValueError):
    """An image that cannot be used: shape, type, size, encoding or too little data."""


class SeedError(XMemError, ValueError):
    """A seed that cannot be used; no object was added or changed."""


class UnknownObjectError(XMemError, KeyError):
    """An id that names no object; nothing was changed."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ''


class WeightsError(XMemError, ValueError):
    """Weights that are absent, unreadable or of another model."""


class DeviceError(XMemError, RuntimeError):
    """A device that was asked for and is not there."""


class EngineError(XMemError, RuntimeError):
    """What runs or exports the network is absent, or cannot do what was asked for."""


class ParameterError(XMemError, ValueError):
    """A parameter or option that is unknown, of the wrong type or out of range."""


class OutOfMemoryError(XMemError, RuntimeError):
    """The device's memory ran out and nothing more could be given up; what is tracked stays as it was."""


class MemoryFileError(XMemError, ValueError):
    """A saved memory that is absent, unreadable, cut off, or made with other weights or by another version."""


class BagError(XMemError, ValueError):
    """A recording that is absent, damaged, empty, or holds no images that can be meant."""


class OutputError(XMemError, OSError):
    """A file that cannot be written: no room, no right, no folder."""


class RunError(XMemError, RuntimeError):
    """A run over a recording that broke off, though its input, seeds and arguments can be used."""


class NodeError(XMemError, RuntimeError):
    """What a client asked of the node could not be had."""


class NodeMissingError(NodeError):
    """No node of that name is there."""


class NodeInactiveError(NodeError):
    """The node is there, but its lifecycle state is not active."""


class NodeTimeoutError(NodeError, TimeoutError):
    """What was waited for did not come in time."""
