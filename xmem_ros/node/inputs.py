# SPDX-License-Identifier: MIT
"""Subscriptions beside that of the images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup

from xmem_ros.node import qos

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node
    from rclpy.subscription import Subscription


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
