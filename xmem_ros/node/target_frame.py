# SPDX-License-Identifier: MIT
"""Transformation of positions from the camera to the parameter `depth.target_frame`, by tf2."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.time import Time

from xmem_ros.errors import FrameError, ParameterError
from xmem_ros.outside_text import for_log

if TYPE_CHECKING:
    from rclpy.node import Node

_WAIT_S = 0.3  # for a transform that arrives later than the image
_DISTRO = os.environ.get('ROS_DISTRO') or '<distribution>'

MISSING_TF2_ROS = (
    'depth.target_frame needs tf2_ros, which cannot be imported: apt install '
    f'ros-{_DISTRO}-tf2-ros-py, or build geometry2 from source, as it is not on PyPI; or set depth.target_frame to an '
    "empty string, for the camera's frame"
)
MISSING_TF2_MSGS = (
    'depth.publish_tf needs tf2_msgs, which cannot be imported: apt install '
    f'ros-{_DISTRO}-tf2-msgs, or build geometry2 from source, as it is not on PyPI; or set depth.publish_tf to false'
)


@dataclass(frozen=True)
class Transform:
    """Rotation 3×3 and translation [m] from one frame to another."""

    rotation: np.ndarray
    translation: np.ndarray

    @property
    def identity(self) -> bool:
        """Whether it changes nothing."""
        return bool((self.rotation == np.eye(3)).all() and not self.translation.any())

    def points(self, points: np.ndarray) -> np.ndarray:
        """Transform N×3 points [m]; keeps their type."""
        if self.identity:
            return points
        return (points @ self.rotation.T.astype(points.dtype) + self.translation.astype(points.dtype)).astype(
            points.dtype, copy=False
        )

    def point(self, position: tuple[float, float, float]) -> tuple[float, float, float]:
        """Transform a point [m]."""
        x, y, z = (self.rotation @ np.asarray(position) + self.translation).tolist()
        return x, y, z

    def quaternion(self) -> tuple[float, float, float, float]:
        """Return the rotation as x, y, z, w; w is not negative."""
        m = self.rotation
        # Of the four components, the largest one is computed first: none is divided by zero.
        squares = (
            1 + m[0, 0] - m[1, 1] - m[2, 2],
            1 - m[0, 0] + m[1, 1] - m[2, 2],
            1 - m[0, 0] - m[1, 1] + m[2, 2],
            1 + m[0, 0] + m[1, 1] + m[2, 2],
        )
        rows = (
            (squares[0], m[1, 0] + m[0, 1], m[0, 2] + m[2, 0], m[2, 1] - m[1, 2]),
            (m[1, 0] + m[0, 1], squares[1], m[2, 1] + m[1, 2], m[0, 2] - m[2, 0]),
            (m[0, 2] + m[2, 0], m[2, 1] + m[1, 2], squares[2], m[1, 0] - m[0, 1]),
            (m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], squares[3]),
        )
        row = np.array(rows[int(np.argmax(squares))], float)
        row /= math.copysign(float(np.linalg.norm(row)), row[3] if row[3] else 1.0)
        x, y, z, w = row.tolist()
        return x, y, z, w


IDENTITY = Transform(np.eye(3), np.zeros(3))


class TargetFrame:
    """Looks transforms up with tf2_ros.

    Arguments:
        node: subscribes to /tf and /tf_static.
        name: of the frame; empty: the frame of the camera, without tf2_ros.

    Raises:
        ParameterError: a frame is named and tf2_ros is missing.
    """

    def __init__(self, node: Node, name: str) -> None:
        self._node, self.name = node, name.lstrip('/')
        self._buffer: Any = None
        self._listener: Any = None
        self._jump: Any = None
        if self.name:
            _tf2_ros()

    def open(self) -> None:
        """Subscribe, if a frame is named."""
        if not self.name:
            return
        tf2_ros = _tf2_ros()
        # Given the node, the buffer would offer a service that cannot be taken back.
        self._buffer = tf2_ros.Buffer()
        backwards = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True)
        self._jump = self._node.get_clock().create_jump_callback(backwards, post_callback=self._forget)
        self._listener = tf2_ros.TransformListener(self._buffer, self._node, spin_thread=False)

    def close(self) -> None:
        """Unsubscribe."""
        if self._listener is not None:
            self._jump.unregister()
            self._listener.unregister()
            self._listener = self._buffer = self._jump = None

    def lookup(self, stamp: Any, frame_id: str, target: str = '') -> tuple[str, Transform]:
        """Return the name of the target frame and the transform to it, at the time of an image.

        Args:
            stamp: builtin_interfaces/Time of the image.
            frame_id: frame of the camera.
            target: another frame than the one of the parameter; needs that one to be set.

        Raises:
            FrameError: there is no transform, or none at this time.
        """
        wanted = target.lstrip('/') or self.name
        if not wanted or wanted == frame_id:
            return frame_id, IDENTITY
        if self._buffer is None:
            raise FrameError(
                f'the frame {wanted!r} was asked for, and transforms are looked up only with the parameter '
                f'depth.target_frame: set it, or ask for the frame of the camera, {frame_id!r}'
            )
        if not frame_id:
            raise FrameError('the camera_info has no frame_id, so its points cannot be transformed: set it')
        try:
            found = self._buffer.lookup_transform(
                wanted, frame_id, Time.from_msg(stamp), timeout=Duration(seconds=_WAIT_S)
            ).transform
        except Exception as error:  # tf2's errors, which have no common base in every release
            raise FrameError(
                f'no transform from {for_log(frame_id)} to {for_log(wanted)} at the time of the image: {for_log(error)}'
            ) from error
        return wanted, _transform(found)

    def _forget(self, _: Any) -> None:
        """Clear the buffer after a jump back in time; it would refuse new transforms as too old."""
        if self._buffer is not None:
            self._buffer.clear()


def _tf2_ros() -> Any:
    try:
        import tf2_ros
    except Exception as error:  # an extension of another NumPy or Python raises more than ImportError
        raise ParameterError(f'{MISSING_TF2_ROS} ({type(error).__name__}: {error})') from error
    return tf2_ros


def _transform(message: Any) -> Transform:
    q, t = message.rotation, message.translation
    x, y, z, w = np.array([q.x, q.y, q.z, q.w]) / np.linalg.norm([q.x, q.y, q.z, q.w])
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    return Transform(rotation, np.array([t.x, t.y, t.z]))
