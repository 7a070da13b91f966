# SPDX-License-Identifier: MIT
"""A connection to the node: a context, a node and a thread of its own, so that it gets in nobody's way."""

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
_LOOK_S = 0.01  # between looks whether somebody hears a topic
_LOG_S = 10.0  # between two reports of faults
_CLOSED_S = 0.2  # after which a call notices that the link is closed


class NodeLink:
    """Calls services of the node and subscribes to its topics, from any thread.

    It has an rclpy context of its own: whether and how the program uses rclpy otherwise makes no difference, and what
    was remapped for the program's nodes does not apply to it.

    Arguments:
        name: of the tracker's node, such as /xmem or /left/xmem.
        timeout: the longest that a call waits, unless it says otherwise [s].

    Raises:
        ParameterError: a name that no node can have.
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
        # Also when the program ends: a thread that spins meanwhile would crash it.
        self._end = weakref.finalize(self, _close, executor, thread, self.node, self._context)

    def close(self) -> None:
        """Leave the graph."""
        self._end()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return not self._end.alive

    def topic(self, name: str) -> str:
        """The full name of a topic or service of the node."""
        return f'{self.name}/{name}'

    def subscribe(self, kind: type, topic: str, heard: Any, qos: Any) -> Any:
        """Have `heard` called, in this link's thread, with every message of a topic, named in full."""
        # A group of its own: rclpy leaves a group busy for good whose entity was destroyed just before its turn.
        group = MutuallyExclusiveCallbackGroup()
        with self._while_open():
            return self.node.create_subscription(kind, topic, heard, qos, callback_group=group)

    def catch_up(self, subscriptions: Iterable[Any], then: Callable[[], None]) -> None:
        """Have what has come on these subscriptions heard, and then call something, both in this link's thread.

        The executor reads one message of a topic by turns, and so may hand on an answer before what was sent earlier.
        Returns when it is done, and at once where the link is closed.
        """
        done = threading.Event()

        def work() -> None:
            try:
                for subscription in subscriptions:
                    _hear_waiting(subscription)
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
            service: name below the node's, such as seed.
            request: of that class.
            timeout: for the service to be there and to answer [s]; None: as the link was made.
            found_within: for the service to be there [s], where that is to be less.

        Raises:
            NodeMissingError: no such service.
            NodeTimeoutError: no answer.
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
                        f'{self.topic(service)} did not answer within {limit:g} s: the node may be busy, and still do '
                        'what it was asked for; see what it tracks (~/objects, `latest`) before asking again, with '
                        'more time'
                    )
        return future.result()

    def state(self, timeout: float | None = None) -> str:
        """The node's lifecycle state, such as active; raises as `call`."""
        return str(self.call(GetState, 'get_state', GetState.Request(), timeout).current_state.label)

    def check_there(self, timeout: float | None = None) -> None:
        """Return at once where the node can be seen; where it cannot, wait for it.

        Args:
            timeout: the longest to wait [s]; None: as the link was made. A node that has just started, or a link that
                was just made, takes some tenths of a second to be seen.

        Raises:
            NodeMissingError: it is not there; names those that are. NodeError: the link is closed.
        """
        self._wait_for(self._client(GetState, 'get_state'), self.timeout if timeout is None else timeout)

    def is_there(self) -> bool:
        """Whether the node's services can be seen now."""
        with self._while_open():
            return bool(self._client(GetState, 'get_state').service_is_ready())

    def _client(self, kind: Any, service: str) -> Any:
        with self._lock, self._while_open():
            if service not in self._clients:
                self._clients[service] = self.node.create_client(kind, self.topic(service))
            return self._clients[service]

    def _wait_for(self, client: Any, limit: float) -> None:
        with self._while_open():
            if client.service_is_ready() or client.wait_for_service(limit):
                return
            self._check_open()
            raise NodeMissingError(self._missing(limit))

    @contextlib.contextmanager
    def _while_open(self) -> Iterator[None]:
        """What rclpy raises, of many kinds, because the link is closed meanwhile becomes `NodeError`."""
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
            raise NodeError('the connection is closed: make another one')

    def others(self) -> list[str]:
        """Names of the trackers that can be seen and are configured."""
        with self._while_open():
            return [name for name in trackers(self.node) if name.isprintable()]

    def _missing(self, waited: float) -> str:
        others = self.others()
        known = f'trackers that are there: {listed(others)}' if others else 'no tracker is there at all'
        return (
            f'no node {self.name} was found within {waited:g} s; {known}. Start it (ros2 launch xmem_ros '
            f'track.launch.py), give its full name, or compare ROS_DOMAIN_ID ({os.environ.get("ROS_DOMAIN_ID", "0")} '
            'here)'
        )


def _full_name(name: str) -> str:
    full = f'/{name.strip("/")}' if isinstance(name, str) else ''
    try:
        validate_full_topic_name(full)
    except InvalidTopicNameException as error:
        raise ParameterError(f'{name!r} is not the name of a node: give one such as /xmem or /left/xmem') from error
    return full


def _hear_waiting(subscription: Any) -> None:
    """Do as the executor does with the messages that lie there."""
    for _ in range(subscription.qos_profile.depth):  # no more can have waited
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
        except InvalidHandle:  # rclpy does not guard its wait set against what another thread destroys
            continue
        except Exception:
            if context.ok():
                # at most now and then: whoever sends what cannot be read must not fill the log
                node.get_logger().error(traceback.format_exc(), throttle_duration_sec=_LOG_S)


def _close(executor: SingleThreadedExecutor, thread: threading.Thread, node: Any, context: Any) -> None:
    context.try_shutdown()  # wakes the thread
    if thread is not threading.current_thread():
        thread.join(5)
    executor.shutdown(timeout_sec=1.0)
    with contextlib.suppress(InvalidHandle):
        node.destroy_node()
