# SPDX-License-Identifier: MIT
"""Calls of the node's services: seed, preview, hold, remove, reset, save, load.

A failed response raises the error of its code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from xmem_ros.checks import checked_ids
from xmem_ros.client.link import NodeLink
from xmem_ros.client.seeds import seed_messages, time_message
from xmem_ros.conversions.images import mask_from_image, stamp_ns
from xmem_ros.errors import NodeError, UnknownObjectError, error_of
from xmem_ros.srv import HoldImage, LoadMemory, PreviewSeed, RemoveObjects, ResetTracker, SaveMemory, SeedObjects

SEED_S = 60.0  # minimum default timeout of a seed: the node may build engines before the first one
MOST_TEXT = 4000  # characters of a response's message


class Candidate(NamedTuple):
    """Possible mask of an object that a seed shows."""

    mask: np.ndarray  # H×W bool
    quality: float  # predicted IoU, 0…1; NaN: not predicted


@dataclass(frozen=True)
class SavedMemory:
    """A memory file that the node has written."""

    path: str  # on the node's machine
    nbytes: int
    ids: tuple[int, ...]  # of the saved objects


@dataclass(frozen=True)
class LoadedMemory:
    """A memory file that the node has loaded."""

    path: str  # on the node's machine
    labels: dict[int, int]  # object id → label (pixel value)

    @property
    def ids(self) -> list[int]:
        """Ids of the tracked objects."""
        return list(self.labels)


class ServiceCalls:
    """Blocking calls of the node's services.

    Arguments:
        link: connection to the node.
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
        """Seed new objects or correct tracked ones; either all seeds are accepted or none.

        Args:
            shapes: target → shape, or pairs of the two. A target is a name for a new object, the
                id of an object to correct, or (id, new name). A shape is a mask (H×W bool or
                number, of the image's size), a `Box` or four numbers x, y, width, height [px], or
                `Points`.
            stamp: stamp of the image to seed on: the image's message, its header or stamp, a
                `Frame`, or whole nanoseconds; None: the newest image.
            timeout: for the response [s]; None: at least a minute, because the node may build
                engines before the first seed.

        Returns:
            Ids, in the order of `shapes`.

        Raises:
            SeedError: a seed cannot be used; the message says which and why. Subtypes:
                `StampNotHeldError`, `NoImageError`, `TooManyObjectsError`.
            UnknownObjectError: an id to correct is not tracked.
            FrameError: the image cannot be read.
            OutOfMemoryError: the node ran out of memory.
            NodeMissingError, NodeInactiveError, NodeTimeoutError.
        """
        request = SeedObjects.Request(seeds=seed_messages(shapes))
        request.header.stamp = time_message(stamp)
        if timeout is None:
            timeout = max(self.link.timeout, SEED_S)
        answer = self.link.call(SeedObjects, 'seed', request, timeout, found_within=self.link.timeout)
        return _ids_for(len(request.seeds), checked(answer).ids)

    def preview(
        self,
        shape: Any,
        stamp: Any = None,
        *,
        object_id: int = 0,
        timeout: float | None = None,
        found_within: float | None = None,
    ) -> list[Candidate]:
        """Return the masks that a seed may mean, best first, without seeding.

        `seed` uses the first; give another one's mask to `seed` as the shape, with the same stamp.

        Args:
            shape: a `Box`, `Points` or a mask, as in `seed`.
            stamp: as in `seed`.
            object_id: id of an object whose mask the points correct; without points, its mask is
                returned. 0: a new object.
            timeout: for the response [s]; None: the client's.
            found_within: shorter timeout of discovery alone [s].

        Raises:
            FrameError: the image or a mask cannot be read.
            As `seed`, except `OutOfMemoryError`.
        """
        (seed,) = seed_messages([(object_id or '', shape)])
        request = PreviewSeed.Request(seed=seed)
        request.header.stamp = time_message(stamp)
        answer = checked(self.link.call(PreviewSeed, 'preview_seed', request, timeout, found_within=found_within))
        if len(answer.qualities) != len(answer.masks):
            raise NodeError(f'the node returned {len(answer.qualities)} qualities for {len(answer.masks)} masks')
        pairs = zip(answer.masks, answer.qualities, strict=True)
        return [Candidate(mask_from_image(mask) != 0, float(quality)) for mask, quality in pairs]

    def hold(self, stamp: Any = None, *, timeout: float | None = None) -> int:
        """Hold an image in the node for ten minutes, so that a late seed for it is accepted.

        Use it when detection takes longer than the node's `history_seconds`. `stamp` has the same
        forms as in `seed`. Returns the stamp of the held image [ns].

        Raises:
            StampNotHeldError: the image is already gone; the message lists the available ones.
            NoImageError: no image has arrived yet.
            ParameterError: the node's parameter `held` is 0.
            SeedError: `stamp` has none of these forms.
            NodeMissingError, NodeInactiveError, NodeTimeoutError.
        """
        request = HoldImage.Request()
        request.header.stamp = time_message(stamp)
        return stamp_ns(checked(self.link.call(HoldImage, 'hold', request, timeout)).stamp)

    def remove(self, ids: int | Iterable[int], *, timeout: float | None = None) -> list[int]:
        """Remove objects, either all of the given ids or none; returns the removed ids.

        Raises:
            UnknownObjectError: an id is not tracked, or no id is given.
            NodeMissingError, NodeInactiveError, NodeTimeoutError.
        """
        return self._remove(RemoveObjects.Request(ids=id_list(ids)), timeout)

    def remove_all(self, *, timeout: float | None = None) -> list[int]:
        """Remove every object; returns their ids, which are not reused. Raises as `remove`."""
        return self._remove(RemoveObjects.Request(all=True), timeout)

    def reset(self, *, timeout: float | None = None) -> None:
        """Reset the tracker: remove all objects and memory; ids start again at 1.

        Raises:
            NodeError: the node refused the request.
            NodeMissingError, NodeInactiveError, NodeTimeoutError.
        """
        checked(self.link.call(ResetTracker, 'reset', ResetTracker.Request(), timeout))

    def save_memory(self, name: str, *, timeout: float | None = None) -> SavedMemory:
        """Save the node's memory to a file in its `memory_folder`.

        Raises:
            MemoryFileError: subtypes `MemoryFileNameError`, `MemoryFileWriteError`.
            NodeMissingError, NodeInactiveError, NodeTimeoutError.
        """
        answer = checked(self.link.call(SaveMemory, 'save_memory', SaveMemory.Request(name=name), timeout))
        return SavedMemory(answer.path, answer.size, tuple(answer.ids))

    def load_memory(self, name: str, *, timeout: float | None = None) -> LoadedMemory:
        """Replace the node's memory, objects and ids by those of a memory file.

        Raises:
            MemoryFileError: a damaged file; subtypes `MemoryFileNameError`,
                `MemoryFileMissingError`, `MemoryFileMismatchError`.
            NodeMissingError, NodeInactiveError, NodeTimeoutError.
        """
        answer = checked(self.link.call(LoadMemory, 'load_memory', LoadMemory.Request(name=name), timeout))
        return LoadedMemory(answer.path, dict(zip(answer.ids, answer.labels, strict=True)))

    def _remove(self, request: Any, timeout: float | None) -> list[int]:
        return list(checked(self.link.call(RemoveObjects, 'remove', request, timeout)).removed)


def checked(answer: Any) -> Any:
    """Return a successful response; for a failed one, raise the error of its code."""
    if answer.success:
        return answer
    raise error_of(answer.error_code, _text(answer.message))


def _ids_for(seeds: int, ids: Any) -> list[int]:
    """Check that the node returned one id for each seed."""
    if len(ids) != seeds:
        raise NodeError(f'the node returned {len(ids)} ids for {seeds} seeds: check the tracked objects (~/objects)')
    return list(ids)


def _text(message: str) -> str:
    """Shorten a message from the node and replace its control characters."""
    text = ''.join(letter if letter.isprintable() or letter == '\n' else '�' for letter in message[:MOST_TEXT])
    return text if len(message) <= MOST_TEXT else f'{text}… ({len(message)} characters)'


def id_list(ids: int | Iterable[int]) -> list[int]:
    """Convert one or several ids to a list; raises `UnknownObjectError` if none or invalid."""
    checked = checked_ids(ids)
    if not checked:
        raise UnknownObjectError('no id given: give one id or several')
    return checked
