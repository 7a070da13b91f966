# SPDX-License-Identifier: MIT
"""Subscription that adapts its reliability to the publishers of its topic."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import ReliabilityPolicy

from xmem_ros.node import qos
from xmem_ros.node.rclpy_workarounds import parameter_overrides

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node
    from rclpy.qos import QoSProfile
    from rclpy.subscription import Subscription

_SILENT_S = 1.0  # without messages, before a mismatch counts


class BestAvailableSubscription:
    """A subscription that is reliable if every publisher is, else best effort.

    The middleware resolves BEST_AVAILABLE once, from the publishers at the time of the
    subscription. `watch` therefore subscribes again when it would resolve differently: a reliable
    subscription receives nothing from a best-effort publisher, and a best-effort one loses large
    messages of a reliable publisher.

    Arguments:
        node: the subscribing node.
        on_message: gets each message, one at a time.
        raw: pass serialized bytes to `on_message`.
        count_lost: count the messages that the middleware reports as lost. The subscription then
            has QoS events, for which rclpy may raise `InvalidHandle` when it is destroyed
            (ros2/rclpy#1142, open).
    """

    def __init__(
        self, node: Node, on_message: Callable[[Any], None], *, raw: bool = False, count_lost: bool = False
    ) -> None:
        self._node, self._on_message, self._raw, self._count_lost = node, on_message, raw, count_lost
        self._lock = threading.RLock()  # the watch must not subscribe again while another thread unsubscribes
        self._subscription: Subscription | None = None
        self._wanted: tuple[type, str, QoSProfile] | None = None  # type, topic, QoS before overrides
        self._last_message_at = time.monotonic()
        self.lost = 0
        """Messages that the middleware reported as lost; counted with `count_lost`."""

    def open(self, kind: type, topic: str, profile: QoSProfile) -> None:
        """Subscribe with a profile and the user's `qos_overrides`.

        Raises:
            ParameterError: an invalid override.
        """
        qos.override(profile, parameter_overrides(self._node), topic)
        with self._lock:
            self._wanted = kind, topic, profile
            self._last_message_at = time.monotonic()
            self._subscribe(kind, topic, profile)

    def close(self) -> None:
        """Unsubscribe."""
        with self._lock:
            self._wanted = None
            self._unsubscribe()

    @property
    def qos_profile(self) -> QoSProfile | None:
        """The QoS that was asked for, BEST_AVAILABLE unresolved; None while not subscribed."""
        subscription = self._subscription
        return subscription.qos_profile if subscription is not None else None

    @property
    def silent_for(self) -> float:
        """Seconds since the last message, or since `open`."""
        return time.monotonic() - self._last_message_at

    def watch(self) -> None:
        """Subscribe again if that helps; call about once a second."""
        with self._lock:
            if self._wanted is not None and self._would_resolve_differently():
                self._unsubscribe()
                self._subscribe(*self._wanted)

    def offers(self) -> str:
        """Describe the publishers with their QoS, and the QoS of this subscription.

        Empty if nobody publishes the topic.
        """
        wanted = self._wanted
        if wanted is None:
            return ''
        offers = self._node.get_publishers_info_by_topic(wanted[1])
        described = '; '.join(
            f'{offer.node_namespace.rstrip("/")}/{offer.node_name} offers {offer.topic_type} with '
            f'{qos.describe(offer.qos_profile)}'
            for offer in offers
        )
        return f'{described}; {self.requested()}' if described else ''

    def requested(self) -> str:
        """Describe the QoS of this subscription."""
        profile = self._resolved()
        return f'requested QoS {qos.describe(profile)}' if profile is not None else 'requested QoS unknown'

    def _subscribe(self, kind: type, topic: str, profile: QoSProfile) -> None:
        options: dict[str, Any] = {
            # A group of its own: rclpy may leave the group of a destroyed subscription busy
            # (ros2/rclpy#1206, open).
            'callback_group': MutuallyExclusiveCallbackGroup(),
            'raw': self._raw,
        }
        silent = SubscriptionEventCallbacks(use_default_callbacks=False)
        events = silent
        if self._count_lost:
            # The second replaces rclpy's warning: `watch` and `offers` deal with mismatched QoS.
            events = SubscriptionEventCallbacks(message_lost=self._add_lost, incompatible_qos=lambda _: None)
        arguments = (kind, topic, self._take, profile)
        try:
            self._subscription = self._node.create_subscription(*arguments, event_callbacks=events, **options)
        except UnsupportedEventTypeError:
            self._subscription = self._node.create_subscription(*arguments, event_callbacks=silent, **options)

    def _unsubscribe(self) -> None:
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _take(self, message: Any) -> None:
        self._last_message_at = time.monotonic()
        self._on_message(message)

    def _add_lost(self, event: Any) -> None:
        self.lost += event.total_count_change

    def _resolved(self) -> QoSProfile | None:
        """Return the QoS in force, BEST_AVAILABLE resolved; None if the middleware has none."""
        wanted = self._wanted
        if wanted is None:
            return None
        for info in self._node.get_subscriptions_info_by_topic(wanted[1]):
            if info.node_name == self._node.get_name() and info.node_namespace == self._node.get_namespace():
                return info.qos_profile
        return None

    def _would_resolve_differently(self) -> bool:
        asked, resolved = self.qos_profile, self._resolved()
        if qos.BEST_AVAILABLE is None or asked is None or resolved is None or self._wanted is None:
            return False
        if asked.reliability != qos.BEST_AVAILABLE:
            return False
        offers = self._node.get_publishers_info_by_topic(self._wanted[1])
        best_effort = [offer.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT for offer in offers]
        if resolved.reliability == ReliabilityPolicy.RELIABLE:
            # Messages of another, reliable publisher are not given up for one that is best effort.
            return any(best_effort) and self.silent_for > _SILENT_S
        return bool(offers) and not any(best_effort)
