# SPDX-License-Identifier: MIT
"""`~/poses`, `~/motions` and TF: where the objects are, and how fast they move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geometry_msgs.msg import Point, Pose, PoseArray, TransformStamped, Vector3
from rclpy.qos import QoSProfile

from xmem_ros.errors import ParameterError
from xmem_ros.msg import ObjectMotion, ObjectMotionArray
from xmem_ros.node import qos
from xmem_ros.node.placed_objects import placed_objects
from xmem_ros.node.target_frame import MISSING_TF2_MSGS
from xmem_ros.objects import ObjectState
from xmem_ros.stream.motion import MotionFilter

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node
    from rclpy.publisher import Publisher

    from xmem_ros.node.depth_source import Measurement
    from xmem_ros.node.placed_objects import PlacedObject
    from xmem_ros.parameters.table import Parameters
    from xmem_ros.stream.motion import Motion


class ObjectPoses:
    """Publishes a pose of each visible object that has depth.

    `~/poses` is published while it has a subscriber, the transforms with the parameter
    `depth.publish_tf`.

    Arguments:
        node: the publishing node.
        publish_tf: also publish a transform of each object.

    Raises:
        ParameterError: `publish_tf` without tf2_msgs.
    """

    def __init__(self, node: Node, *, publish_tf: bool) -> None:
        self._node = node
        transforms = _transform_type() if publish_tf else None
        self._poses = node.create_publisher(
            PoseArray, '~/poses', qos.output(), qos_overriding_options=qos.overridable()
        )
        self._transforms: Publisher | None = None
        if transforms is not None:
            self._message = transforms
            self._transforms = node.create_publisher(transforms, '/tf', QoSProfile(depth=100))  # as tf2's broadcaster

    @property
    def wanted(self) -> bool:
        """Whether anybody listens."""
        return any(
            publisher is not None and publisher.get_subscription_count()
            for publisher in (self._poses, self._transforms)
        )

    def publish(self, measurement: Measurement) -> None:
        """Publish the poses of a frame."""
        placed = placed_objects(measurement)
        if self._poses.get_subscription_count():
            self._poses.publish(PoseArray(header=measurement.header, poses=[_pose(item) for item in placed]))
        if self._transforms is not None and placed:
            prefix = self._node.get_fully_qualified_name().lstrip('/')
            self._transforms.publish(
                self._message(transforms=[_transform(measurement.header, prefix, item) for item in placed])
            )

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in (self._poses, self._transforms):
            if publisher is not None:
                self._node.destroy_publisher(publisher)


class ObjectMotions:
    """Publishes `~/motions`, positions and velocities filtered by a Kalman filter for each object.

    The filters run while the topic has a subscriber.

    Arguments:
        node: the publishing node.
        parameters: returns the current parameters.
    """

    def __init__(self, node: Node, parameters: Callable[[], Parameters]) -> None:
        self._node, self._parameters = node, parameters
        self._publisher = node.create_publisher(
            ObjectMotionArray, '~/motions', qos.output(), qos_overriding_options=qos.overridable()
        )
        self._filters: dict[int, MotionFilter] = {}
        self._sizes: dict[int, tuple[float, float, float]] = {}
        self._frame_id = ''
        self._stamp_ns = 0

    @property
    def wanted(self) -> bool:
        """Whether anybody listens."""
        return self._publisher.get_subscription_count() > 0

    def publish(self, measurement: Measurement) -> None:
        """Update the filters by a frame and publish them."""
        frame = measurement.frame
        if measurement.header.frame_id != self._frame_id or frame.stamp_ns < self._stamp_ns:
            self._filters, self._sizes = {}, {}  # positions in another frame, or of a bag that begins again
        self._frame_id, self._stamp_ns = measurement.header.frame_id, frame.stamp_ns
        placed = {item.object.id: item for item in placed_objects(measurement)}
        message = ObjectMotionArray(header=measurement.header)
        for item in frame.objects:
            motion = self._motion(item.id, placed.get(item.id), frame.stamp_ns / 1e9)
            if motion is not None and item.state != ObjectState.LOST:
                message.motions.append(_motion_message(item, motion, self._sizes[item.id], item.id in placed))
        known = {item.id for item in frame.objects}
        for object_id in self._filters.keys() - known:  # removed
            del self._filters[object_id], self._sizes[object_id]
        self._publisher.publish(message)

    def _motion(self, object_id: int, item: PlacedObject | None, time_s: float) -> Motion | None:
        depth = self._parameters().depth
        found = self._filters.get(object_id)
        if item is None:
            return found.predict(time_s, speed_change=depth.speed_change) if found is not None else None
        self._sizes[object_id] = item.size
        if found is None:
            found = self._filters[object_id] = MotionFilter(time_s, item.position, depth.position_noise)
            return found.predict(time_s, speed_change=depth.speed_change)
        return found.update(time_s, item.position, noise=depth.position_noise, speed_change=depth.speed_change)

    def close(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_publisher(self._publisher)


def _transform_type() -> type:
    try:
        from tf2_msgs.msg import TFMessage
    except ImportError as error:
        raise ParameterError(MISSING_TF2_MSGS) from error
    return TFMessage


def frame_of_object(node: str, object_id: int) -> str:
    """Return the TF frame of an object: xmem/object_3, or left/xmem/object_3 in a namespace."""
    return f'{node.lstrip("/")}/object_{object_id}'


def _pose(item: PlacedObject) -> Pose:
    x, y, z = item.position
    return Pose(position=Point(x=x, y=y, z=z))  # the default orientation is none: w = 1


def _transform(header: Any, node: str, item: PlacedObject) -> TransformStamped:
    message = TransformStamped(header=header, child_frame_id=frame_of_object(node, item.object.id))
    x, y, z = item.position
    message.transform.translation = Vector3(x=x, y=y, z=z)
    return message


def _motion_message(item: Any, motion: Motion, size: tuple[float, float, float], measured: bool) -> ObjectMotion:
    (x, y, z), (vx, vy, vz), (sx, sy, sz) = motion.position, motion.velocity, size
    return ObjectMotion(
        id=item.id,
        label=item.label,
        name=item.name,
        state=int(item.state),
        measured=measured,
        position=Point(x=x, y=y, z=z),
        velocity=Vector3(x=vx, y=vy, z=vz),
        size=Vector3(x=sx, y=sy, z=sz),
        covariance=motion.covariance().reshape(-1),
    )
