# SPDX-License-Identifier: MIT
"""`~/events`: every change of the tracked objects, so that a bag can be tracked again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from std_msgs.msg import Header

from xmem_ros.msg import TrackingEvent
from xmem_ros.node import qos

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rclpy.node import Node

    from xmem_ros.node.outbox import Outbox


class Events:
    """Publishes the events; except for the creation, called in the worker's thread.

    Arguments:
        node: the publishing node.
        sessions: numbers of the sessions, from one to the next configuration of the node.
        outbox: publishes in the order of the results.
    """

    def __init__(self, node: Node, sessions: Iterator[int], outbox: Outbox) -> None:
        self._node, self._sessions, self._outbox = node, sessions, outbox
        self._publisher = node.create_publisher(
            TrackingEvent, '~/events', qos.events(), qos_overriding_options=qos.overridable()
        )
        depth = f'qos_overrides.{self._publisher.topic_name}.publisher.depth'  # declared by rclpy
        self._depth = int(node.get_parameter_or(depth, Parameter(depth, value=qos.EVENTS_KEPT)).value)
        self._newest = Header()  # of the newest tracked image
        self._session = self._sequence = 0
        self._largest = 0  # bytes of an event
        self._untouched = True  # no object yet in this session
        self._begin(TrackingEvent.START)

    @property
    def nbytes(self) -> int:
        """Bound of the memory that the middleware holds for later subscribers [bytes]."""
        return self._depth * self._largest

    def image_tracked(self, header: Any) -> None:
        """Take over the header of the newest tracked image."""
        self._newest = header

    def seeded(self, header: Any, seeds: Sequence[Any], ids: Sequence[int], labels: Sequence[int]) -> None:
        """Publish the seeds that were accepted in the image of this header."""
        self._publish(TrackingEvent.SEED, header=header, seeds=list(seeds), ids=list(ids), labels=list(labels))

    def removed(self, ids: Sequence[int]) -> None:
        """Publish that objects were removed."""
        if ids:
            self._publish(TrackingEvent.REMOVE, ids=list(ids))

    def reset(self, ids: Sequence[int]) -> None:
        """Publish that everything was forgotten, unless there was nothing to forget."""
        if not self._untouched:
            self._begin(TrackingEvent.RESET, ids=list(ids))

    def loaded(self, file: str, sha256: str, ids: Sequence[int], labels: Sequence[int]) -> None:
        """Publish that a memory file was loaded."""
        self._begin(TrackingEvent.LOAD, file=file, sha256=sha256, ids=list(ids), labels=list(labels))
        self._untouched = False

    def close(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_publisher(self._publisher)

    def _begin(self, kind: int, **fields: Any) -> None:
        """Publish the first event of a session."""
        self._session, self._sequence, self._untouched = next(self._sessions), -1, True
        self._publish(kind, **fields)

    def _publish(self, kind: int, *, header: Any = None, **fields: Any) -> None:
        self._sequence += 1
        self._untouched = self._untouched and kind != TrackingEvent.SEED
        message = TrackingEvent(header=header or self._newest, kind=kind, **fields)
        message.session, message.sequence, message.after = self._session, self._sequence, self._newest.stamp
        raw = serialize_message(message)
        self._largest = max(self._largest, len(raw))
        self._outbox.put(lambda: self._publisher.publish(raw))
