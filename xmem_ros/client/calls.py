# SPDX-License-Identifier: MIT
"""What the node is told: seeds, corrections, removal, reset; its refusals become errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from std_msgs.msg import Header
from std_srvs.srv import Trigger

from xmem_ros.checks import checked_ids
from xmem_ros.client.link import NodeLink
from xmem_ros.client.seeds import seed_messages, time_message
from xmem_ros.errors import ImageGoneError, MemoryFileError, NodeError, NodeInactiveError, SeedError, UnknownObjectError
from xmem_ros.node import qos
from xmem_ros.srv import MemoryFile, RemoveObjects, SeedObjects

SEED_S = 60.0  # for the first seed the node may have to build engines
MOST_TEXT = 4000  # characters of an answer's text
STATE_S = 2.0  # for the node's state, where something went wrong and the message is to say why


class Calls:
    """Calls of the node's services.

    Arguments:
        link: to the node.
    """

    def __init__(self, link: NodeLink) -> None:
        self.link = link
        link.advertise(Header, 'hold', qos.hold())

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
            SeedError: what was given cannot be used, or the node refuses it; the text says which seed, and why.
            ImageGoneError: the node does not hold the image of that stamp.
            NodeMissingError, NodeInactiveError, NodeTimeoutError; NodeError: an answer that makes no sense.
        """
        request = SeedObjects.Request(seeds=seed_messages(shapes))
        request.header.stamp = time_message(stamp)
        if timeout is None:
            timeout = max(self.link.timeout, SEED_S)
        answer = self.link.call(SeedObjects, 'seed', request, timeout, found_within=self.link.timeout)
        self._check(answer, ImageGoneError if answer.image_gone else SeedError)
        return _ids_for(len(request.seeds), answer.ids)

    def hold(self, stamp: Any) -> None:
        """Have the node keep an image, so that a seed for it is taken also when it comes late; `stamp` as in `seed`.

        Worth it where finding the object takes longer than `history` images. Returns as soon as the node is known to
        hear it; where the image is gone already, `seed` says so.

        Raises:
            SeedError: not a stamp. NodeMissingError, NodeTimeoutError; NodeError: the client is closed.
        """
        self.link.publish('hold', Header(stamp=time_message(stamp)))

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
        answer = self.link.call(Trigger, 'reset', Trigger.Request(), timeout)
        self._check(answer, NodeError)

    def save_memory(self, name: str, *, timeout: float | None = None) -> str:
        """Have the node write all that it remembers to a file of its `memory_folder`; returns what it says.

        Raises:
            MemoryFileError: refused; the text says why.
            NodeMissingError, NodeInactiveError, NodeTimeoutError.
        """
        return self._memory_file('save_memory', name, timeout)

    def load_memory(self, name: str, *, timeout: float | None = None) -> str:
        """Have the node forget everything and go on from a file, with its ids. Returns and raises as `save_memory`."""
        return self._memory_file('load_memory', name, timeout)

    def _memory_file(self, service: str, name: str, timeout: float | None) -> str:
        answer = self.link.call(MemoryFile, service, MemoryFile.Request(name=name), timeout)
        self._check(answer, MemoryFileError)
        return _text(answer.message)

    def _remove(self, request: Any, timeout: float | None) -> list[int]:
        answer = self.link.call(RemoveObjects, 'remove', request, timeout)
        self._check(answer, UnknownObjectError)
        return list(answer.removed)

    def _check(self, answer: Any, kind: type[Exception]) -> None:
        """Raise what a response without success means."""
        if answer.success:
            return
        try:
            active = self.link.state(STATE_S) == 'active'
        except NodeError:
            active = True
        raise (kind if active else NodeInactiveError)(_text(answer.message))


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
