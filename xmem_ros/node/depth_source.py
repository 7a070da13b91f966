# SPDX-License-Identifier: MIT
"""Depth images beside the colour images: matched with the results of their frames by stamp.

A thread of its own measures the frames and publishes what the outputs make of them, so that clouds
of a whole image delay no tracking.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from xmem_ros.conversions.compressed_depth import TRANSPORT, depth_of
from xmem_ros.conversions.images import stamp_ns
from xmem_ros.errors import FrameError
from xmem_ros.node import diagnostic_keys as keys
from xmem_ros.node import qos
from xmem_ros.node.best_available import BestAvailableSubscription
from xmem_ros.outside_text import for_log
from xmem_ros.stream.depth import camera_of, scaled_labels
from xmem_ros.stream.frame import Frame
from xmem_ros.stream.history import History
from xmem_ros.stream.measured_frame import MeasuredFrame
from xmem_ros.stream.stamp_matching import MAX_WAITING, StampMatcher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rclpy.node import Node

    from xmem_ros.node.target_frame import TargetFrame, Transform
    from xmem_ros.parameters.table import Parameters
    from xmem_ros.tracker import StepResult, TrackedObject

_THROTTLED: dict[str, Any] = {'throttle_duration_sec': 5.0}
_QUEUE_DEPTH = 10  # of the middleware


@dataclass(frozen=True)
class Result:
    """What was tracked in an image, and its header."""

    header: Any  # std_msgs/Header
    labels: Any  # H×W uint8
    objects: list[TrackedObject]


@dataclass(frozen=True)
class Measurement:
    """A tracked frame with its depth, and the frame in which it is published."""

    header: Header  # stamp of the image; frame_id of the target frame
    frame: MeasuredFrame
    transform: Transform  # from the camera to the target frame
    camera_frame: str


class DepthOutput(Protocol):
    """A publisher of what depth images tell of tracked objects."""

    @property
    def wanted(self) -> bool:
        """Whether anybody listens."""

    def publish(self, measurement: Measurement) -> None:
        """Publish a frame; called by one thread, in the order of the matches."""

    def close(self) -> None:
        """Destroy the publishers."""


class DepthSource:
    """Subscribes to `depth/image` and `depth/camera_info`, and feeds the outputs.

    Arguments:
        node: the subscribing node.
        parameters: returns the current parameters.
        target: the frame in which positions are published.
        outputs: publishers of the measured frames.
    """

    def __init__(
        self,
        node: Node,
        parameters: Callable[[], Parameters],
        target: TargetFrame,
        outputs: Sequence[DepthOutput],
    ) -> None:
        self._node, self._parameters, self._target, self._outputs = node, parameters, target, outputs
        limits = parameters()
        # Waiting images are tracked late, and depth images may arrive faster than they are tracked.
        waiting = limits.queue_depth if limits.queue == 'all' else 1
        self._history = History(
            max(limits.history, 2 * waiting), limits.history_seconds, limits.history_mb * 1e6, least=2 * waiting
        )
        self._matcher: StampMatcher[Result] = StampMatcher(self._history)
        self._info: CameraInfo | None = None
        self._topics = {kind: node.resolve_topic_name(f'depth/{kind}') for kind in ('image', 'camera_info')}
        self._compressed = limits.depth.image_transport == TRANSPORT
        if self._compressed:
            self._topics['image'] += f'/{TRANSPORT}'
        self._images = BestAvailableSubscription(node, self._on_depth)
        self._infos = BestAvailableSubscription(node, self._on_camera_info)
        self._measured = self._unmatched = 0
        self._recent: deque[Result] = deque(maxlen=MAX_WAITING)  # for `newest`, newest last
        self._matched: deque[tuple[Result, Image]] = deque(maxlen=MAX_WAITING)
        self._changed = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Subscribe."""
        self._stopping = False
        self._target.open()
        self._thread = threading.Thread(target=self._run, name='xmem-depth', daemon=True)
        self._thread.start()
        kind = CompressedImage if self._compressed else Image
        self._images.open(kind, self._topics['image'], qos.beside_images(_QUEUE_DEPTH))
        self._infos.open(CameraInfo, self._topics['camera_info'], qos.beside_images(_QUEUE_DEPTH))

    def watch(self) -> None:
        """Subscribe again if a publisher's QoS asks for it; call about once a second."""
        self._images.watch()
        self._infos.watch()

    def stop(self, seconds: float | None = None) -> None:
        """Unsubscribe and finish the current frame, within `seconds` [s] if given."""
        self._images.close()
        self._infos.close()
        with self._changed:
            self._stopping = True
            self._matched.clear()
            self._recent.clear()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(seconds)
            self._thread = None
        self._target.close()
        self._matcher.clear()

    def close(self) -> None:
        """Unsubscribe and destroy the publishers."""
        self.stop()
        for output in self._outputs:
            output.close()

    def diagnostics(self) -> dict[str, str]:
        """Return key → value of the node's status."""
        return {keys.IMAGES_WITH_DEPTH: str(self._measured), keys.IMAGES_WITHOUT_DEPTH: str(self._unmatched)}

    def set_objects(self, objects: Sequence[TrackedObject]) -> None:
        """Do nothing: each result has its own objects."""

    def publish(self, header: Any, result: StepResult) -> None:
        """Publish the result of a frame once its depth image is there, in another thread."""
        item = Result(header, result.labels, result.objects)
        with self._changed:
            if self._stopping:  # a result that was still to be published
                return
            self._recent.append(item)
        if not any(output.wanted for output in self._outputs):
            return
        depth, unmatched = self._matcher.add_result(stamp_ns(header.stamp), item, self._slop_ns())
        if depth is not None:
            self._add(item, depth.message)
        if unmatched:
            self._unmatched += unmatched
            self._node.get_logger().warning(self._unmatched_report(), **_THROTTLED)

    def newest(self, target: str = '') -> tuple[Result, Measurement]:
        """Measure the newest tracked frame that has depth; `target` as for `TargetFrame.lookup`.

        Raises:
            FrameError: there is none, or its depth cannot be used.
        """
        with self._changed:
            recent = list(self._recent)
        for item in reversed(recent):
            depth = self._history.nearest(stamp_ns(item.header.stamp), self._slop_ns())
            if depth is not None:
                return item, self.measure(item, depth.message, target)
        raise FrameError(f'none of the last {MAX_WAITING} tracked images has depth: {self._missing()}')

    def measure(self, item: Result, depth: Image, target: str = '') -> Measurement:
        """Measure a frame by its depth image; `target` as for `TargetFrame.lookup`.

        Raises:
            FrameError: the depth image, its calibration or its transform cannot be used.
        """
        frame, camera_frame = self._measured_frame(item, depth)
        name, transform = self._target.lookup(item.header.stamp, camera_frame, target)
        header = Header(stamp=item.header.stamp, frame_id=name)
        return Measurement(header, frame, transform, camera_frame)

    def _slop_ns(self) -> float:
        return self._parameters().depth.slop * 1e9

    def _missing(self) -> str:
        topic, slop = self._topics['image'], self._parameters().depth.slop
        offers = self._images.offers()
        if not offers:
            return f'nobody publishes {topic}: remap depth/image to the depth images of the camera'
        return (
            f'no depth image on {topic} within {slop:g} s of them: publish it with the stamps of the images, or raise '
            'depth.slop; raise history_seconds if images are tracked later than that. If large images are lost: '
            f'{offers}; docs/troubleshooting.md tells how to give the middleware room for them'
        )

    def _unmatched_report(self) -> str:
        return f'an image of ten frames ago has no depth: {self._missing()}'

    def _on_depth(self, message: Image) -> None:
        try:
            depth = Frame(message, stamp_ns(message.header.stamp))
            for item in self._matcher.add(depth, self._slop_ns()):
                self._add(item, message)
        except Exception:  # an exception that leaves a callback ends the executor and the node
            self._node.get_logger().error(f'depth image dropped: {traceback.format_exc()}', **_THROTTLED)

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._info = message

    def _add(self, item: Result, depth: Image) -> None:
        with self._changed:
            if not self._stopping:
                self._matched.append((item, depth))
                self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._matched)
                if self._stopping:
                    return
                item, depth = self._matched.popleft()
            try:
                wanted = [output for output in self._outputs if output.wanted]
                if not wanted:
                    continue
                measurement = self.measure(item, depth)
                for output in wanted:
                    output.publish(measurement)
                self._measured += 1
            except FrameError as error:
                self._node.get_logger().warning(f'no objects in space: {for_log(error)}', **_THROTTLED)
            except Exception:
                if self._node.context.ok():  # otherwise the process is shutting down
                    self._node.get_logger().error(f'no objects in space: {traceback.format_exc()}', **_THROTTLED)

    def _measured_frame(self, item: Result, depth: Image) -> tuple[MeasuredFrame, str]:
        """Return labels and depth of one size, and the frame_id of the camera."""
        info = self._info
        if info is None:
            raise FrameError(
                f"no camera_info has arrived on {self._topics['camera_info']} yet: remap it to the camera's"
            )
        image_frame, depth_frame = item.header.frame_id, depth.header.frame_id
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
        pixels = depth_of(depth)
        size = pixels.shape
        frame = MeasuredFrame(
            stamp_ns(item.header.stamp),
            scaled_labels(item.labels, size),
            tuple(item.objects),
            pixels,
            camera_of(info).scaled(size),
            (size[0] / item.labels.shape[0], size[1] / item.labels.shape[1]),
        )
        return frame, info_frame or image_frame
