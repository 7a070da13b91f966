# SPDX-License-Identifier: MIT
"""`XMemClient`: seed, wait, read masks, without callbacks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sensor_msgs.msg import Image

from xmem_ros.client.calls import STATE_S, Calls, id_list
from xmem_ros.client.link import NodeLink
from xmem_ros.client.seen import Frame, FramePairs
from xmem_ros.errors import FrameError, NodeError, NodeInactiveError, NodeTimeoutError, SeedError, quoted
from xmem_ros.msg import TrackedObjectArray
from xmem_ros.node import qos

if TYPE_CHECKING:
    from types import TracebackType


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
        self._fresh = False  # whether no `wait` has returned the latest yet
        for half, kind in (('labels', Image), ('objects', TrackedObjectArray)):
            self.link.subscribe(kind, self.link.topic(half), self._hear(half), qos.output())

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

    def reset(self, *, timeout: float | None = None) -> None:
        """Forget everything; ids start again at 1. Raises as `Calls.reset`."""
        super().reset(timeout=timeout)
        with self._changed:  # its ids mean nothing now
            self._latest, self._fresh = None, False

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
        """Return what the node said last, once: waits for the next image where `wait` has returned that already.

        Raises:
            NodeTimeoutError: the node is active, but nothing came; NodeMissingError; NodeInactiveError.
            NodeError: the client is closed.
        """
        limit = self.link.timeout if timeout is None else timeout
        with self._changed:
            self._changed.wait_for(lambda: self._fresh or self._closed, limit)
            if self._fresh and self._latest is not None:
                self._fresh = False
                return self._latest
        raise self._silence(limit)

    def wait_tracked(self, ids: int | Iterable[int], timeout: float | None = None) -> Frame:
        """Wait for an image in which all of these objects are visible, and return what the node said of it.

        Raises:
            NodeTimeoutError: the text says what became of each; or nothing came at all.
            NodeMissingError, NodeInactiveError; NodeError: the client is closed.
        """
        wanted = id_list(ids)
        limit = self.link.timeout if timeout is None else timeout
        end = time.monotonic() + limit
        with self._changed:
            before = self._latest
            while not ((frame := self._latest) and _all_visible(frame, wanted)):
                left = end - time.monotonic()
                if left <= 0 or self._closed:
                    break
                self._changed.wait_for(lambda heard=frame: self._latest is not heard or self._closed, left)  # type: ignore[misc]
        if self._closed or frame is None:
            raise self._silence(limit)
        if _all_visible(frame, wanted):
            return frame
        error = self._silence(limit) if frame is before else NodeTimeoutError(f'waited {limit:g} s')
        raise type(error)(f'{_fates(frame, wanted)}; {error}')

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
        frame = self.wait_tracked(one, timeout)
        self.seed({(one, name): frame[one].mask}, stamp=frame, timeout=timeout)

    # --- inside

    @property
    def _closed(self) -> bool:
        return self.link.closed

    def _hear(self, half: str) -> Any:
        def hear(message: Any) -> None:
            try:
                frame = self._pairs.add(half, message)
            except (FrameError, ValueError) as error:
                self.link.node.get_logger().warning(f'a message of {half} cannot be read: {error}')
                return
            if frame is not None:
                with self._changed:
                    self._latest, self._fresh = frame, True
                    self._changed.notify_all()

        return hear

    def _silence(self, waited: float) -> NodeError:
        """Why nothing came."""
        try:
            state = self.link.state(STATE_S)
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


def _all_visible(frame: Frame, ids: list[int]) -> bool:
    found = [frame.get(item) for item in ids]
    return all(item is not None and item.visible for item in found)


def _fates(frame: Frame, ids: list[int]) -> str:
    texts = []
    for object_id in ids:
        item = frame.get(object_id)
        texts.append(f'object {object_id} is {item.state.name if item else "not tracked"}')
    return ', '.join(texts)
