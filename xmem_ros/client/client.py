# SPDX-License-Identifier: MIT
"""`XMemClient`: seed, wait, read masks, without callbacks."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from sensor_msgs.msg import Image

from xmem_ros.client.calls import Calls, LoadedMemory, id_list
from xmem_ros.client.link import NodeLink
from xmem_ros.client.seen import Frame, FramePairs
from xmem_ros.errors import FrameError, NodeError, NodeInactiveError, NodeTimeoutError, SeedError, quoted
from xmem_ros.msg import TrackedObjectArray
from xmem_ros.node import qos
from xmem_ros.outside_text import for_log

if TYPE_CHECKING:
    from types import TracebackType

_LOG_S = 10.0  # between two warnings about messages
_STATE_S = 2.0  # for the node's state, where something went wrong and the message is to say why
_ON_ITS_WAY_S = 1.0  # that a message may take which was sent before the answer to a call


class XMemClient(Calls):
    """The tracker's node, called like a library.

    It hears the node's topics in a thread of its own and works in a script, in a notebook, and beside nodes and
    executors of the program's own, also called from their callbacks. Every method may be called from any thread.

        with XMemClient('/xmem') as client:
            ids = client.seed({'cup': mask})
            frame = client.wait_tracked(ids)
            print(frame['cup'].box, frame['cup'].mask.sum())

    Arguments:
        name: of the node.
        timeout: the longest that a method waits, unless it is told otherwise [s].

    Raises:
        ParameterError: a name that no node can have.
    """

    def __init__(self, name: str = '/xmem', *, timeout: float = 10.0) -> None:
        super().__init__(NodeLink(name, timeout=timeout))
        self._pairs = FramePairs()
        self._changed = threading.Condition()
        self._latest: Frame | None = None
        self._count = self._returned = 0  # frames heard; the number of the last that a wait has returned
        self._seeded = self._corrected = 0  # number of the last frame from before a seed; the same without renaming
        self._old = (-1, 0.0)  # stamp [ns] up to which frames that arrive by that time are from before a reset
        self._subscriptions = [
            self.link.subscribe(kind, self.link.topic(half), _hearing(weakref.ref(self), half), qos.output())
            for half, kind in (('labels', Image), ('objects', TrackedObjectArray))
        ]

    def __enter__(self) -> XMemClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the graph; whoever waits gets `NodeError`."""
        self.link.close()
        with self._changed:
            self._changed.notify_all()

    def seed(self, shapes: Any, stamp: Any = None, *, timeout: float | None = None) -> list[int]:
        """As `Calls.seed`; `wait_tracked` returns no image from before the answer."""
        ids = super().seed(shapes, stamp, timeout=timeout)
        self.link.catch_up(self._subscriptions, self._note_correction)
        return ids

    def reset(self, *, timeout: float | None = None) -> None:
        """Forget everything; ids start again at 1. Raises as `Calls.reset`."""
        super().reset(timeout=timeout)
        self.link.catch_up(self._subscriptions, self._forget)

    def load_memory(self, name: str, *, timeout: float | None = None) -> LoadedMemory:
        """Have the node forget everything and continue from a file, with its ids. Raises as `Calls.load_memory`."""
        loaded = super().load_memory(name, timeout=timeout)
        self.link.catch_up(self._subscriptions, self._forget)
        return loaded

    def latest(self, timeout: float | None = None) -> Frame | None:
        """What the node said last; None where the node is there and has said nothing yet.

        Returns at once, unless nothing has come and the node cannot be seen: then it is waited for, up to the timeout.

        Raises:
            NodeMissingError: no node of that name; names those that are there. NodeError: the client is closed.
        """
        with self._changed:
            if self._latest is not None:
                return self._latest
        self.link.check_there(timeout)
        with self._changed:
            return self._latest

    def wait(self, timeout: float | None = None) -> Frame:
        """Return what the node said last, once: waits for the next image where that has been returned already.

        Raises:
            NodeTimeoutError: the node is active, but nothing came; NodeMissingError; NodeInactiveError.
            NodeError: the client is closed.
        """
        limit = self.link.timeout if timeout is None else timeout
        with self._changed:
            self._changed.wait_for(lambda: self._count > self._returned or self._closed, limit)
            if self._latest is not None and self._count > self._returned and not self._closed:
                self._returned = self._count
                return self._latest
        raise self._silence(limit)

    def wait_tracked(self, ids: int | Iterable[int], timeout: float | None = None) -> Frame:
        """Wait for an image in which all of these objects are visible, and return what the node said of it.

        What `wait` or `wait_tracked` has returned is not returned again: a loop gets each image at most once. Nor is
        what came before the answer to the last `seed` or `rename`.

        Raises:
            NodeTimeoutError: the text says what became of each; or nothing came at all.
            NodeMissingError, NodeInactiveError; NodeError: the client is closed.
        """
        return self._wait_visible(id_list(ids), timeout)

    def rename(self, object_id: int, name: str, timeout: float | None = None) -> None:
        """Give an object another name: corrects it with its own mask in the newest image that shows it.

        Waits for such an image, so an object that is out of sight cannot be renamed.

        Raises:
            SeedError: no name, or refused. UnknownObjectError: not an id.
            NodeTimeoutError: not seen in time; the text says what became of it, or that it is not tracked.
            NodeMissingError, NodeInactiveError; NodeError: the client is closed.
        """
        if not isinstance(name, str) or not name:
            raise SeedError(f'the name is {quoted(name)}: give a text that is not empty')
        (one,) = id_list([object_id])
        frame = self._wait_visible([one], timeout, returned_too=True)
        super().seed({(one, name): frame[one].mask}, stamp=frame, timeout=timeout)
        self.link.catch_up(self._subscriptions, self._note_renaming)

    # --- inside

    @property
    def _closed(self) -> bool:
        return self.link.closed

    def _hear(self, half: str, message: Any) -> None:
        with self._changed:
            try:
                frame = self._pairs.add(half, message)
            except (FrameError, ValueError) as error:
                logger = self.link.node.get_logger()
                logger.warning(f'a message of {half} cannot be read: {for_log(error)}', throttle_duration_sec=_LOG_S)
                return
            if frame is None or (frame.stamp_ns <= self._old[0] and time.monotonic() < self._old[1]):
                return
            self._latest, self._count = frame, self._count + 1
            self._changed.notify_all()

    def _wait_visible(self, wanted: list[int], timeout: float | None, *, returned_too: bool = False) -> Frame:
        """As `wait_tracked`. `returned_too`: any image whose masks no seed has corrected since, also one returned."""
        limit = self.link.timeout if timeout is None else timeout
        end = time.monotonic() + limit
        with self._changed:
            begun = self._count
            seen = self._corrected if returned_too else max(self._returned, self._seeded)
            while True:
                left = max(end - time.monotonic(), 0)
                self._changed.wait_for(lambda: self._count > seen or self._closed, left)  # noqa: B023
                frame, silent = self._latest, self._count == begun
                if self._closed or self._count <= seen:
                    break
                seen = self._count
                if frame is not None and _all_visible(frame, wanted):
                    if not returned_too:
                        self._returned = seen
                    return frame
        if self._closed or frame is None:
            raise self._silence(limit)
        error = self._silence(limit) if silent else NodeTimeoutError(f'waited {limit:g} s')
        raise type(error)(f'{_fates(frame, wanted)}; {error}')

    def _note_correction(self) -> None:
        """The masks, and names, that were said so far are from before it."""
        with self._changed:
            self._seeded = self._corrected = self._count

    def _note_renaming(self) -> None:
        with self._changed:
            self._seeded = self._count

    def _forget(self) -> None:
        """What was said so far, and what may still be on its way: its ids mean something else now."""
        with self._changed:
            if self._latest is not None:
                self._old = (self._latest.stamp_ns, time.monotonic() + _ON_ITS_WAY_S)
            self._pairs.clear()
            self._latest, self._returned = None, self._count

    def _silence(self, waited: float) -> NodeError:
        """Why nothing came."""
        try:
            state = self.link.state(_STATE_S)
        except NodeError as error:
            return error
        if state != 'active':
            return NodeInactiveError(
                f'{self.link.name} is {state}, so it tracks nothing: configure and activate it '
                f'(ros2 lifecycle set {self.link.name} activate)'
            )
        return NodeTimeoutError(
            f'{self.link.name} is active, but said nothing of any new image for {waited:g} s: does its camera publish? '
            '/diagnostics says what it hears'
        )


def _hearing(client: weakref.ref[XMemClient], half: str) -> Callable[[Any], None]:
    """For a subscription; it does not keep the client alive, which would then never be closed."""

    def hear(message: Any) -> None:
        one = client()
        if one is not None:
            one._hear(half, message)

    return hear


def _all_visible(frame: Frame, ids: list[int]) -> bool:
    found = [frame.get(item) for item in ids]
    return all(item is not None and item.visible for item in found)


def _fates(frame: Frame, ids: list[int]) -> str:
    texts = []
    for object_id in ids:
        item = frame.get(object_id)
        texts.append(f'object {object_id} is {item.state.name if item else "not tracked"}')
    return ', '.join(texts)
