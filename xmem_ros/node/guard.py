# SPDX-License-Identifier: MIT
"""No request ends the node: rclpy's own services let some errors out, which would end the executor."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import SetParametersResult

from xmem_ros.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node


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
            reason = f'{type(error).__name__}: {error}'
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
