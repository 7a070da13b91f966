# SPDX-License-Identifier: MIT
"""The topics in messages of vision_msgs, as far as they are asked for and vision_msgs is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xmem_ros.node import standard_messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node

    from xmem_ros.node.depth_detections import DepthDetections
    from xmem_ros.node.publishers import Extra
    from xmem_ros.node.seed_detections import Apply, SeedDetections
    from xmem_ros.parameters.table import Parameters
    from xmem_ros.stream.frame import Frame
    from xmem_ros.stream.session import Tracking
    from xmem_ros.stream.worker import Worker


class VisionTopics:
    """Made when the node is configured; open while it is active.

    Arguments:
        node: that subscribes and publishes.
        parameters: gives the parameters as they are now.
        frame_of: as `SeedDetections` takes it.
        apply: as `SeedDetections` takes it.
    """

    def __init__(
        self, node: Node, parameters: Callable[[], Parameters], frame_of: Callable[[int], Frame], apply: Apply
    ) -> None:
        self.outputs: list[Extra] = []
        """What publishes, and is closed with the other publishers."""
        self._depth: DepthDetections | None = None
        self._detections: SeedDetections | None = None
        wanted = parameters()
        if not standard_messages.AVAILABLE:
            groups = [group for group in ('depth', 'seed_detections') if getattr(wanted, group).enabled]
            if groups:
                asked = ' and '.join(f'{group}.enabled' for group in groups)
                node.get_logger().warning(f'without vision_msgs, {asked} can do nothing: install it or switch that off')
            return
        self.outputs.append(standard_messages.StandardMessages(node, lambda: parameters().min_score))
        # These two cannot be imported without vision_msgs.
        if wanted.depth.enabled:
            from xmem_ros.node.depth_detections import DepthDetections

            self._depth = DepthDetections(node, parameters)
            self.outputs.append(self._depth)
        if wanted.seed_detections.enabled:
            from xmem_ros.node.seed_detections import SeedDetections

            self._detections = SeedDetections(node, parameters, frame_of, apply)

    def open(self, tracking: Tracking, worker: Worker) -> None:
        """Subscribe."""
        if self._depth is not None:
            self._depth.open()
        if self._detections is not None:
            self._detections.open(tracking, worker)

    def stop(self) -> None:
        """Unsubscribe; to be called when the worker has been stopped."""
        for part in (self._depth, self._detections):
            if part is not None:
                part.stop()

    def values(self) -> dict[str, str]:
        """For diagnostics."""
        values: dict[str, Any] = {}
        for part in (self._depth, self._detections):
            values |= part.values() if part is not None else {}
        return values
