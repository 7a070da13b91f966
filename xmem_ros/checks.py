# SPDX-License-Identifier: MIT
"""Checks of arguments by type and range. Imports neither torch nor ROS."""

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from xmem_ros.errors import ParameterError, UnknownObjectError, XMemError, quoted

LARGEST_ID = 2**32 - 1  # of the messages
LARGEST_SIDE = 65_535  # px
LARGEST_NAME = 255  # characters; each message about an object contains its name


def is_whole(given: Any) -> bool:
    """Return whether `given` is a whole number of Python or NumPy; booleans are not."""
    return isinstance(given, Integral) and not isinstance(given, bool)


def is_number(given: Any) -> bool:
    """Return whether `given` is a number in the range of float; booleans and NaN are not."""
    if isinstance(given, bool) or not isinstance(given, Real):
        return False
    try:
        return not math.isnan(given)
    except OverflowError:  # an int beyond the range of float
        return False


def check_whole(name: str, given: Any, low: int, high: int | None = None) -> None:
    """Raise `ParameterError` unless `given` is a whole number in low…high."""
    if not is_whole(given):
        raise ParameterError(f'{name} is {quoted(given)}; it must be a whole number, {_range(low, high)}')
    if given < low or (high is not None and given > high):
        raise ParameterError(f'{name} is {quoted(given)}; it must be {_range(low, high)}')


def check_number(name: str, given: Any, low: float, high: float | None = None) -> None:
    """Raise `ParameterError` unless `given` is a number in low…high; NaN is not."""
    if not is_number(given):
        raise ParameterError(f'{name} is {quoted(given)}; it must be a number, {_range(low, high)}')
    if given < low or (high is not None and given > high):
        raise ParameterError(f'{name} is {quoted(given)}; it must be {_range(low, high)}')


def check_flag(name: str, given: Any) -> None:
    """Raise `ParameterError` unless `given` is True or False."""
    if not isinstance(given, bool):
        raise ParameterError(f'{name} is {quoted(given)}; it must be True or False')


def check_choice(name: str, given: Any, choices: Sequence[str]) -> None:
    """Raise `ParameterError` unless `given` is one of the choices."""
    if not isinstance(given, str) or given not in choices:
        raise ParameterError(f'{name} is {quoted(given)}; it must be {", ".join(choices[:-1])} or {choices[-1]}')


def checked_size(what: str, given: Any, error: type[XMemError]) -> tuple[int, int]:
    """Return H, W in px; raises `error` unless `given` is two whole numbers in range.

    what: name of the argument.
    """
    try:
        height, width = given
    except (TypeError, ValueError):
        height = width = None
    if not all(is_whole(side) and 1 <= side <= LARGEST_SIDE for side in (height, width)):
        raise error(f'{what} is {quoted(given)}; give height and width, whole numbers of px from 1 to {LARGEST_SIDE}')
    return int(height), int(width)


def checked_path(what: str, given: Any, error: type[XMemError]) -> Path:
    """Return a path; raises `error` if `given` is not a path. what: name of the argument."""
    try:
        path = Path(given)
    except TypeError:
        raise error(f'{what} is {quoted(given)}; give a str or a pathlib.Path') from None
    if '\0' in str(path):
        raise error(f'{what} is {quoted(str(path))}; remove the NUL character, which no file name may contain')
    return path


def checked_ids(given: Any, least: int = 1) -> list[int]:
    """Return one id or several as a list.

    Raises `UnknownObjectError` unless all are whole numbers from `least`.
    """
    several = isinstance(given, Iterable) and not isinstance(given, (str, bytes))
    try:
        ids = list(given) if several else [given]
    except TypeError:  # a zero-dimensional array
        ids = [given]
    if not all(is_whole(item) and least <= item <= LARGEST_ID for item in ids):
        shown = ids if several else given
        raise UnknownObjectError(
            f'ids are {quoted(shown)}: give one id or several; an id is a whole number from {least}'
        )
    return [int(item) for item in ids]


def name_fault(name: str) -> str:
    """Return why an object's name is invalid and what to do; '' if it is valid."""
    if len(name) > LARGEST_NAME:
        return f'the name has {len(name)} characters: give one of at most {LARGEST_NAME}'
    if '\0' in name or (not name.isascii() and any('\ud800' <= letter <= '\udfff' for letter in name)):
        return f'the name {quoted(name)} cannot be stored as UTF-8 text: remove null characters and lone surrogates'
    return ''


def _range(low: float, high: float | None) -> str:
    return f'at least {low}' if high is None else f'{low}…{high}'
