# SPDX-License-Identifier: MIT
"""The node's side of a lock-step replay: is it there, where does it listen, and what has it said of an image."""

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

from xmem_ros.client.link import NodeLink
from xmem_ros.client.seen import Frame, FramePairs
from xmem_ros.errors import (
    FrameError,
    NodeError,
    NodeInactiveError,
    NodeMissingError,
    NodeTimeoutError,
    ParameterError,
)
from xmem_ros.msg import TrackedObjectArray
from xmem_ros.node import diagnostic_keys as keys
from xmem_ros.node import qos
from xmem_ros.outside_text import for_log
from xmem_ros.recordings.topics import IMAGE_TYPES

LOOK_S = 1.0  # after which a wait looks whether the node is still there
_DIAGNOSTICS = QoSProfile(depth=10)
_SPARE_S = 2.0  # beyond the period of the diagnostics
_SELDOM_S = 10.0  # a longer period is not waited for


@dataclass(frozen=True)
class NodeCounts:
    """What the node's diagnostics say."""

    received: int
    dropped: int
    waiting: int
    fault: bool
    summary: str


class LiveNode:
    """The tracker's node, as a replay sees it.

    Arguments:
        name: of the node.
        timeout: the longest to wait for the node, for an answer, or for the masks of an image [s].

    Raises:
        ParameterError: a name that no node can have.
    """

    def __init__(self, name: str, timeout: float) -> None:
        self.link = NodeLink(name, timeout=timeout)
        self.name, self.timeout = self.link.name, timeout
        self.parameters: dict[str, Any] = {}
        self._pairs = FramePairs()
        self._heard: queue.SimpleQueue[Frame | NodeCounts] = queue.SimpleQueue()
        self._counts: NodeCounts | None = None
        self._expected: int | None = None  # images that the node has received once it has the newest
        # Before any client: the middleware announces what a process has in the order of its making, so whoever answers
        # a client that was made later knows of these subscriptions, and the masks of the first image are not lost.
        for half, kind in (('labels', Image), ('objects', TrackedObjectArray)):
            self.link.subscribe(kind, self.link.topic(half), self._hear(half), qos.output())
        self.link.subscribe(DiagnosticArray, '/diagnostics', self._diagnosed, _DIAGNOSTICS)

    def close(self) -> None:
        """Leave the graph."""
        self.link.close()

    # --- before the first image

    def check_active(self) -> None:
        """Raise `NodeMissingError` or `NodeInactiveError` unless the node is there and active."""
        state = self.link.state()
        if state != 'active':
            raise NodeInactiveError(self._inactive(state))

    def image_topic(self, recorded: str, kind: str) -> str:
        """Where the node takes its images from.

        Args:
            recorded: topic that the images would be published on: the bag's, or what it is remapped to.
            kind: of the images, such as sensor_msgs/msg/Image.

        Raises:
            ParameterError: it takes none of that kind, or several topics could be meant.
        """
        end = time.monotonic() + self.timeout
        while not (offered := self._subscribed()) and time.monotonic() < end:
            time.sleep(0.05)
        if offered.get(recorded) == kind:
            return recorded
        fitting = [topic for topic, its in offered.items() if its == kind]
        colour = [topic for topic in fitting if not topic.endswith('/depth/image')] or fitting
        if len(colour) == 1:
            return colour[0]
        listens = ', '.join(f'{topic} ({its})' for topic, its in offered.items()) or 'no images at all'
        if not fitting:
            transport = 'compressed' if kind.endswith('CompressedImage') else 'raw'
            raise ParameterError(
                f"{self.name} does not take the bag's images, {recorded} ({kind}); it listens to {listens}: start it "
                f'with image_transport:={transport}'
            )
        raise ParameterError(
            f'{self.name} listens to {listens}: say which of them gets the images of the bag, '
            f'--remap {recorded}:={colour[0]}'
        )

    def _subscribed(self) -> dict[str, str]:
        """Topics of images that the node subscribes to now → type."""
        namespace, _, name = self.name.rpartition('/')
        try:
            found = self.link.node.get_subscriber_names_and_types_by_node(name, namespace or '/')
        except RuntimeError:  # rclpy's NodeNameNonExistentError: it has gone
            return {}
        return {topic: kind for topic, kinds in found for kind in kinds if kind in IMAGE_TYPES}

    def meet(self, publisher: Any) -> None:
        """Make sure that images reach the node and what it says is heard; all publishers are to be there before.

        Raises:
            NodeTimeoutError: the node does not take the images.
        """
        end = time.monotonic() + self.timeout
        while not publisher.get_subscription_count():
            if time.monotonic() > end:
                raise NodeTimeoutError(self._unreached(publisher.topic_name))
            time.sleep(0.02)
        names = ['diagnostics_period', 'on_time_jump', 'queue']
        answer = self.link.call(GetParameters, 'get_parameters', GetParameters.Request(names=names))
        self.parameters = {
            name: parameter_value_to_python(value) for name, value in zip(names, answer.values, strict=False)
        }
        period = float(self.parameters.get('diagnostics_period') or 1.0)
        end = time.monotonic() + (period + _SPARE_S if period <= _SELDOM_S else 0.0)
        while self._counts is None and (left := end - time.monotonic()) > 0:
            self._next(left)
        self._expected = self._counts.received if self._counts is not None else None

    # --- while images are shown

    def listen(self) -> None:
        """Forget what was said so far; to be called before an image is published."""
        while self._next(0.0) is not None:
            pass
        if self._expected is not None:
            self._expected += 1

    def wait(self, stamp_ns: int, frame_id: str, topic: str) -> Frame | None:
        """Wait for what the node says of the image that was published last.

        Args:
            stamp_ns: of the image.
            frame_id: of the image.
            topic: that it was published on.

        Returns:
            None where the node says that it dropped an image.

        Raises:
            NodeTimeoutError: it said nothing; the text says how far the image came.
            NodeMissingError, NodeInactiveError: it is gone, or not active any more.
            NodeError: it cannot track any more.
        """
        before = self._counts
        dropped = before.dropped if before is not None else None
        end = time.monotonic() + self.timeout
        while (left := end - time.monotonic()) > 0:
            heard = self._next(min(left, LOOK_S))
            if isinstance(heard, Frame) and (heard.stamp_ns, heard.header.frame_id) == (stamp_ns, frame_id):
                return heard
            if isinstance(heard, NodeCounts):
                if heard.fault:
                    raise NodeError(f'{self.name}: {heard.summary}')
                if heard.summary.startswith(('inactive', 'unconfigured')):
                    raise NodeInactiveError(self._inactive(heard.summary))
                if dropped is not None and heard.dropped > dropped and not heard.waiting:
                    return None
            if heard is None and not self.link.is_there():
                raise NodeMissingError(f'{self.name} has gone while images were replayed; its own log says why')
        raise NodeTimeoutError(self._silence(before, topic))

    def _next(self, seconds: float) -> Frame | NodeCounts | None:
        try:
            heard = self._heard.get(timeout=seconds) if seconds > 0 else self._heard.get_nowait()
        except queue.Empty:
            return None
        if isinstance(heard, NodeCounts):
            self._counts = heard
        return heard

    # --- what is said where something is wrong

    def _inactive(self, state: str) -> str:
        return (
            f'{self.name} is {state}, so it tracks nothing: configure and activate it '
            f'(ros2 lifecycle set {self.name} configure; ros2 lifecycle set {self.name} activate)'
        )

    def _unreached(self, topic: str) -> str:
        return (
            f'no image reaches {self.name}: {self._contract(topic)}; where they do not match, set '
            f'qos_overrides.{topic}.subscription.reliability of the node, or --remap the image topic to its own'
        )

    def _contract(self, topic: str) -> str:
        """Who offers and who asks for what."""
        node = self.link.node
        offers = [f'{info.node_name} {qos.describe(info.qos_profile)}' for info in self._infos(topic, 'publishers')]
        asks = [f'{info.node_name} {qos.describe(info.qos_profile)}' for info in self._infos(topic, 'subscriptions')]
        return (
            f'they are published on {topic} by {", ".join(offers) or node.get_name()}, and asked for by '
            f'{", ".join(asks) or "nobody"}'
        )

    def _infos(self, topic: str, side: str) -> list[Any]:
        return list(getattr(self.link.node, f'get_{side}_info_by_topic')(topic))

    def _silence(self, before: NodeCounts | None, topic: str) -> str:
        said = f'{self.name} said nothing of the image within {self.timeout:g} s'
        now = self._counts
        if before is None or now is None or now is before:
            return f'{said}, and its /diagnostics were not heard either: it may be busy; give it longer with --timeout'
        if self._expected is not None and now.received < self._expected:
            return f'{said}: {self._unreached(topic)}'
        if now.waiting:
            return f'{said}: the image waits, as the node is busy; give it longer with --timeout'
        return (
            f'{said}, though it reached the node ({now.received} received, {now.dropped} dropped): compare what it '
            f'publishes ({self.link.topic("labels")}, {self.link.topic("objects")}) and its log'
        )

    # --- in the link's thread

    def _hear(self, half: str) -> Any:
        def hear(message: Any) -> None:
            try:
                frame = self._pairs.add(half, message)
            except (FrameError, ValueError) as error:
                self.link.node.get_logger().warning(f'a message of {half} cannot be read: {for_log(error)}')
                return
            if frame is not None:
                self._heard.put(frame)

        return hear

    def _diagnosed(self, message: Any) -> None:
        for status in message.status:
            if status.name != keys.status_name(self.name):
                continue
            values = {pair.key: pair.value for pair in status.values}
            received, dropped, waiting = (
                int(values.get(key, '0')) for key in (keys.RECEIVED, keys.DROPPED, keys.WAITING)
            )
            fault = status.level == status.ERROR
            self._heard.put(NodeCounts(received, dropped, waiting, fault, status.message))
