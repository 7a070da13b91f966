# SPDX-License-Identifier: MIT
"""Errors that a user can cause, and their codes in service responses.

The text of an error says what was given, what is allowed and what to do. Layers below the node
raise these types without codes. The table at the end maps types to codes; the client maps codes
back.
"""

from __future__ import annotations

import enum
import reprlib
from collections.abc import Mapping, Sequence

MOST_QUOTED = 80  # characters of a value in an error's text


class _Brief(reprlib.Repr):
    """`repr` with bounds on containers and numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = self.maxdeque = 30
        self.maxstring = self.maxother = 10 * MOST_QUOTED

    def repr_int(self, number: int, level: int) -> str:  # noqa: ARG002  # as reprlib has it
        """Describe huge integers, which Python refuses to convert to text."""
        bits = number.bit_length()
        return repr(number) if bits <= 1000 else f'a whole number of about {round(bits * 0.30103)} digits'


_BRIEF = _Brief()


def quoted(given: object, most: int = MOST_QUOTED) -> str:
    """Return a value for an error's text, shortened to `most` characters.

    Time and memory are bounded for any value, and it never raises.
    """
    if isinstance(given, str | bytes) and len(given) > most:
        return f'{given[:most]!r}… ({len(given)} {"characters" if isinstance(given, str) else "bytes"})'
    try:
        text = _BRIEF.repr(given)
    except Exception:  # raised by the value's own __repr__
        return f'an object of type {type(given).__name__}'
    return text if len(text) <= most else f'{text[:most]}… ({len(text)} characters)'


def listed(given: Sequence[object], most: int = 10) -> str:
    """Return the first `most` values and the number of all."""
    text = ', '.join(map(str, given[:most]))
    return text if len(given) <= most else f'{text}, … ({len(given)} in all)'


def summary_of(error: Exception) -> str:
    """Return an error as one line; errors of libraries begin with their type."""
    first = next(iter(str(error).strip().splitlines()), '')
    if first and isinstance(error, XMemError | OSError):
        return first
    return f'{type(error).__name__}: {first}' if first else type(error).__name__


class XMemError(Exception):
    """Base of the errors that this package raises on purpose."""

    setting: Setting | None = None


class Setting(enum.Enum):
    """Input that would correct an error. Each front end has its own name for it."""

    IMAGE_TOPIC = enum.auto()
    SEEDS_TOPIC = enum.auto()
    SEEDS = enum.auto()
    TIMEOUT = enum.auto()
    DESTINATION = enum.auto()  # folder of the results
    RESTART = enum.auto()  # discard earlier work
    FORMAT = enum.auto()  # of the results
    REMAP = enum.auto()  # recorded topic → published topic
    NEW_BASELINE = enum.auto()  # store the figures of this run
    DATA = enum.auto()  # folder of the training data
    ADDRESS = enum.auto()  # host and port
    TOKEN_FILE = enum.auto()


def naming(setting: Setting, error: XMemError) -> XMemError:
    """Attach to an error the setting that would correct it; returns the error."""
    error.setting = setting
    return error


def with_setting(error: Exception, names: Mapping[Setting, str]) -> str:
    """Return the text of an error, with a front end's name for its setting."""
    setting = error.setting if isinstance(error, XMemError) else None
    return f'{error} ({names[setting]})' if setting is not None and setting in names else str(error)


class FrameError(XMemError, ValueError):
    """Unusable image: shape, type, size, encoding or too little data."""


class SeedError(XMemError, ValueError):
    """Unusable seed; no object was added or changed."""


class TooManyObjectsError(SeedError):
    """More objects than `max_objects`."""


class NoImageError(SeedError):
    """No image has arrived yet to be seeded."""


class StampNotHeldError(SeedError):
    """No image with this stamp is held (any more)."""


class RequestError(XMemError, ValueError):
    """Request with missing or contradicting fields."""


class UnknownObjectError(XMemError, KeyError):
    """Unknown object id; nothing was changed."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ''


class NotVisibleError(XMemError, RuntimeError):
    """The object is tracked, but not visible."""


class WeightsError(XMemError, ValueError):
    """Weights that are missing, unreadable or of another model."""


class DeviceError(XMemError, RuntimeError):
    """Requested device that is not present."""


class EngineError(XMemError, RuntimeError):
    """Inference or export engine that is missing or does not support the request."""


class ParameterError(XMemError, ValueError):
    """Parameter or option that is unknown, of the wrong type or out of range."""


class OutOfMemoryError(XMemError, RuntimeError):
    """Device memory ran out after the last recovery measure; the tracked objects are unchanged."""


class MemoryFileError(XMemError, ValueError):
    """Unusable memory file; as this exact type: truncated, damaged or another kind of file."""


class MemoryFileNameError(MemoryFileError):
    """Name that is not a plain file name, or leads out of the folder."""


class MemoryFileMissingError(MemoryFileError):
    """No memory file of that name."""


class MemoryFileMismatchError(MemoryFileError):
    """Memory file of other weights or another version, or with too many objects."""


class MemoryFileWriteError(MemoryFileError):
    """Memory file that cannot be written."""


class BagError(XMemError, ValueError):
    """Recording that is missing, damaged, empty, or without usable images."""


class OutputError(XMemError, OSError):
    """File that cannot be written: no space, no permission, no folder."""


class RunError(XMemError, RuntimeError):
    """Run over a recording that stopped, although input, seeds and arguments are valid."""


class NodeError(XMemError, RuntimeError):
    """A request to the node failed; as this exact type: internal error or unknown code."""


class NodeMissingError(NodeError):
    """No node of this name is present."""


class NodeInactiveError(NodeError):
    """The node is present, but its lifecycle state is not active."""


class NodeFaultError(NodeError):
    """The node's tracking thread ended with a fault: deactivate and activate the node."""


class NodeTimeoutError(NodeError, TimeoutError):
    """The time to wait for the node passed."""


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
    NOT_VISIBLE = 204
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
    ErrorCode.NOT_VISIBLE: NotVisibleError,
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
    """Return the code of an error's type or nearest base type; INTERNAL if none has one."""
    return next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), ErrorCode.INTERNAL)


def error_of(code: int, message: str) -> XMemError:
    """Return the error for a code; an unknown code gives `NodeError` with the code in its text."""
    if code in _TYPES:
        return _TYPES[ErrorCode(code)](message)
    return NodeError(f'{message} (unknown error code {code})')
