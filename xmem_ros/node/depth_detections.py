# SPDX-License-Identifier: MIT
"""`~/detections_3d`: tracked objects located in space by depth images. Needs vision_msgs."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from sensor_msgs.msg import CameraInfo, Image
from vision_msgs.msg import Detection3D, Detection3DArray

from xmem_ros.conversions.images import depth_from_image, stamp_ns
from xmem_ros.errors import FrameError
from xmem_ros.node import diagnostic_keys as keys
from xmem_ros.node import qos
from xmem_ros.node.rclpy_workarounds import subscribe
from xmem_ros.node.standard_messages import hypothesis
from xmem_ros.outside_text import for_log
from xmem_ros.stream.depth import Location, camera_of, locate, scaled_labels
from xmem_ros.stream.frame import Frame
from xmem_ros.stream.history import History
from xmem_ros.stream.stamp_matching import StampMatcher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from rclpy.node import Node

    from xmem_ros.parameters.table import Parameters
    from xmem_ros.tracker import StepResult, TrackedObject

_THROTTLED: dict[str, Any] = {'throttle_duration_sec': 5.0}
_QUEUE_DEPTH = 10  # of the middleware
_Result = tuple[Any, 'np.ndarray', list['TrackedObject']]  # header, labels, objects


class DepthDetections:
    """Subscribes to `depth/image` and `depth/camera_info`, and publishes `~/detections_3d`.

    Arguments:
        node: the subscribing and publishing node.
        parameters: returns the current parameters.
    """

    def __init__(self, node: Node, parameters: Callable[[], Parameters]) -> None:
        self._node, self._parameters = node, parameters
        limits = parameters()
        # Waiting images are tracked late, and depth images may arrive faster than they are tracked.
        waiting = limits.queue_depth if limits.queue == 'all' else 1
        history = History(
            max(limits.history, 2 * waiting), limits.history_seconds, limits.history_mb * 1e6, least=2 * waiting
        )
        self._matcher: StampMatcher[_Result] = StampMatcher(history)
        self._info: CameraInfo | None = None
        self._subscriptions: list[Any] = []
        self._published = self._unmatched = 0
        self._topics = {kind: node.resolve_topic_name(f'depth/{kind}') for kind in ('image', 'camera_info')}
        self._publisher = node.create_publisher(
            Detection3DArray, '~/detections_3d', qos.output(), qos_overriding_options=qos.overridable()
        )

    def open(self) -> None:
        """Subscribe."""
        for kind, topic, callback in (
            (Image, self._topics['image'], self._on_depth),
            (CameraInfo, self._topics['camera_info'], self._on_camera_info),
        ):
            self._subscriptions.append(subscribe(self._node, kind, topic, callback, _QUEUE_DEPTH))

    def stop(self) -> None:
        """Unsubscribe."""
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())
        self._matcher.clear()

    def close(self) -> None:
        """Unsubscribe and destroy the publisher."""
        self.stop()
        self._node.destroy_publisher(self._publisher)

    def diagnostics(self) -> dict[str, str]:
        """Return key → value of the node's status."""
        return {keys.DETECTIONS_3D: str(self._published), keys.IMAGES_WITHOUT_DEPTH: str(self._unmatched)}

    def set_objects(self, objects: Sequence[TrackedObject]) -> None:
        """Do nothing: each message has its own objects."""

    def publish(self, header: Any, result: StepResult) -> None:
        """Publish the result of a frame, now or when its depth image arrives."""
        if not self._publisher.get_subscription_count():
            return
        item = (header, result.labels, result.objects)
        depth, unmatched = self._matcher.add_result(stamp_ns(header.stamp), item, self._slop_ns())
        if depth is not None:
            self._publish(item, depth.message)
        if unmatched:
            self._unmatched += unmatched
            topic, slop = self._topics['image'], self._parameters().depth.slop
            self._node.get_logger().warning(
                f'no 3D detections: no depth image on {topic} within {slop:g} s of the image of ten frames ago: '
                'publish it with the stamps of the images, or raise depth.slop; raise history_seconds if images are '
                'tracked later than that',
                **_THROTTLED,
            )

    def _slop_ns(self) -> float:
        return self._parameters().depth.slop * 1e9

    def _on_depth(self, message: Image) -> None:
        try:
            depth = Frame(message, stamp_ns(message.header.stamp))
            for item in self._matcher.add(depth, self._slop_ns()):
                self._publish(item, message)
        except Exception:  # an exception that leaves a callback ends the executor and the node
            self._node.get_logger().error(f'no 3D detections: {traceback.format_exc()}', **_THROTTLED)

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._info = message

    def _publish(self, item: _Result, depth: Image) -> None:
        try:
            self._publisher.publish(self._message(*item, depth))
            self._published += 1
        except FrameError as error:
            self._node.get_logger().warning(f'no 3D detections: {for_log(error)}', **_THROTTLED)

    def _message(self, header: Any, labels: np.ndarray, objects: list[TrackedObject], depth: Image) -> Any:
        info = self._info
        if info is None:
            raise FrameError(
                f"no camera_info has arrived on {self._topics['camera_info']} yet: remap it to the camera's"
            )
        image_frame, depth_frame = header.frame_id, depth.header.frame_id
        if image_frame and depth_frame and image_frame != depth_frame:
            raise FrameError(
                f'the depth image has the frame_id {depth_frame!r} and the image {image_frame!r}: align depth to the '
                'colour image (depth_image_proc register, or align_depth of the driver)'
            )
        info_frame = info.header.frame_id
        if info_frame and depth_frame and info_frame != depth_frame:
            raise FrameError(
                f'{self._topics["camera_info"]} has the frame_id {info_frame!r} and the depth image '
                f'{depth_frame!r}: remap depth/camera_info to the topic beside the depth image'
            )
        pixels = depth_from_image(depth)
        size = (depth.height, depth.width)
        camera = camera_of(info).scaled(size)
        down, across = size[0] / labels.shape[0], size[1] / labels.shape[1]
        labels = scaled_labels(labels, size)
        message = Detection3DArray()
        message.header.stamp, message.header.frame_id = header.stamp, info.header.frame_id or image_frame
        for item in objects:
            if item.box is None:
                continue
            x, y, width, height = item.box
            location = locate(pixels, labels, item.label, (x * across, y * down, width * across, height * down), camera)
            if location is not None:
                message.detections.append(_detection(message.header, item, location))
        return message


def _detection(header: Any, item: TrackedObject, location: Location) -> Any:
    detection = Detection3D(header=header, id=str(item.id), results=[hypothesis(item)])
    position, box = detection.results[0].pose.pose.position, detection.bbox
    position.x, position.y, position.z = location.position
    centre, size = box.center.position, box.size
    centre.x, centre.y, centre.z = location.centre
    size.x, size.y, size.z = location.size
    return detection
