# SPDX-License-Identifier: MIT
"""Workarounds for rclpy: services that raise, idle turns of the executor, logging, callback groups.

Each says what rclpy does and when the workaround can go.
"""

from __future__ import annotations

import logging
import time
import traceback
from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import MultiThreadedExecutor

from xmem_ros.errors import ErrorCode
from xmem_ros.node import qos
from xmem_ros.outside_text import for_log

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node
    from rclpy.subscription import Subscription

PAUSE_S = 1e-4


class PatientExecutor(MultiThreadedExecutor):
    """Lets a thread of the pool begin before it looks again.

    rclpy hands over what is ready and looks again at once. Until a thread has begun with it, it finds the same again
    and hands it over again, hundreds of times where the interpreter's lock is busy, and the callback begins the later.
    With images that come one after the other, as in `benchmarks/soak.py --node`, half as many were tracked.
    """

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """As rclpy's, and then a pause."""
        super().spin_once(timeout_sec)
        time.sleep(PAUSE_S)


def guard_services(node: Node) -> None:
    """Have every service of the node answer, whatever its callback raises.

    rclpy raises, in the services that it makes for each node, for parameters of a type that there is not, and, on
    Humble and Jazzy, for transitions that the state does not allow.
    """
    for service in node.services:
        service.callback = _guarded(node, service.srv_name, service.callback)


def _guarded(node: Node, name: str, callback: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def guarded(request: Any, response: Any) -> Any:
        try:
            return callback(request, response)
        except Exception as error:
            reason = for_log(f'{type(error).__name__}: {error}')
            node.get_logger().error(f'a request to {name} failed: {reason}')
            node.get_logger().debug(traceback.format_exc())
            refuse(request, response, reason)
            return response

    return guarded


def refuse(request: Any, response: Any, reason: str) -> None:
    """Mark a response as failed, as far as it has fields for that."""
    if hasattr(response, 'success'):
        response.success = False
    if hasattr(response, 'error_code'):
        response.error_code, response.message = ErrorCode.INTERNAL, reason
    if hasattr(response, 'results') and hasattr(request, 'parameters'):
        response.results = [SetParametersResult(successful=False, reason=reason) for _ in request.parameters]
    elif hasattr(response, 'result') and hasattr(request, 'parameters'):
        response.result = SetParametersResult(successful=False, reason=reason)


def subscribe(
    node: Node, kind: type, topic: str, take: Callable[[Any], None], depth: int, *, raw: bool = False
) -> Subscription:
    """Subscribe, however it is offered, with the user's `qos_overrides`; raises `ParameterError` for bad ones.

    Arguments:
        node: that subscribes.
        kind: of the messages.
        topic: fully resolved.
        take: gets each message, one at a time.
        depth: messages that may wait.
        raw: `take` gets bytes, as they came.
    """
    profile = qos.beside_images(depth)
    qos.override(profile, {name: item.value for name, item in node._parameter_overrides.items()}, topic)
    # A group of its own, and no events: see ImageSource and main.
    return node.create_subscription(
        kind,
        topic,
        take,
        profile,
        raw=raw,
        callback_group=MutuallyExclusiveCallbackGroup(),
        event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
    )


class NodeLogHandler(logging.Handler):
    """Hands records on to a logger of rclpy.

    Arguments:
        logger: what `Node.get_logger` gives.
    """

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Say it, as severe as it is."""
        try:
            text = for_log(self.format(record))
            # a line for each: rclpy refuses another severity from the same place in the code
            if record.levelno >= logging.ERROR:
                self._logger.error(text)
            elif record.levelno >= logging.WARNING:
                self._logger.warning(text)
            elif record.levelno >= logging.INFO:
                self._logger.info(text)
            else:
                self._logger.debug(text)
        except Exception:  # as handlers do: what is said must not end what is done
            self.handleError(record)


def log_to(logger: Any) -> None:
    """From now on, what the package logs goes to a logger of rclpy; to be called once in a process."""
    package = logging.getLogger('xmem_ros')
    package.addHandler(NodeLogHandler(logger))
    package.setLevel(logging.DEBUG)  # the logger of rclpy drops what is not to be heard
    package.propagate = False
