# SPDX-License-Identifier: MIT
"""Topics of vision_msgs: enabled by parameters, and only if vision_msgs is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xmem_ros.node import standard_messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node

    from xmem_ros.node.depth_detections import DepthDetections
    from xmem_ros.node.publishers import ExtraPublisher
    from xmem_ros.node.seed_detections import ApplySeeds, SeedDetections
    from xmem_ros.parameters.table import Parameters
    from xmem_ros.stream.frame import Frame
    from xmem_ros.stream.session import TrackingSession
    from xmem_ros.stream.worker import Worker


class VisionTopics:
    """Created when the node is configured, open while it is active.

    Arguments:
        node: the subscribing and publishing node.
        parameters: returns the current parameters.
        frame_of: as for `SeedDetections`.
        apply: as for `SeedDetections`.
    """

    def __init__(
        self, node: Node, parameters: Callable[[], Parameters], frame_of: Callable[[int], Frame], apply: ApplySeeds
    ) -> None:
        self.outputs: list[ExtraPublisher] = []
        """Publishers, to be closed with the others of the node."""
        self._depth: DepthDetections | None = None
        self._detections: SeedDetections | None = None
        current = parameters()
        if not standard_messages.AVAILABLE:
            groups = [group for group in ('depth', 'seed_detections') if getattr(current, group).enabled]
            if groups:
                names = ' and '.join(f'{group}.enabled' for group in groups)
                node.get_logger().warning(f'without vision_msgs, {names} cannot work: install it or switch that off')
            return
        self.outputs.append(standard_messages.StandardMessages(node, lambda: parameters().min_score))
        # The modules of these two import vision_msgs.
        if current.depth.enabled:
            from xmem_ros.node.depth_detections import DepthDetections

            self._depth = DepthDetections(node, parameters)
            self.outputs.append(self._depth)
        if current.seed_detections.enabled:
            from xmem_ros.node.seed_detections import SeedDetections

            self._detections = SeedDetections(node, parameters, frame_of, apply)

    def open(self, session: TrackingSession, worker: Worker) -> None:
        """Subscribe."""
        if self._depth is not None:
            self._depth.open()
        if self._detections is not None:
            self._detections.open(session, worker)

    def stop(self) -> None:
        """Unsubscribe; call after the worker has been stopped."""
        for part in (self._depth, self._detections):
            if part is not None:
                part.stop()

    def diagnostics(self) -> dict[str, str]:
        """Return key → value of the node's status."""
        values: dict[str, Any] = {}
        for part in (self._depth, self._detections):
            values |= part.diagnostics() if part is not None else {}
        return values
