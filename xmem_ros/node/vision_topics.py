# SPDX-License-Identifier: MIT
"""Optional topics: those of depth images, and those of vision_msgs where it is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xmem_ros.node import standard_messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node

    from xmem_ros.node.depth_detections import DepthDetections
    from xmem_ros.node.depth_source import DepthOutput, DepthSource
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
        self.depth: DepthSource | None = None
        self._detections_3d: DepthDetections | None = None
        self._detections: SeedDetections | None = None
        current = parameters()
        if current.depth.enabled:
            self.depth = self._make_depth(node, parameters)
            self.outputs.append(self.depth)
        if not standard_messages.AVAILABLE:
            if current.seed_detections.enabled:
                node.get_logger().warning(
                    'without vision_msgs, seed_detections.enabled cannot work: install it or switch that off'
                )
            return
        self.outputs.append(standard_messages.StandardMessages(node, lambda: parameters().min_score))
        if current.seed_detections.enabled:
            from xmem_ros.node.seed_detections import SeedDetections  # imports vision_msgs

            self._detections = SeedDetections(node, parameters, frame_of, apply)

    def _make_depth(self, node: Node, parameters: Callable[[], Parameters]) -> DepthSource:
        from xmem_ros.node.depth_source import DepthSource
        from xmem_ros.node.object_clouds import ObjectClouds
        from xmem_ros.node.object_poses import ObjectMotions, ObjectPoses
        from xmem_ros.node.target_frame import TargetFrame

        current = parameters().depth
        outputs: list[DepthOutput] = [
            ObjectClouds(node, parameters),
            ObjectPoses(node, publish_tf=current.publish_tf),
            ObjectMotions(node, parameters),
        ]
        if standard_messages.AVAILABLE:
            from xmem_ros.node.depth_detections import DepthDetections  # imports vision_msgs

            self._detections_3d = DepthDetections(node)
            outputs.append(self._detections_3d)
        return DepthSource(node, parameters, TargetFrame(node, current.target_frame), outputs)

    def open(self, session: TrackingSession, worker: Worker) -> None:
        """Subscribe."""
        if self.depth is not None:
            self.depth.open()
        if self._detections is not None:
            self._detections.open(session, worker)

    def watch(self) -> None:
        """Subscribe again where a publisher's QoS asks for it; call about once a second."""
        for part in (self.depth, self._detections):
            if part is not None:
                part.watch()

    def stop(self, seconds: float | None = None) -> None:
        """Unsubscribe; call after the worker has been stopped. See `DepthSource.stop`."""
        if self.depth is not None:
            self.depth.stop(seconds)
        if self._detections is not None:
            self._detections.stop()

    def diagnostics(self) -> dict[str, str]:
        """Return key → value of the node's status."""
        values: dict[str, Any] = {}
        for part in (self.depth, self._detections_3d, self._detections):
            values |= part.diagnostics() if part is not None else {}
        return values
