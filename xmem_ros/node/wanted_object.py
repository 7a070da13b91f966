# SPDX-License-Identifier: MIT
"""The object that a request or goal means by its id or name. No ROS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from xmem_ros.errors import RequestError, UnknownObjectError, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xmem_ros.objects import TrackedObject


class Wanted(Protocol):
    """The fields of GetMask's request and of WaitVisible's goal; 0 and an empty name are unset."""

    id: int
    name: str


def check(wanted: Wanted) -> None:
    """Raise `RequestError` unless exactly one of id and name is given."""
    if bool(wanted.id) == bool(wanted.name):
        raise RequestError('give either the id of an object or its name')


def all_of(wanted: Wanted, objects: Sequence[TrackedObject]) -> list[TrackedObject]:
    """Return the objects of this id or name."""
    return [item for item in objects if (item.id == wanted.id if wanted.id else item.name == wanted.name)]


def best_of(wanted: Wanted, objects: Sequence[TrackedObject]) -> TrackedObject | None:
    """Return the object meant; of several of one name a visible one, then that of highest score."""
    return max(all_of(wanted, objects), key=lambda item: (item.box is not None, item.score), default=None)


def unknown(wanted: Wanted, objects: Sequence[TrackedObject]) -> UnknownObjectError:
    """Return the error for an object that is not tracked."""
    tracked = ', '.join(f'{item.id} {item.name}'.strip() for item in objects) or 'none'
    meant = f'the id {wanted.id}' if wanted.id else f'the name {quoted(wanted.name)}'
    return UnknownObjectError(f'no object has {meant}; tracked: {tracked}')
