# SPDX-License-Identifier: MIT
"""Workarounds for rclpy, each with the upstream change that would end it."""

from __future__ import annotations

import logging
import time
import traceback
from typing import TYPE_CHECKING, Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import MultiThreadedExecutor

from xmem_ros.errors import ErrorCode
from xmem_ros.outside_text import for_log

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node

__all__ = [
    'NodeLogHandler',
    'PatientExecutor',
    'forward_logs_to',
    'guard_services',
    'mark_failed',
    'parameter_overrides',
]

PAUSE_S = 1e-4
_TRANSITIONS = {
    Transition.TRANSITION_CONFIGURE: 'configure',
    Transition.TRANSITION_CLEANUP: 'cleanup',
    Transition.TRANSITION_ACTIVATE: 'activate',
    Transition.TRANSITION_DEACTIVATE: 'deactivate',
}


class PatientExecutor(MultiThreadedExecutor):
    """A multi-threaded executor that pauses after each turn.

    rclpy submits a ready callback to its thread pool and looks for ready callbacks again at once.
    Until a thread has begun with it, the same callback is found and submitted again, hundreds of
    times while the interpreter's lock is busy. With images in quick succession
    (`benchmarks/soak.py --node`) only half as many were tracked.

    Ends with: ros2/rclpy#1452, fixed by ros2/rclpy#1547 (after Kilted's 9.1.2).
    """

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Execute one turn, then pause."""
        super().spin_once(timeout_sec)
        time.sleep(PAUSE_S)


def guard_services(node: Node, on_refused_transition: Callable[[str], None] = lambda _: None) -> None:
    """Make every service of the node answer, whatever its callback raises.

    The services that rclpy creates for each node raise, which ends the node:

    - for a transition that the state does not allow, on Humble and Jazzy;
    - for a parameter of an unknown type, on every distribution (as ros2/rclcpp#3257 in C++).

    `on_refused_transition` gets the name of each transition that was requested and refused.

    Ends with: ros2/rclpy#1209, fixed by ros2/rclpy#1319, for transitions. For parameters, with a
    counterpart in rclpy of ros2/rclcpp#3256, which it lacks. `Service.callback` is public, but its
    assignment is not documented.
    """
    for service in node.services:
        service.callback = _guarded(node, service.srv_name, service.callback, on_refused_transition)


def _guarded(
    node: Node, name: str, callback: Callable[[Any, Any], Any], on_refused_transition: Callable[[str], None]
) -> Callable[[Any, Any], Any]:
    def guarded(request: Any, response: Any) -> Any:
        try:
            response = callback(request, response)
        except Exception as error:
            reason = for_log(f'{type(error).__name__}: {error}')
            node.get_logger().error(f'a request to {name} failed: {reason}')
            node.get_logger().debug(traceback.format_exc())
            mark_failed(request, response, reason)
        if isinstance(request, ChangeState.Request) and not response.success:
            transition = request.transition
            on_refused_transition(transition.label or _TRANSITIONS.get(transition.id, str(transition.id)))
        return response

    return guarded


def mark_failed(request: Any, response: Any, reason: str) -> None:
    """Mark a response as failed, as far as it has fields for that."""
    if hasattr(response, 'success'):
        response.success = False
    if hasattr(response, 'error_code'):
        response.error_code, response.message = ErrorCode.INTERNAL, reason
    if hasattr(response, 'results') and hasattr(request, 'parameters'):
        response.results = [SetParametersResult(successful=False, reason=reason) for _ in request.parameters]
    elif hasattr(response, 'result') and hasattr(request, 'parameters'):
        response.result = SetParametersResult(successful=False, reason=reason)


def parameter_overrides(node: Node) -> dict[str, Any]:
    """Return the parameters given at the start, declared or not: name → value.

    Ends with: ros2/rclpy#1460 (open). rclpy's `automatically_declare_parameters_from_overrides`
    would tell the same, but raises for an empty list, such as another node's in a shared file.
    """
    return {name: parameter.value for name, parameter in node._parameter_overrides.items()}


class NodeLogHandler(logging.Handler):
    """Forwards records of Python's logging to a logger of rclpy.

    Ends with: a handler for Python's logging in rclpy, which has none.

    Arguments:
        logger: as returned by `Node.get_logger`.
    """

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record with its severity."""
        try:
            text = for_log(self.format(record))
            # One line for each severity: rclpy refuses another severity from the same line of code.
            if record.levelno >= logging.ERROR:
                self._logger.error(text)
            elif record.levelno >= logging.WARNING:
                self._logger.warning(text)
            elif record.levelno >= logging.INFO:
                self._logger.info(text)
            else:
                self._logger.debug(text)
        except Exception:  # as in every handler: a failed log line must not end the work
            self.handleError(record)


def forward_logs_to(logger: Any) -> None:
    """Send the package's log records to a logger of rclpy; call once in a process."""
    package = logging.getLogger('xmem_ros')
    package.addHandler(NodeLogHandler(logger))
    package.setLevel(logging.DEBUG)  # rclpy's logger filters by its own level
    package.propagate = False
