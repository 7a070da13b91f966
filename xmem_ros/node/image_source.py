# SPDX-License-Identifier: MIT
"""The image subscription, and the watch that reports missing images and mismatched QoS."""

from __future__ import annotations

import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from xmem_ros.errors import listed
from xmem_ros.node import qos
from xmem_ros.node.graph import cameras
from xmem_ros.node.rclpy_workarounds import parameter_overrides

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node
    from rclpy.subscription import Subscription

    from xmem_ros.parameters.table import Parameters

WARNING_INTERVAL_S = 10.0


class ImageSource:
    """Subscribes to `image`.

    BEST_AVAILABLE is resolved once, from the publishers at the time of the subscription. The node
    therefore subscribes again when a publisher with a mismatched QoS appears.

    Arguments:
        node: the subscribing node.
        parameters: returns the current parameters.
        on_image: gets each Image or CompressedImage.
    """

    def __init__(
        self, node: Node, parameters: Callable[[], Parameters], on_image: Callable[[Image | CompressedImage], None]
    ) -> None:
        self._node, self._parameters, self._on_image = node, parameters, on_image
        self._lock = threading.RLock()  # the watch must not subscribe again during a deactivation
        self._subscription: Subscription | None = None
        self._warned_at = 0.0
        self._last_image_at = time.monotonic()
        self.lost = 0  # images that the middleware reported as lost
        # As in image_transport, a remap of `image` also moves the compressed images, unless they
        # have a remap of their own.
        compressed = node.resolve_topic_name('image/compressed')
        raw = node.resolve_topic_name('image')
        remapped = compressed != node.resolve_topic_name('image/compressed', only_expand=True)
        self._topics = {'raw': raw, 'compressed': compressed if remapped else f'{raw}/compressed'}

    @property
    def topic(self) -> str:
        """The resolved topic of the images."""
        return self._topics[self._parameters().image_transport]

    def open(self) -> None:
        """Subscribe."""
        with self._lock:
            self._last_image_at = time.monotonic()
            self._open()

    def _open(self) -> None:
        parameters = self._parameters()
        kind = CompressedImage if parameters.image_transport == 'compressed' else Image
        track_all = parameters.queue == 'all'
        profile = qos.every_image(parameters.queue_depth) if track_all else qos.newest_image()
        qos.override(profile, parameter_overrides(self._node), self.topic)
        # A group of its own: rclpy may leave the group of a destroyed subscription busy
        # (ros2/rclpy#1206, open).
        group = MutuallyExclusiveCallbackGroup()
        options: dict[str, Any] = {'callback_group': group}
        events = SubscriptionEventCallbacks(message_lost=self._count_lost, incompatible_qos=self._ignore_event)
        try:
            self._subscription = self._node.create_subscription(
                kind, self.topic, self._on_message, profile, event_callbacks=events, **options
            )
        except UnsupportedEventTypeError:
            self._subscription = self._node.create_subscription(kind, self.topic, self._on_message, profile, **options)

    def close(self) -> None:
        """Unsubscribe."""
        with self._lock:
            if self._subscription is not None:
                self._node.destroy_subscription(self._subscription)
                self._subscription = None

    @property
    def silent_for(self) -> float:
        """Seconds since the last image, or since `open`."""
        return time.monotonic() - self._last_image_at

    def watch(self) -> None:
        """Subscribe again if that helps, else warn of missing images; call about once a second."""
        try:
            self._watch()
        except Exception:  # an exception that leaves a callback ends the executor and the node
            self._node.get_logger().error(
                f'the subscription cannot be watched: {traceback.format_exc()}',
                throttle_duration_sec=WARNING_INTERVAL_S,
            )

    def _watch(self) -> None:
        with self._lock:
            if self._subscription is None:
                return
            if self.silent_for > 1.0 and self._would_match_if_resubscribed():
                self.close()
                self._open()
        limit = self._parameters().no_image_warning_after
        now = time.monotonic()
        if limit and self.silent_for > limit and now - self._warned_at > WARNING_INTERVAL_S:
            self._warned_at = now
            self._node.get_logger().warning(self.silence_report())

    def _on_message(self, message: Image | CompressedImage) -> None:
        self._last_image_at = time.monotonic()
        self._on_image(message)

    def _count_lost(self, event: Any) -> None:
        self.lost += event.total_count_change

    def _ignore_event(self, _: Any) -> None:
        """Replace rclpy's warning: `watch` reports mismatched QoS."""

    def _requested(self) -> Any:
        """Return the QoS in force, BEST_AVAILABLE resolved; None if the middleware has none."""
        for info in self._node.get_subscriptions_info_by_topic(self.topic):
            if info.node_name == self._node.get_name() and info.node_namespace == self._node.get_namespace():
                return info.qos_profile
        return None

    def _would_match_if_resubscribed(self) -> bool:
        subscription, requested = self._subscription, self._requested()
        if qos.BEST_AVAILABLE is None or subscription is None or requested is None:
            return False
        if (
            subscription.qos_profile.reliability != qos.BEST_AVAILABLE
            or requested.reliability != ReliabilityPolicy.RELIABLE
        ):
            return False
        offers = self._node.get_publishers_info_by_topic(self.topic)
        return any(offer.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT for offer in offers)

    def silence_report(self) -> str:
        """Describe the missing images: topic, publishers with their QoS, and what to do."""
        offers = self._node.get_publishers_info_by_topic(self.topic)
        requested = self._requested()
        asked = f'requested QoS {qos.describe(requested)}' if requested is not None else 'requested QoS unknown'
        silence = f'no image on {self.topic} for {self.silent_for:.0f} s'
        if not offers:
            for transport, topic in self._topics.items():
                if topic != self.topic and self._node.count_publishers(topic):
                    return (
                        f'{silence}: nobody publishes it, but {topic} is published: set image_transport to {transport}'
                    )
            name = self._node.get_namespace().rstrip('/') + '/image'
            return (
                f'{silence}: nobody publishes it; {asked}. Start the camera, or give its topic: image:=/its/topic to '
                f'track.launch.py, -r {name}:=/its/topic to the node. {self._other_topics()}'
            )
        offered = '; '.join(
            f'{offer.node_namespace.rstrip("/")}/{offer.node_name} offers {offer.topic_type} with '
            f'{qos.describe(offer.qos_profile)}'
            for offer in offers
        )
        return (
            f'{silence}: {offered}; {asked}. If type and QoS match, the camera sends nothing; otherwise set '
            f'qos_overrides.{self.topic}.subscription.reliability'
        )

    def _other_topics(self) -> str:
        """List the topics with images."""
        found = cameras(self._node)
        return f'Topics with images: {listed(found)}' if found else 'No topic has images at the moment'
