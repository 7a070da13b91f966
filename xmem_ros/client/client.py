# SPDX-License-Identifier: MIT
"""`XMemClient`: seed, wait, read masks, without callbacks."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from sensor_msgs.msg import Image

from xmem_ros.client.calls import LoadedMemory, ServiceCalls, id_list
from xmem_ros.client.frames import Frame, FramePairs
from xmem_ros.client.link import NodeLink, StateQuestion
from xmem_ros.errors import FrameError, NodeError, NodeInactiveError, NodeTimeoutError, SeedError, quoted
from xmem_ros.msg import TrackedObjectArray
from xmem_ros.node import qos
from xmem_ros.outside_text import for_log

if TYPE_CHECKING:
    from types import TracebackType

_LOG_S = 10.0  # between warnings about unreadable messages
_STATE_S = 1.0  # longest time before a timeout at which the node is asked for its state, to explain the error
_IN_FLIGHT_S = 1.0  # longest delay of a message that was sent before the response to a call


class XMemClient(ServiceCalls):
    """Client of the tracker's node, used like a library, without callbacks.

    It receives the node's topics in a thread of its own. It works in scripts and notebooks, next to
    other nodes and executors, and in their callbacks. Methods may be called from any thread.

        with XMemClient('/xmem') as client:
            ids = client.seed({'cup': mask})
            frame = client.wait_tracked(ids)
            print(frame['cup'].box, frame['cup'].mask.sum())

    Arguments:
        name: full name of the node.
        timeout: default timeout of every method [s].

    Raises:
        ParameterError: `name` is not a valid node name.
    """

    def __init__(self, name: str = '/xmem', *, timeout: float = 10.0) -> None:
        super().__init__(NodeLink(name, timeout=timeout))
        self._pairs = FramePairs()
        self._changed = threading.Condition()
        self._latest: Frame | None = None
        # Frames are counted as they arrive. These are the number of the newest frame, and of the
        # newest that `wait` or `wait_tracked` has returned.
        self._count = self._returned = 0
        # Number of the newest frame at the last seed or rename, and at the last seed.
        self._seeded = self._corrected = 0
        # Newest stamp before a reset [ns]; time until which such frames may arrive (monotonic) [s].
        self._before_reset = (-1, 0.0)
        self._subscriptions = [
            self.link.subscribe(kind, self.link.topic(half), _receiver(weakref.ref(self), half), qos.output())
            for half, kind in (('labels', Image), ('objects', TrackedObjectArray))
        ]

    def __enter__(self) -> XMemClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the graph; a waiting method raises `NodeError`."""
        self.link.close()
        with self._changed:
            self._changed.notify_all()

    def seed(self, shapes: Any, stamp: Any = None, *, timeout: float | None = None) -> list[int]:
        """Seed as `ServiceCalls.seed` does; `wait_tracked` then skips frames from before it."""
        ids = super().seed(shapes, stamp, timeout=timeout)
        self.link.catch_up(self._subscriptions, self._note_correction)
        return ids

    def reset(self, *, timeout: float | None = None) -> None:
        """Reset the tracker; ids start again at 1. Raises as `ServiceCalls.reset`."""
        super().reset(timeout=timeout)
        self.link.catch_up(self._subscriptions, self._forget)

    def load_memory(self, name: str, *, timeout: float | None = None) -> LoadedMemory:
        """Load a memory file in the node. Raises as `ServiceCalls.load_memory`."""
        loaded = super().load_memory(name, timeout=timeout)
        self.link.catch_up(self._subscriptions, self._forget)
        return loaded

    def latest(self, timeout: float | None = None) -> Frame | None:
        """Return the newest frame; None if the node has not published any yet.

        Returns at once if a frame has arrived or the node is visible; else waits for the node.

        Raises:
            NodeMissingError: no node of that name; the message lists the visible trackers.
            NodeError: the client is closed.
        """
        with self._changed:
            if self._latest is not None:
                return self._latest
        self.link.check_there(timeout)
        with self._changed:
            return self._latest

    def wait(self, timeout: float | None = None) -> Frame:
        """Return the newest frame; if it was returned before, wait for the next one.

        Raises:
            NodeTimeoutError: the node is active but published nothing.
            NodeError: the client is closed.
            NodeMissingError, NodeInactiveError.
        """
        waiting = _Waiting(self.link, timeout)
        with self._changed:
            waiting.until(self._changed, lambda: self._count > self._returned or self._closed)
            if self._latest is not None and self._count > self._returned and not self._closed:
                self._returned = self._count
                return self._latest
        raise waiting.silence()

    def wait_tracked(self, ids: int | Iterable[int], timeout: float | None = None) -> Frame:
        """Wait for a frame in which all of these objects are visible, and return it.

        A frame that `wait` or `wait_tracked` has returned is not returned again, so a loop gets
        each at most once. Frames from before the last `seed` or `rename` are skipped.

        Raises:
            NodeTimeoutError: an object is not visible, and the message gives the state of each; or
                the node published nothing.
            NodeError: the client is closed.
            NodeMissingError, NodeInactiveError.
        """
        return self._wait_visible(id_list(ids), timeout)

    def rename(self, object_id: int, name: str, timeout: float | None = None) -> None:
        """Rename an object: correct it with its own mask in the newest frame that shows it.

        Waits for such a frame, so an object that is out of sight cannot be renamed.

        Raises:
            SeedError: the name is empty, or the node refused the seed.
            UnknownObjectError: `object_id` is not an id.
            NodeTimeoutError: the object is not visible or not tracked; the message says which.
            NodeError: the client is closed.
            NodeMissingError, NodeInactiveError.
        """
        if not isinstance(name, str) or not name:
            raise SeedError(f'the name is {quoted(name)}: give a non-empty string')
        (one,) = id_list([object_id])
        end = time.monotonic() + (self.link.timeout if timeout is None else timeout)
        frame = self._wait_visible([one], timeout, returned_too=True)
        left = max(end - time.monotonic(), 0.0)
        super().seed({(one, name): frame[one].mask}, stamp=frame, timeout=left)
        self.link.catch_up(self._subscriptions, self._note_renaming)

    # --- internal

    @property
    def _closed(self) -> bool:
        return self.link.closed

    def _receive(self, half: str, message: Any) -> None:
        with self._changed:
            try:
                frame = self._pairs.add(half, message)
            except (FrameError, ValueError) as error:
                logger = self.link.node.get_logger()
                logger.warning(f'unreadable message on ~/{half}: {for_log(error)}', throttle_duration_sec=_LOG_S)
                return
            if frame is None or (frame.stamp_ns <= self._before_reset[0] and time.monotonic() < self._before_reset[1]):
                return
            self._latest, self._count = frame, self._count + 1
            self._changed.notify_all()

    def _wait_visible(self, wanted: list[int], timeout: float | None, *, returned_too: bool = False) -> Frame:
        """Wait as `wait_tracked`.

        `returned_too`: also accept a frame that was returned before, if no seed has corrected a
        mask since.
        """
        waiting = _Waiting(self.link, timeout)
        with self._changed:
            begun = self._count
            seen = self._corrected if returned_too else max(self._returned, self._seeded)
            while True:
                waiting.until(self._changed, lambda: self._count > seen or self._closed)  # noqa: B023
                frame, silent = self._latest, self._count == begun
                if self._closed or self._count <= seen:
                    break
                seen = self._count
                if frame is not None and _all_visible(frame, wanted):
                    if not returned_too:
                        self._returned = seen
                    return frame
        if self._closed or frame is None:
            raise waiting.silence()
        error = waiting.silence() if silent else NodeTimeoutError(f'waited {waiting.limit:g} s')
        raise type(error)(f'{_states_text(frame, wanted)}; {error}')

    def _note_correction(self) -> None:
        """Mark the masks and names of the frames so far as outdated."""
        with self._changed:
            self._seeded = self._corrected = self._count

    def _note_renaming(self) -> None:
        with self._changed:
            self._seeded = self._count

    def _forget(self) -> None:
        """Drop received frames and those in flight: their ids now mean other objects."""
        with self._changed:
            if self._latest is not None:
                self._before_reset = (self._latest.stamp_ns, time.monotonic() + _IN_FLIGHT_S)
            self._pairs.clear()
            self._latest, self._returned = None, self._count


class _Waiting:
    """Wait of one call for frames, up to its timeout.

    The node is asked for its state before the time is up, so that explaining a timeout takes no
    further time.

    Arguments:
        link: connection to the node.
        timeout: of the call [s]; None: the link's default.
    """

    def __init__(self, link: NodeLink, timeout: float | None) -> None:
        self._link = link
        self.limit = link.timeout if timeout is None else timeout
        self._end = time.monotonic() + self.limit
        self._question: StateQuestion | None = None

    def until(self, changed: threading.Condition, arrived: Callable[[], bool]) -> None:
        """Wait until `arrived` or the end of the time; `changed` is held."""
        if self._question is None:
            patience = self._end - min(_STATE_S, self.limit / 2) - time.monotonic()
            if changed.wait_for(arrived, max(patience, 0.0)):
                return
            self._question = self._link.ask_state()
        if changed.wait_for(arrived, max(self._end - time.monotonic(), 0.0)):
            self._question.take()

    def silence(self) -> NodeError:
        """Return the error that explains why no frame arrived."""
        name = self._link.name
        try:
            question = self._question or self._link.ask_state()
            state = question.take()
            if not state and not (question.visible and self._link.is_there()):
                return self._link.missing(self.limit)
        except NodeError as error:
            return error
        if not state:
            return NodeTimeoutError(
                f'{name} published no new frame within {self.limit:g} s and did not say its state: it may be busy or '
                'gone'
            )
        if state != 'active':
            return NodeInactiveError(
                f'{name} is {state} and tracks nothing: configure and activate it (ros2 lifecycle set {name} activate)'
            )
        return NodeTimeoutError(
            f'{name} is active but published no new frame within {self.limit:g} s: check that its camera publishes; '
            '/diagnostics shows its input'
        )


def _receiver(client: weakref.ref[XMemClient], half: str) -> Callable[[Any], None]:
    """Make a subscription callback that does not keep the client alive."""

    def receive(message: Any) -> None:
        one = client()
        if one is not None:
            one._receive(half, message)

    return receive


def _all_visible(frame: Frame, ids: list[int]) -> bool:
    items = [frame.get(object_id) for object_id in ids]
    return all(item is not None and item.visible for item in items)


def _states_text(frame: Frame, ids: list[int]) -> str:
    texts = []
    for object_id in ids:
        item = frame.get(object_id)
        texts.append(f'object {object_id} is {item.state.name if item else "not tracked"}')
    return ', '.join(texts)
