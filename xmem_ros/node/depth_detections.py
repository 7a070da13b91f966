# SPDX-License-Identifier: MIT
"""`~/detections_3d`: what is tracked, placed in space by depth images. Needs vision_msgs."""

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
from xmem_ros.stream.depth import Place, camera_of, locate, scaled_labels
from xmem_ros.stream.frame import Frame
from xmem_ros.stream.history import History
from xmem_ros.stream.stamp_matching import StampMatcher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from rclpy.node import Node

    from xmem_ros.parameters.table import Parameters
    from xmem_ros.tracker import StepResult, TrackedObject

_SELDOM: dict[str, Any] = {'throttle_duration_sec': 5.0}
_WAITING = 10  # messages that the middleware keeps
_Result = tuple[Any, 'np.ndarray', list['TrackedObject']]  # header, labels, objects


class DepthDetections:
    """Subscribes to `depth/image` and `depth/camera_info`, and publishes `~/detections_3d`.

    Arguments:
        node: that subscribes and publishes.
        parameters: gives the parameters as they are now.
    """

    def __init__(self, node: Node, parameters: Callable[[], Parameters]) -> None:
        self._node, self._parameters = node, parameters
        limits = parameters()
        # images that wait are tracked late, and depth comes faster than they may be tracked
        waiting = limits.queue_depth if limits.queue == 'all' else 1
        history = History(
            max(limits.history, 2 * waiting), limits.history_seconds, limits.history_mb * 1e6, least=2 * waiting
        )
        self._matcher: StampMatcher[_Result] = StampMatcher(history)
        self._info: CameraInfo | None = None
        self._subscriptions: list[Any] = []
        self._published = self._given_up = 0
        self._topics = {kind: node.resolve_topic_name(f'depth/{kind}') for kind in ('image', 'camera_info')}
        self._publisher = node.create_publisher(
            Detection3DArray, '~/detections_3d', qos.output(), qos_overriding_options=qos.overridable()
        )

    def open(self) -> None:
        """Subscribe."""
        for kind, topic, take in (
            (Image, self._topics['image'], self._take),
            (CameraInfo, self._topics['camera_info'], self._take_info),
        ):
            self._subscriptions.append(subscribe(self._node, kind, topic, take, _WAITING))

    def stop(self) -> None:
        """Unsubscribe."""
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())
        self._matcher.clear()

    def close(self) -> None:
        """Unsubscribe, and destroy the publisher."""
        self.stop()
        self._node.destroy_publisher(self._publisher)

    def values(self) -> dict[str, str]:
        """For diagnostics."""
        return {keys.DETECTIONS_3D: str(self._published), keys.IMAGES_WITHOUT_DEPTH: str(self._given_up)}

    def set_objects(self, objects: Sequence[TrackedObject]) -> None:
        """Nothing to do."""

    def publish(self, header: Any, result: StepResult) -> None:
        """What one image shows, now or when its depth arrives."""
        if not self._publisher.get_subscription_count():
            return
        what = (header, result.labels, result.objects)
        depth, given_up = self._matcher.add_result(stamp_ns(header.stamp), what, self._slop_ns())
        if depth is not None:
            self._publish(what, depth.message)
        if given_up:
            self._given_up += given_up
            topic, slop = self._topics['image'], self._parameters().depth.slop
            self._node.get_logger().warning(
                f'no 3D detections: no depth image on {topic} within {slop:g} s of images of ten frames ago: see that '
                'it is published with the stamps of the images, or raise depth.slop; raise history_seconds where '
                'images are tracked later than that',
                **_SELDOM,
            )

    def _slop_ns(self) -> float:
        return self._parameters().depth.slop * 1e9

    def _take(self, message: Image) -> None:
        try:
            depth = Frame(message, stamp_ns(message.header.stamp))
            for what in self._matcher.add(depth, self._slop_ns()):
                self._publish(what, message)
        except Exception:  # that left a callback would end the executor, and with it the node
            self._node.get_logger().error(f'no 3D detections: {traceback.format_exc()}', **_SELDOM)

    def _take_info(self, message: CameraInfo) -> None:
        self._info = message

    def _publish(self, what: _Result, depth: Image) -> None:
        try:
            self._publisher.publish(self._message(*what, depth))
            self._published += 1
        except FrameError as error:
            self._node.get_logger().warning(f'no 3D detections: {for_log(error)}', **_SELDOM)

    def _message(self, header: Any, labels: np.ndarray, objects: list[TrackedObject], depth: Image) -> Any:
        info = self._info
        if info is None:
            raise FrameError(f"no camera_info has come on {self._topics['camera_info']} yet; remap it to the camera's")
        image_frame, depth_frame = header.frame_id, depth.header.frame_id
        if image_frame and depth_frame and image_frame != depth_frame:
            raise FrameError(
                f'the depth image is in the frame {depth_frame!r} and the image in {image_frame!r}: align depth to the '
                'colour image (depth_image_proc register, or align_depth of the driver)'
            )
        info_frame = info.header.frame_id
        if info_frame and depth_frame and info_frame != depth_frame:
            raise FrameError(
                f'{self._topics["camera_info"]} is of the frame {info_frame!r} and the depth image in '
                f'{depth_frame!r}: remap depth/camera_info to the one that is published beside the depth image'
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
            place = locate(pixels, labels, item.label, (x * across, y * down, width * across, height * down), camera)
            if place is not None:
                message.detections.append(_detection(message.header, item, place))
        return message


def _detection(header: Any, item: TrackedObject, place: Place) -> Any:
    detection = Detection3D(header=header, id=str(item.id), results=[hypothesis(item)])
    position, box = detection.results[0].pose.pose.position, detection.bbox
    position.x, position.y, position.z = place.position
    centre, size = box.center.position, box.size
    centre.x, centre.y, centre.z = place.centre
    size.x, size.y, size.z = place.size
    return detection
