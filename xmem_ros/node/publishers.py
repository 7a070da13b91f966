# SPDX-License-Identifier: MIT
"""Topics of the node with the results of each image.

A thread of its own publishes, in the order of the worker's calls; see `outbox`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from builtin_interfaces.msg import Duration
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest

from xmem_ros import overlay
from xmem_ros.conversions.compressed_images import compressed_from_array
from xmem_ros.conversions.images import image_from_array
from xmem_ros.conversions.objects import BOX, DURATION, OBJECT, OBJECTS, duration_message, objects_message
from xmem_ros.msg import TrackedObject, TrackedObjectArray
from xmem_ros.node import qos
from xmem_ros.node.events import Events
from xmem_ros.node.object_topics import ObjectTopics
from xmem_ros.node.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from rclpy.node import Node
    from rclpy.publisher import Publisher

    from xmem_ros.node.diagnostics import StreamStatistics
    from xmem_ros.tracker import StepResult, tracker

_TYPES = {BOX: RegionOfInterest, DURATION: Duration, OBJECT: TrackedObject, OBJECTS: TrackedObjectArray}


def _make(msgtype: str, **fields: Any) -> Any:
    return _TYPES[msgtype](**fields)


class ExtraPublisher(Protocol):
    """Another publisher of each frame's results."""

    def publish(self, header: Any, result: StepResult) -> None:
        """Publish the result of a frame."""

    def set_objects(self, objects: Sequence[tracker.TrackedObject]) -> None:
        """Take over the list of current objects."""

    def close(self) -> None:
        """Destroy the publishers."""


class Publishers:
    """Publishes results.

    Arguments:
        node: the publishing node.
        statistics: gets the durations of each frame.
        object_topics: number of labels that have topics of their own; 0: none.
        quality: returns the current JPEG quality, 1…100.
        sessions: numbers of the sessions of `events`.
        keep_all: as for `Outbox`.
        extras: further publishers of the same results.
    """

    def __init__(
        self,
        node: Node,
        statistics: StreamStatistics,
        *,
        object_topics: int,
        quality: Callable[[], int],
        sessions: Iterator[int],
        keep_all: bool = False,
        extras: Sequence[ExtraPublisher] = (),
    ) -> None:
        self._node, self._statistics, self._quality = node, statistics, quality
        self._extras = extras
        self._labels = self._make(Image, '~/labels')
        self._objects = self._make(TrackedObjectArray, '~/objects')
        self._overlay = self._make(Image, '~/overlay')
        self._compressed = {
            'png': self._make(CompressedImage, '~/labels/compressed'),
            'jpeg': self._make(CompressedImage, '~/overlay/compressed'),
        }
        self._outbox = Outbox(self._log, keep_all=keep_all)
        self.events = Events(node, sessions, self._outbox)
        self._of_object = ObjectTopics(node, object_topics)

    def publish(self, header: Any, image: np.ndarray, result: StepResult, begun: float) -> None:
        """Publish the result of a frame, soon; see `Outputs.publish`."""
        self.events.image_tracked(header)
        self._outbox.put(lambda: self._publish(header, image, result, begun), frame=True)

    def flush(self, seconds: float) -> None:
        """Wait until the results so far are published, up to `seconds` [s]."""
        self._outbox.flush(seconds)

    def stop(self, seconds: float) -> None:
        """Publish the results so far, within `seconds` [s], and no more; before the end."""
        self._outbox.close(seconds)

    @property
    def unpublished(self) -> int:
        """Number of results that were dropped because publishing took too long."""
        return self._outbox.dropped

    def _publish(self, header: Any, image: np.ndarray, result: StepResult, begun: float) -> None:
        started = time.perf_counter()
        self._publish_image(self._labels, result.labels, 'mono8', header)
        array = objects_message(header, result.objects, 0.0, _make)
        for message in array.objects:
            self._of_object.publish(message, result.labels, header)
        self._publish_compressed('png', result.labels, header)
        if self._overlay.get_subscription_count() or self._compressed['jpeg'].get_subscription_count():
            drawn = overlay.draw(image, result.labels, result.objects)
            if self._overlay.get_subscription_count():
                self._publish_image(self._overlay, drawn, 'rgb8', header)
            self._publish_compressed('jpeg', drawn, header)
        for extra in self._extras:
            extra.publish(header, result)
        finished = time.perf_counter()
        array.processing_time = duration_message(finished - begun, _make)
        self._objects.publish(array)
        self._statistics.add_frame(
            header, result, publish_ms=(finished - started) * 1e3, total_ms=(finished - begun) * 1e3
        )

    def set_objects(self, objects: Sequence[tracker.TrackedObject]) -> None:
        """Take over the list of current objects; see `Outputs.set_objects`."""

        def take_over() -> None:
            for extra in self._extras:
                extra.set_objects(objects)

        self._outbox.put(take_over)

    def close(self) -> None:
        """Destroy every publisher."""
        self._outbox.close()
        self._of_object.close()
        self.events.close()
        for extra in self._extras:
            extra.close()
        for publisher in (self._labels, self._objects, self._overlay, *self._compressed.values()):
            self._node.destroy_publisher(publisher)

    def _log(self, text: str) -> None:
        if self._node.context.ok():  # otherwise the process is shutting down
            self._node.get_logger().error(text, throttle_duration_sec=5.0)

    def _make(self, kind: type, topic: str) -> Publisher:
        return self._node.create_publisher(kind, topic, qos.output(), qos_overriding_options=qos.overridable())

    def _publish_image(self, publisher: Publisher, pixels: np.ndarray, encoding: str, header: Any) -> None:
        message = image_from_array(pixels, encoding, Image)
        message.header = header
        publisher.publish(message)

    def _publish_compressed(self, kind: str, pixels: np.ndarray, header: Any) -> None:
        publisher = self._compressed[kind]
        if publisher.get_subscription_count():
            message = compressed_from_array(pixels, kind, CompressedImage, self._quality())
            message.header = header
            publisher.publish(message)
