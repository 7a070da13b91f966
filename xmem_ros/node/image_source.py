# SPDX-License-Identifier: MIT
"""The image subscription, and the watch over it: no images, or a publisher whose QoS does not match, is said aloud."""

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

    With BEST_AVAILABLE, what is asked for is settled when the subscription is made, by the publishers of that moment;
    so the subscription is made again when a publisher comes that does not match.

    Arguments:
        node: that subscribes.
        parameters: gives the parameters as they are now.
        on_image: gets each message, an Image or a CompressedImage.
    """

    def __init__(
        self, node: Node, parameters: Callable[[], Parameters], on_image: Callable[[Image | CompressedImage], None]
    ) -> None:
        self._node, self._parameters, self._on_image = node, parameters, on_image
        self._lock = threading.RLock()  # the watch must not subscribe again while the node is being deactivated
        self._subscription: Subscription | None = None
        self._warned = 0.0
        self._heard = time.monotonic()
        self.lost = 0  # images that the middleware knows it lost
        # a remap of `image` moves the compressed images with it, as image_transport does; one of their own has its way
        compressed = node.resolve_topic_name('image/compressed')
        raw = node.resolve_topic_name('image')
        moved = compressed != node.resolve_topic_name('image/compressed', only_expand=True)
        self._topics = {'raw': raw, 'compressed': compressed if moved else f'{raw}/compressed'}

    @property
    def topic(self) -> str:
        """Where images come from, resolved."""
        return self._topics[self._parameters().image_transport]

    def open(self) -> None:
        """Subscribe."""
        with self._lock:
            self._heard = time.monotonic()
            self._open()

    def _open(self) -> None:
        parameters = self._parameters()
        kind = CompressedImage if parameters.image_transport == 'compressed' else Image
        everything = parameters.queue == 'all'
        profile = qos.every_image(parameters.queue_depth) if everything else qos.newest_image()
        given = {name: item.value for name, item in self._node._parameter_overrides.items()}
        qos.override(profile, given, self.topic)
        # A group of its own: rclpy leaves a group busy for good whose entity was destroyed just before its turn.
        group = MutuallyExclusiveCallbackGroup()
        options: dict[str, Any] = {'callback_group': group}
        events = SubscriptionEventCallbacks(message_lost=self._count_lost, incompatible_qos=self._ignore)
        try:
            self._subscription = self._node.create_subscription(
                kind, self.topic, self._take, profile, event_callbacks=events, **options
            )
        except UnsupportedEventTypeError:
            self._subscription = self._node.create_subscription(kind, self.topic, self._take, profile, **options)

    def close(self) -> None:
        """Unsubscribe."""
        with self._lock:
            if self._subscription is not None:
                self._node.destroy_subscription(self._subscription)
                self._subscription = None

    @property
    def silent_for(self) -> float:
        """Seconds since the last image, or since `open`."""
        return time.monotonic() - self._heard

    def watch(self) -> None:
        """To be called about once a second while open: mend what can be mended, and warn of what cannot."""
        try:
            self._watch()
        except Exception:  # that left a callback would end the executor, and with it the node
            self._node.get_logger().error(
                f'the subscription cannot be watched: {traceback.format_exc()}',
                throttle_duration_sec=WARNING_INTERVAL_S,
            )

    def _watch(self) -> None:
        with self._lock:
            if self._subscription is None:
                return
            if self.silent_for > 1.0 and self._can_match_by_asking_again():
                self.close()
                self._open()
        limit = self._parameters().no_image_warning_after
        now = time.monotonic()
        if limit and self.silent_for > limit and now - self._warned > WARNING_INTERVAL_S:
            self._warned = now
            self._node.get_logger().warning(self.silence())

    def _take(self, message: Image | CompressedImage) -> None:
        self._heard = time.monotonic()
        self._on_image(message)

    def _count_lost(self, event: Any) -> None:
        self.lost += event.total_count_change

    def _ignore(self, _: Any) -> None:
        """Of QoS that does not match, `watch` tells."""

    def _requested(self) -> Any:
        """The QoS in force, with what BEST_AVAILABLE came to; None where the middleware does not say."""
        for info in self._node.get_subscriptions_info_by_topic(self.topic):
            if info.node_name == self._node.get_name() and info.node_namespace == self._node.get_namespace():
                return info.qos_profile
        return None

    def _can_match_by_asking_again(self) -> bool:
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

    def silence(self) -> str:
        """That no image comes, who offers them, and what to do."""
        offers = self._node.get_publishers_info_by_topic(self.topic)
        requested = self._requested()
        asked = f'requested QoS {qos.describe(requested)}' if requested is not None else 'requested QoS unknown'
        silence = f'no image on {self.topic} for {self.silent_for:.0f} s'
        if not offers:
            for transport, topic in self._topics.items():
                if topic != self.topic and self._node.count_publishers(topic):
                    return f'{silence}: nobody publishes it, but {topic} is there: set image_transport to {transport}'
            name = self._node.get_namespace().rstrip('/') + '/image'
            return (
                f'{silence}: nobody publishes it; {asked}. Start the camera, or give its topic: image:=/its/topic to '
                f'track.launch.py, -r {name}:=/its/topic to the node. {self._elsewhere()}'
            )
        offered = '; '.join(
            f'{offer.node_namespace.rstrip("/")}/{offer.node_name} offers {offer.topic_type} with '
            f'{qos.describe(offer.qos_profile)}'
            for offer in offers
        )
        return (
            f'{silence}: {offered}; {asked}. Where type and QoS match, the camera itself is silent; otherwise set '
            f'qos_overrides.{self.topic}.subscription.reliability'
        )

    def _elsewhere(self) -> str:
        """Where images are published."""
        found = cameras(self._node)
        return f'Topics with images: {listed(found)}' if found else 'No topic has images at the moment'
