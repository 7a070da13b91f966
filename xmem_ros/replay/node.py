# SPDX-License-Identifier: MIT
"""Connection of a replay to the tracker node: state, image topic, results, diagnostics."""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from xmem_ros.client.frames import Frame, FramePairs
from xmem_ros.client.link import NodeLink
from xmem_ros.errors import (
    FrameError,
    NodeError,
    NodeInactiveError,
    NodeMissingError,
    NodeTimeoutError,
    ParameterError,
    Setting,
    XMemError,
    naming,
)
from xmem_ros.msg import TrackedObjectArray
from xmem_ros.node import diagnostic_keys as keys
from xmem_ros.node import qos
from xmem_ros.outside_text import for_log
from xmem_ros.recordings.topics import IMAGE_TYPES

CHECK_PERIOD_S = 1.0  # between checks that the node still exists
_DIAGNOSTICS = QoSProfile(depth=10)
_DIAGNOSTICS_MARGIN_S = 2.0  # beyond their period
_MAX_DIAGNOSTICS_PERIOD_S = 10.0  # with a longer period, do not wait for them


@dataclass(frozen=True)
class NodeCounts:
    """Image counts and state from the node's diagnostics."""

    received: int
    dropped: int
    waiting: int
    fault: bool
    state: str  # of the lifecycle; empty: unknown
    summary: str  # for people


class NodeConnection:
    """Connection to the tracker node.

    Arguments:
        name: of the node.
        timeout: time limit for the node to appear, for a response, and for an image's results [s].

    Raises:
        ParameterError: an invalid node name.
    """

    def __init__(self, name: str, timeout: float) -> None:
        self.link = NodeLink(name, timeout=timeout)
        self.name, self.timeout = self.link.name, timeout
        self.parameters: dict[str, Any] = {}
        self._pairs = FramePairs()
        self._events: queue.SimpleQueue[Frame | NodeCounts] = queue.SimpleQueue()
        self._counts: NodeCounts | None = None
        self._expected: int | None = None  # received count once the node has the newest image
        # These are created before any client. The middleware announces endpoints in order of
        # creation, so a node that answers a client knows them, and the first masks are not lost.
        for half, kind in (('labels', Image), ('objects', TrackedObjectArray)):
            self.link.subscribe(kind, self.link.topic(half), self._result_callback(half), qos.output())
        self.link.subscribe(DiagnosticArray, '/diagnostics', self._on_diagnostics, _DIAGNOSTICS)

    def close(self) -> None:
        """Leave the ROS graph."""
        self.link.close()

    # --- before the first image

    def check_active(self) -> None:
        """Raise `NodeMissingError` or `NodeInactiveError` unless the node exists and is active."""
        state = self.link.state()
        if state != 'active':
            raise NodeInactiveError(self._inactive_text(state))

    def image_topic(self, recorded: str, kind: str) -> str:
        """Return the node's image topic.

        Args:
            recorded: the bag's topic of the images, or its remapping.
            kind: type of the images, such as sensor_msgs/msg/Image.

        Raises:
            ParameterError: the node has no subscription of this type, or several.
        """
        end = time.monotonic() + self.timeout
        while not (subscribed := self._image_subscriptions()) and time.monotonic() < end:
            time.sleep(0.05)
        if subscribed.get(recorded) == kind:
            return recorded
        matching = [topic for topic, its in subscribed.items() if its == kind]
        colour = [topic for topic in matching if not topic.endswith('/depth/image')] or matching
        if len(colour) == 1:
            return colour[0]
        topics = ', '.join(f'{topic} ({its})' for topic, its in subscribed.items()) or 'no images at all'
        if not matching:
            transport = 'compressed' if kind.endswith('CompressedImage') else 'raw'
            raise ParameterError(
                f"{self.name} does not subscribe to the bag's images, {recorded} ({kind}); it subscribes to {topics}; "
                f'start it with image_transport:={transport}'
            )
        text = (
            f'{self.name} subscribes to {topics}; choose the topic for the images of the bag by remapping, as in '
            f'{recorded}:={colour[0]}'
        )
        raise naming(Setting.REMAP, ParameterError(text))

    def _image_subscriptions(self) -> dict[str, str]:
        """Return the image topics that the node subscribes to → type."""
        namespace, _, name = self.name.rpartition('/')
        try:
            found = self.link.node.get_subscriber_names_and_types_by_node(name, namespace or '/')
        except RuntimeError:  # rclpy's NodeNameNonExistentError
            return {}
        return {topic: kind for topic, kinds in found for kind in kinds if kind in IMAGE_TYPES}

    def wait_for_subscriber(self, publisher: Any) -> None:
        """Wait until the node is connected to the publisher and its diagnostics arrive.

        Create all publishers before this call.

        Raises:
            NodeTimeoutError: the node does not connect to the publisher.
        """
        end = time.monotonic() + self.timeout
        while not publisher.get_subscription_count():
            if time.monotonic() > end:
                raise naming(Setting.REMAP, NodeTimeoutError(self._no_connection_text(publisher.topic_name)))
            time.sleep(0.02)
        names = ['diagnostics_period', 'on_time_jump', 'queue', 'seeder']
        answer = self.link.call(GetParameters, 'get_parameters', GetParameters.Request(names=names))
        self.parameters = {
            name: parameter_value_to_python(value) for name, value in zip(names, answer.values, strict=False)
        }
        period = float(self.parameters.get('diagnostics_period') or 1.0)
        end = time.monotonic() + (period + _DIAGNOSTICS_MARGIN_S if period <= _MAX_DIAGNOSTICS_PERIOD_S else 0.0)
        while self._counts is None and (left := end - time.monotonic()) > 0:
            self._next(left)
        self._expected = self._counts.received if self._counts is not None else None

    # --- during the replay

    def discard_results(self) -> None:
        """Discard earlier results; call this before publishing an image."""
        while self._next(0.0) is not None:
            pass
        if self._expected is not None:
            self._expected += 1

    def wait_for_result(self, stamp_ns: int, frame_id: str, topic: str) -> Frame | None:
        """Wait for the node's results of the image that was published last.

        Args:
            stamp_ns: of the image.
            frame_id: of the image.
            topic: of the image, as published.

        Returns:
            The results; None if the node dropped the image.

        Raises:
            NodeTimeoutError: no results; the text says how far the image got.
            NodeMissingError, NodeInactiveError: the node is gone, or no longer active.
            NodeError: the node has a fault and cannot track.
        """
        before = self._counts
        dropped = before.dropped if before is not None else None
        end = time.monotonic() + self.timeout
        while (left := end - time.monotonic()) > 0:
            event = self._next(min(left, CHECK_PERIOD_S))
            if isinstance(event, Frame) and (event.stamp_ns, event.header.frame_id) == (stamp_ns, frame_id):
                return event
            if isinstance(event, NodeCounts):
                if event.fault:
                    raise NodeError(f'{self.name}: {event.summary}')
                if event.state in (keys.INACTIVE, keys.UNCONFIGURED):
                    raise NodeInactiveError(self._inactive_text(event.summary))
                if dropped is not None and event.dropped > dropped and not event.waiting:
                    return None
            if event is None and not self.link.is_there():
                raise NodeMissingError(f'{self.name} disappeared during the replay; see its log, and start it again')
        raise self._timeout_error(before, topic)

    def _next(self, seconds: float) -> Frame | NodeCounts | None:
        try:
            event = self._events.get(timeout=seconds) if seconds > 0 else self._events.get_nowait()
        except queue.Empty:
            return None
        if isinstance(event, NodeCounts):
            self._counts = event
        return event

    # --- error texts

    def _inactive_text(self, state: str) -> str:
        return (
            f'{self.name} is {state} and does not track; configure and activate it '
            f'(ros2 lifecycle set {self.name} configure; ros2 lifecycle set {self.name} activate)'
        )

    def _no_connection_text(self, topic: str) -> str:
        return (
            f"no image reaches {self.name}: {self._qos_text(topic)}; if the QoS does not match, set the node's "
            f'parameter qos_overrides.{topic}.subscription.reliability, or remap the image topic to its own'
        )

    def _qos_text(self, topic: str) -> str:
        """Describe the publishers and subscribers of the topic with their QoS."""
        node = self.link.node
        offers = [f'{info.node_name} {qos.describe(info.qos_profile)}' for info in self._infos(topic, 'publishers')]
        asks = [f'{info.node_name} {qos.describe(info.qos_profile)}' for info in self._infos(topic, 'subscriptions')]
        return (
            f'images are published on {topic} by {", ".join(offers) or node.get_name()}, and subscribed to by '
            f'{", ".join(asks) or "no node"}'
        )

    def _infos(self, topic: str, side: str) -> list[Any]:
        return list(getattr(self.link.node, f'get_{side}_info_by_topic')(topic))

    def _timeout_error(self, before: NodeCounts | None, topic: str) -> XMemError:
        text = f'{self.name} published no results of the image within {self.timeout:g} s'
        now = self._counts
        if before is None or now is None or now is before:
            error = NodeTimeoutError(f'{text}, and no /diagnostics; if it is busy, allow more time')
            return naming(Setting.TIMEOUT, error)
        if self._expected is not None and now.received < self._expected:
            return naming(Setting.REMAP, NodeTimeoutError(f'{text}: {self._no_connection_text(topic)}'))
        if now.waiting:
            error = NodeTimeoutError(f'{text}: the node is busy and the image is still waiting; allow more time')
            return naming(Setting.TIMEOUT, error)
        return NodeTimeoutError(
            f'{text}, although it received the image ({now.received} received, {now.dropped} dropped): check '
            f'{self.link.topic("labels")}, {self.link.topic("objects")} and its log'
        )

    # --- callbacks, in the link's thread

    def _result_callback(self, half: str) -> Any:
        def receive(message: Any) -> None:
            try:
                frame = self._pairs.add(half, message)
            except (FrameError, ValueError) as error:
                self.link.node.get_logger().warning(f'a message of {half} cannot be read: {for_log(error)}')
                return
            if frame is not None:
                self._events.put(frame)

        return receive

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name != keys.status_name(self.name):
                continue
            values = {pair.key: pair.value for pair in status.values}
            received, dropped, waiting = (
                int(values.get(key, '0')) for key in (keys.RECEIVED, keys.DROPPED, keys.WAITING)
            )
            fault, state = status.level == status.ERROR, values.get(keys.STATE, '')
            self._events.put(NodeCounts(received, dropped, waiting, fault, state, status.message))
