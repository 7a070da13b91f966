# SPDX-License-Identifier: MIT
"""Connection to the node, with an rclpy context, node and thread of its own."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import rclpy
from lifecycle_msgs.srv import GetState
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.exceptions import InvalidHandle, InvalidTopicNameException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.validate_full_topic_name import validate_full_topic_name

from xmem_ros.errors import NodeError, NodeMissingError, NodeTimeoutError, ParameterError, listed
from xmem_ros.node.graph import trackers

_numbers = itertools.count(1)
_LOG_S = 10.0  # between reports of exceptions
_CLOSED_S = 0.2  # longest time until a call notices that the link is closed
_POLL_S = 0.02  # between looks at the graph; rclpy's own wait looks every 0.25 s and overshoots by as much


class StateQuestion:
    """Request for the node's lifecycle state whose answer nobody waits for.

    Arguments:
        client: rclpy's client of the service.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self.visible = bool(client.service_is_ready())  # whether the node was in the graph when it was asked
        self._future = client.call_async(GetState.Request()) if self.visible else None

    def take(self) -> str:
        """End the request; return the state, such as active, or nothing if there is no answer."""
        future, self._future = self._future, None
        if future is None:
            return ''
        if future.done():
            return str(future.result().current_state.label)
        self._client.remove_pending_request(future)
        return ''


class NodeLink:
    """Thread-safe access to the node's services and topics.

    It has its own rclpy context. It therefore works in programs with and without rclpy, and the
    remappings of the program do not apply to it.

    Arguments:
        name: full name of the tracker's node, such as /xmem or /left/xmem.
        timeout: default timeout of a call [s].

    Raises:
        ParameterError: `name` is not a valid node name.
    """

    def __init__(self, name: str = '/xmem', *, timeout: float = 10.0) -> None:
        self.name = _full_name(name)
        self.timeout = timeout
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context)
        self.node = rclpy.create_node(
            f'xmem_client_{os.getpid()}_{next(_numbers)}',
            context=self._context,
            start_parameter_services=False,
            enable_rosout=False,
        )
        self._executor = executor = SingleThreadedExecutor(context=self._context)
        executor.add_node(self.node)
        thread = threading.Thread(target=_spin, args=(executor, self.node, self._context), daemon=True)
        thread.start()
        # Runs at interpreter exit, too, where a spinning thread would crash.
        self._end = weakref.finalize(self, _close, executor, thread, self.node, self._context)

    def close(self) -> None:
        """Leave the graph."""
        self._end()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return not self._end.alive

    def topic(self, name: str) -> str:
        """Return the full name of a topic or service of the node."""
        return f'{self.name}/{name}'

    def subscribe(self, kind: type, topic: str, callback: Any, qos: Any) -> Any:
        """Subscribe to a topic by its full name; `callback` runs in this link's thread."""
        # A group of its own: if a subscription is destroyed just before its callback would run,
        # rclpy blocks its group forever.
        group = MutuallyExclusiveCallbackGroup()
        with self._while_open():
            return self.node.create_subscription(kind, topic, callback, qos, callback_group=group)

    def catch_up(self, subscriptions: Iterable[Any], then: Callable[[], None]) -> None:
        """Process waiting messages of these subscriptions, then call `then`, in the link's thread.

        Needed after a call: the executor may deliver a response before messages that arrived
        earlier. Blocks until done; returns at once if the link is closed.
        """
        done = threading.Event()

        def work() -> None:
            try:
                for subscription in subscriptions:
                    _process_waiting(subscription)
            finally:
                then()
                done.set()

        with contextlib.suppress(NodeError), self._while_open():
            self._executor.create_task(work)
            while not done.wait(_CLOSED_S):
                self._check_open()

    def call(
        self, kind: Any, service: str, request: Any, timeout: float | None = None, *, found_within: float | None = None
    ) -> Any:
        """Call a service of the node and return its response.

        Args:
            kind: class of the service.
            service: name of the service, relative to the node's name, such as seed.
            request: request of that class.
            timeout: timeout of discovery and response together [s]; None: the link's default.
            found_within: shorter timeout of discovery alone [s].

        Raises:
            NodeMissingError: the service was not found.
            NodeTimeoutError: the service did not respond.
            NodeError: the link is closed.
        """
        limit = self.timeout if timeout is None else timeout
        end = time.monotonic() + limit
        client = self._client(kind, service)
        self._wait_for(client, limit if found_within is None else min(limit, found_within))
        done = threading.Event()
        with self._while_open():
            future = client.call_async(request)
            future.add_done_callback(lambda _: done.set())
            while not done.wait(min(max(end - time.monotonic(), 0.0), _CLOSED_S)):
                self._check_open()
                if time.monotonic() >= end:
                    client.remove_pending_request(future)
                    raise NodeTimeoutError(
                        f'{self.topic(service)} did not respond within {limit:g} s: the node may be busy and still '
                        'execute the request; check the tracked objects (~/objects, `latest`) before repeating it '
                        'with a longer timeout'
                    )
        return future.result()

    def state(self, timeout: float | None = None) -> str:
        """Return the node's lifecycle state, such as active; raises as `call`."""
        return str(self.call(GetState, 'get_state', GetState.Request(), timeout).current_state.label)

    def ask_state(self) -> StateQuestion:
        """Request the node's lifecycle state and go on; raises `NodeError` if closed."""
        client = self._client(GetState, 'get_state')
        with self._while_open():
            return StateQuestion(client)

    def check_there(self, timeout: float | None = None) -> None:
        """Wait until the node is visible in the graph.

        Args:
            timeout: maximum wait [s]; None: the link's default. Discovery of a new node, or after
                creating a link, takes a few tenths of a second.

        Raises:
            NodeMissingError: the node is missing; the message lists the visible trackers.
            NodeError: the link is closed.
        """
        self._wait_for(self._client(GetState, 'get_state'), self.timeout if timeout is None else timeout)

    def is_there(self) -> bool:
        """Whether the node's services are visible now."""
        with self._while_open():
            return bool(self._client(GetState, 'get_state').service_is_ready())

    def _client(self, kind: Any, service: str) -> Any:
        with self._lock, self._while_open():
            if service not in self._clients:
                self._clients[service] = self.node.create_client(kind, self.topic(service))
            return self._clients[service]

    def _wait_for(self, client: Any, limit: float) -> None:
        end = time.monotonic() + limit
        with self._while_open():
            while not client.service_is_ready():
                self._check_open()
                left = end - time.monotonic()
                if left <= 0:
                    raise self.missing(limit)
                time.sleep(min(left, _POLL_S))

    @contextlib.contextmanager
    def _while_open(self) -> Iterator[None]:
        """Raise `NodeError` in place of the rclpy errors that closing the link causes meanwhile."""
        self._check_open()
        try:
            yield
        except NodeError:
            raise
        except Exception:
            self._check_open()
            raise

    def _check_open(self) -> None:
        if self.closed:
            raise NodeError('the connection is closed: create a new client')

    def others(self) -> list[str]:
        """Return the names of the visible, configured trackers."""
        with self._while_open():
            return [name for name in trackers(self.node) if name.isprintable()]

    def missing(self, waited: float) -> NodeMissingError:
        """Return the error that the node was not found in `waited` [s]."""
        others = self.others()
        known = f'visible trackers: {listed(others)}' if others else 'no tracker is visible'
        return NodeMissingError(
            f'no node {self.name} was found within {waited:g} s; {known}. Start it (ros2 launch xmem_ros '
            f'track.launch.py), give its full name, or compare ROS_DOMAIN_ID ({os.environ.get("ROS_DOMAIN_ID", "0")} '
            'here)'
        )


def _full_name(name: str) -> str:
    full = f'/{name.strip("/")}' if isinstance(name, str) else ''
    try:
        validate_full_topic_name(full)
    except InvalidTopicNameException as error:
        raise ParameterError(f'{name!r} is not a valid node name: give one such as /xmem or /left/xmem') from error
    return full


def _process_waiting(subscription: Any) -> None:
    """Process waiting messages as the executor does."""
    for _ in range(subscription.qos_profile.depth):  # no more can wait
        with subscription.handle:
            taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
        if taken is None:
            return
        subscription.callback(taken[0])


def _spin(executor: SingleThreadedExecutor, node: Any, context: Any) -> None:
    while context.ok():
        try:
            executor.spin()
        except ExternalShutdownException:
            return
        except InvalidHandle:  # rclpy does not protect its wait set from another thread that destroys an entity
            continue
        except Exception:
            if context.ok():
                # Throttled, so that a sender of unreadable messages cannot fill the log.
                node.get_logger().error(traceback.format_exc(), throttle_duration_sec=_LOG_S)


def _close(executor: SingleThreadedExecutor, thread: threading.Thread, node: Any, context: Any) -> None:
    context.try_shutdown()  # wakes the thread
    if thread is not threading.current_thread():
        thread.join(5)
    executor.shutdown(timeout_sec=1.0)
    with contextlib.suppress(InvalidHandle):
        node.destroy_node()
