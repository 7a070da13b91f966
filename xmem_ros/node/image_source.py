# SPDX-License-Identifier: MIT
"""The image subscription, and the watch that reports missing images and mismatched QoS."""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING

from sensor_msgs.msg import CompressedImage, Image

from xmem_ros.errors import listed
from xmem_ros.node import qos
from xmem_ros.node.best_available import BestAvailableSubscription
from xmem_ros.node.graph import cameras

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node

    from xmem_ros.parameters.table import Parameters

WARNING_INTERVAL_S = 10.0


class ImageSource:
    """Subscribes to `image`.

    Arguments:
        node: the subscribing node.
        parameters: returns the current parameters.
        on_image: gets each Image or CompressedImage.
    """

    def __init__(
        self, node: Node, parameters: Callable[[], Parameters], on_image: Callable[[Image | CompressedImage], None]
    ) -> None:
        self._node, self._parameters = node, parameters
        self._subscription = BestAvailableSubscription(node, on_image, count_lost=True)
        self._opened = False
        self._warned_at = 0.0
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
        parameters = self._parameters()
        kind = CompressedImage if parameters.image_transport == 'compressed' else Image
        track_all = parameters.queue == 'all'
        profile = qos.every_image(parameters.queue_depth) if track_all else qos.newest_image()
        self._subscription.open(kind, self.topic, profile)
        self._opened = True

    def close(self) -> None:
        """Unsubscribe."""
        self._opened = False
        self._subscription.close()

    @property
    def lost(self) -> int:
        """Images that the middleware reported as lost."""
        return self._subscription.lost

    @property
    def silent_for(self) -> float:
        """Seconds since the last image, or since `open`."""
        return self._subscription.silent_for

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
        if not self._opened:
            return
        self._subscription.watch()
        limit = self._parameters().no_image_warning_after
        now = time.monotonic()
        if limit and self.silent_for > limit and now - self._warned_at > WARNING_INTERVAL_S:
            self._warned_at = now
            self._node.get_logger().warning(self.silence_report())

    def silence_report(self) -> str:
        """Describe the missing images: topic, publishers with their QoS, and what to do."""
        offers = self._subscription.offers()
        silence = f'no image on {self.topic} for {self.silent_for:.0f} s'
        if not offers:
            for transport, topic in self._topics.items():
                if topic != self.topic and self._node.count_publishers(topic):
                    return (
                        f'{silence}: nobody publishes it, but {topic} is published: set image_transport to {transport}'
                    )
            name = self._node.get_namespace().rstrip('/') + '/image'
            return (
                f'{silence}: nobody publishes it; {self._subscription.requested()}. Start the camera, or give its '
                f'topic: image:=/its/topic to track.launch.py, -r {name}:=/its/topic to the node. '
                f'{self._other_topics()}'
            )
        return (
            f'{silence}: {offers}. If type and QoS match, the camera sends nothing; otherwise set '
            f'qos_overrides.{self.topic}.subscription.reliability'
        )

    def _other_topics(self) -> str:
        """List the topics with images."""
        found = cameras(self._node)
        return f'Topics with images: {listed(found)}' if found else 'No topic has images at the moment'
