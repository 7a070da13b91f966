# SPDX-License-Identifier: MIT
"""Calls of the node's services: seed, hold, remove, reset, save, load. A refusal becomes the error of its code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from xmem_ros.checks import checked_ids
from xmem_ros.client.link import NodeLink
from xmem_ros.client.seeds import seed_messages, time_message
from xmem_ros.conversions.images import stamp_ns
from xmem_ros.errors import NodeError, UnknownObjectError, error_of
from xmem_ros.srv import HoldImage, LoadMemory, RemoveObjects, ResetTracker, SaveMemory, SeedObjects

SEED_S = 60.0  # for the first seed the node may have to build engines
MOST_TEXT = 4000  # characters of an answer's text


@dataclass(frozen=True)
class SavedMemory:
    """A memory file that the node has written."""

    path: str  # on the node's machine
    nbytes: int
    ids: tuple[int, ...]  # of the objects in it


@dataclass(frozen=True)
class LoadedMemory:
    """A memory file that the node continues from."""

    path: str  # on the node's machine
    labels: dict[int, int]  # id → pixel value, of every object

    @property
    def ids(self) -> list[int]:
        """Ids of the objects that are tracked now."""
        return list(self.labels)


class Calls:
    """Calls of the node's services.

    Arguments:
        link: to the node.
    """

    def __init__(self, link: NodeLink) -> None:
        self.link = link

    def seed(
        self,
        shapes: Mapping[Any, Any] | Iterable[tuple[Any, Any]],
        stamp: Any = None,
        *,
        timeout: float | None = None,
    ) -> list[int]:
        """Show the node objects, or correct some that it tracks; all of them are accepted, or none.

        Args:
            shapes: what each object is → where it is, or pairs of the two. What: a name for a new object, the id of one
                to correct, or (id, new name). Where: a mask (H×W bool or number, of the image's size), a `Box` or four
                numbers x, y, width, height [px], or `Points`.
            stamp: of the image that they were found in: the image's message, its header or stamp, a `Frame`, or whole
                nanoseconds; None: the newest image.
            timeout: for the answer [s]; None: a minute at least, for the first seed may have to wait for what is built.

        Returns:
            Ids, in the order of `shapes`.

        Raises:
            SeedError: a seed cannot be used; the text says which, and why. Its subtypes: `StampNotHeldError`,
                `NoImageError`, `TooManyObjectsError`.
            UnknownObjectError: an id to correct is not tracked. FrameError: the image cannot be read.
            OutOfMemoryError: the node has no memory for it.
            NodeMissingError, NodeInactiveError, NodeTimeoutError.
        """
        request = SeedObjects.Request(seeds=seed_messages(shapes))
        request.header.stamp = time_message(stamp)
        if timeout is None:
            timeout = max(self.link.timeout, SEED_S)
        answer = self.link.call(SeedObjects, 'seed', request, timeout, found_within=self.link.timeout)
        return _ids_for(len(request.seeds), checked(answer).ids)

    def hold(self, stamp: Any = None, *, timeout: float | None = None) -> int:
        """Have the node keep an image for ten minutes, so that a seed for it is accepted also when it comes late.

        Worth it where finding the object takes longer than `history_seconds`. `stamp` as in `seed`; returns the stamp
        of the image that is held [ns].

        Raises:
            StampNotHeldError: the image is gone already; names those that are there. NoImageError: none has come yet.
            ParameterError: the node's parameter `held` is 0. SeedError: not a stamp.
            NodeMissingError, NodeInactiveError, NodeTimeoutError.
        """
        request = HoldImage.Request()
        request.header.stamp = time_message(stamp)
        return stamp_ns(checked(self.link.call(HoldImage, 'hold', request, timeout)).stamp)

    def remove(self, ids: int | Iterable[int], *, timeout: float | None = None) -> list[int]:
        """Stop tracking some objects, all of them or none; returns their ids.

        Raises:
            UnknownObjectError: an id that is not tracked, or no id.
            NodeMissingError, NodeInactiveError, NodeTimeoutError.
        """
        return self._remove(RemoveObjects.Request(ids=id_list(ids)), timeout)

    def remove_all(self, *, timeout: float | None = None) -> list[int]:
        """Stop tracking every object; returns their ids, which are not used again. Raises as `remove`."""
        return self._remove(RemoveObjects.Request(all=True), timeout)

    def reset(self, *, timeout: float | None = None) -> None:
        """Forget everything; ids start again at 1.

        Raises:
            NodeMissingError, NodeInactiveError, NodeTimeoutError; NodeError: refused for another reason.
        """
        checked(self.link.call(ResetTracker, 'reset', ResetTracker.Request(), timeout))

    def save_memory(self, name: str, *, timeout: float | None = None) -> SavedMemory:
        """Have the node write all that it remembers to a file of its `memory_folder`.

        Raises:
            MemoryFileError: its subtypes say why: `MemoryFileNameError`, `MemoryFileWriteError`.
            NodeMissingError, NodeInactiveError, NodeTimeoutError.
        """
        answer = checked(self.link.call(SaveMemory, 'save_memory', SaveMemory.Request(name=name), timeout))
        return SavedMemory(answer.path, answer.size, tuple(answer.ids))

    def load_memory(self, name: str, *, timeout: float | None = None) -> LoadedMemory:
        """Have the node forget everything and continue from a file, with its ids.

        Raises:
            MemoryFileError: damaged, or by its subtypes: `MemoryFileNameError`, `MemoryFileMissingError`,
                `MemoryFileMismatchError`.
            NodeMissingError, NodeInactiveError, NodeTimeoutError.
        """
        answer = checked(self.link.call(LoadMemory, 'load_memory', LoadMemory.Request(name=name), timeout))
        return LoadedMemory(answer.path, dict(zip(answer.ids, answer.labels, strict=True)))

    def _remove(self, request: Any, timeout: float | None) -> list[int]:
        return list(checked(self.link.call(RemoveObjects, 'remove', request, timeout)).removed)


def checked(answer: Any) -> Any:
    """Return a response with success; raise the error of its code otherwise."""
    if answer.success:
        return answer
    raise error_of(answer.error_code, _text(answer.message))


def _ids_for(seeds: int, ids: Any) -> list[int]:
    """The ids that came of seeds that are one object each."""
    if len(ids) != seeds:
        raise NodeError(f'the node answered with {len(ids)} ids for {seeds} seeds: see what it tracks (~/objects)')
    return list(ids)


def _text(message: str) -> str:
    """What a node says, of bounded length and without what a terminal would obey."""
    text = ''.join(letter if letter.isprintable() or letter == '\n' else '�' for letter in message[:MOST_TEXT])
    return text if len(message) <= MOST_TEXT else f'{text}… ({len(message)} characters)'


def id_list(ids: int | Iterable[int]) -> list[int]:
    """One id or several, as a list; raises `UnknownObjectError` for what is no id, and for none."""
    found = checked_ids(ids)
    if not found:
        raise UnknownObjectError('no id given: give one id or several')
    return found
