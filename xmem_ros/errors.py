# SPDX-License-Identifier: MIT
"""Errors that a user can cause. Their text says what was given, what is allowed and what to do.

Layers below the node raise these types and know no codes. The table at the end gives each type its code in service
responses, and the client turns codes into the same types again.
"""

import enum
import reprlib
from collections.abc import Sequence

MOST_QUOTED = 80  # characters of what was given


class _Brief(reprlib.Repr):
    """As `repr`, but of large containers and numbers only so much as anybody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = self.maxdeque = 30
        self.maxstring = self.maxother = 10 * MOST_QUOTED

    def repr_int(self, number: int, level: int) -> str:  # noqa: ARG002  # as reprlib has it
        """Python refuses to write whole numbers of thousands of digits."""
        bits = number.bit_length()
        return repr(number) if bits <= 1000 else f'a whole number of about {round(bits * 0.30103)} digits'


_BRIEF = _Brief()


def quoted(given: object, most: int = MOST_QUOTED) -> str:
    """What was given, for an error's text: a message that holds all of a huge input can be read by nobody.

    Takes little time and memory whatever is given, and never fails.
    """
    if isinstance(given, str | bytes) and len(given) > most:
        return f'{given[:most]!r}… ({len(given)} {"characters" if isinstance(given, str) else "bytes"})'
    try:
        text = _BRIEF.repr(given)
    except Exception:  # of a class whose own text fails
        return f'an object of type {type(given).__name__}'
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


class XMemError(Exception):
    """Base of every error that this package raises on purpose."""


class FrameError(XMemError, ValueError):
    """An image that cannot be used: shape, type, size, encoding or too little data."""


class SeedError(XMemError, ValueError):
    """A seed that cannot be used; no object was added or changed."""


class TooManyObjectsError(SeedError):
    """More objects than `max_objects`."""


class NoImageError(SeedError):
    """No image has arrived that could be seeded."""


class StampNotHeldError(SeedError):
    """A stamp of which no image is held, or not any more."""


class RequestError(XMemError, ValueError):
    """A request with fields that are missing or contradict each other."""


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
    """A memory file that cannot be used; this type itself: cut off, damaged or something else."""


class MemoryFileNameError(MemoryFileError):
    """A name that is no plain file name, or leads out of the folder."""


class MemoryFileMissingError(MemoryFileError):
    """No memory file of that name."""


class MemoryFileMismatchError(MemoryFileError):
    """A memory file of other weights or another version, or with more objects than there may be."""


class MemoryFileWriteError(MemoryFileError):
    """A memory file that cannot be written."""


class BagError(XMemError, ValueError):
    """A recording that is absent, damaged, empty, or holds no images that can be meant."""


class OutputError(XMemError, OSError):
    """A file that cannot be written: no room, no right, no folder."""


class RunError(XMemError, RuntimeError):
    """A run over a recording that broke off, though its input, seeds and arguments can be used."""


class NodeError(XMemError, RuntimeError):
    """A request to the node failed; this type itself: by a fault of the node, or with an unknown code."""


class NodeMissingError(NodeError):
    """No node of that name is there."""


class NodeInactiveError(NodeError):
    """The node is there, but its lifecycle state is not active."""


class NodeFaultError(NodeError):
    """The node's tracking thread ended on a fault: deactivate and activate the node."""


class NodeTimeoutError(NodeError, TimeoutError):
    """What was waited for did not come in time."""


class ErrorCode(enum.IntEnum):
    """Values of `error_code` in every service response; the services define the same constants."""

    NONE = 0
    INTERNAL = 1
    # of the node
    NOT_ACTIVE = 100
    NODE_FAULT = 101
    FORBIDDEN_BY_PARAMETER = 102
    OUT_OF_MEMORY = 103
    ENGINE_FAILED = 104
    # of the request
    INVALID_REQUEST = 200
    UNKNOWN_ID = 201
    INVALID_SEED = 202
    TOO_MANY_OBJECTS = 203
    # of the image
    NO_IMAGE = 300
    STAMP_NOT_HELD = 301
    INVALID_IMAGE = 302
    # of the file
    INVALID_FILE_NAME = 400
    NO_SUCH_FILE = 401
    DAMAGED_FILE = 402
    INCOMPATIBLE_FILE = 403
    FILE_NOT_WRITTEN = 404


_TYPES: dict[ErrorCode, type[XMemError]] = {
    ErrorCode.INTERNAL: NodeError,
    ErrorCode.NOT_ACTIVE: NodeInactiveError,
    ErrorCode.NODE_FAULT: NodeFaultError,
    ErrorCode.FORBIDDEN_BY_PARAMETER: ParameterError,
    ErrorCode.OUT_OF_MEMORY: OutOfMemoryError,
    ErrorCode.ENGINE_FAILED: EngineError,
    ErrorCode.INVALID_REQUEST: RequestError,
    ErrorCode.UNKNOWN_ID: UnknownObjectError,
    ErrorCode.INVALID_SEED: SeedError,
    ErrorCode.TOO_MANY_OBJECTS: TooManyObjectsError,
    ErrorCode.NO_IMAGE: NoImageError,
    ErrorCode.STAMP_NOT_HELD: StampNotHeldError,
    ErrorCode.INVALID_IMAGE: FrameError,
    ErrorCode.INVALID_FILE_NAME: MemoryFileNameError,
    ErrorCode.NO_SUCH_FILE: MemoryFileMissingError,
    ErrorCode.DAMAGED_FILE: MemoryFileError,
    ErrorCode.INCOMPATIBLE_FILE: MemoryFileMismatchError,
    ErrorCode.FILE_NOT_WRITTEN: MemoryFileWriteError,
}
_CODES = {kind: code for code, kind in _TYPES.items()}


def error_code(error: BaseException) -> ErrorCode:
    """Return the code of an error's type or, failing that, of the nearest base type; INTERNAL without one."""
    return next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), ErrorCode.INTERNAL)


def error_of(code: int, message: str) -> XMemError:
    """Return the error that a code means; `NodeError` with the code in its text for one of another version."""
    if code in _TYPES:
        return _TYPES[ErrorCode(code)](message)
    return NodeError(f'{message} (unknown error code {code})')
