# SPDX-License-Identifier: MIT
"""Conversion of `TrackedObject` ↔ xmem_ros/TrackedObject, for rclpy and bags. No rclpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xmem_ros.objects import ObjectState, TrackedObject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Make = Callable[..., Any]  # make('std_msgs/msg/Header', **fields) returns the message

OBJECT = 'xmem_ros/msg/TrackedObject'
OBJECTS = 'xmem_ros/msg/TrackedObjectArray'
BOX = 'sensor_msgs/msg/RegionOfInterest'
DURATION = 'builtin_interfaces/msg/Duration'


def object_message(item: TrackedObject, make: Make) -> Any:
    """Convert an object to xmem_ros/TrackedObject."""
    x, y, width, height = item.box or (0, 0, 0, 0)
    return make(
        OBJECT,
        id=item.id,
        label=item.label,
        name=item.name,
        state=int(item.state),
        score=float(item.score),
        box=make(BOX, x_offset=x, y_offset=y, height=height, width=width, do_rectify=False),
        area=item.area,
        centroid_x=float(item.centroid[0]),
        centroid_y=float(item.centroid[1]),
        time_since_seed=duration_message(item.time_since_seed, make),
        time_since_seen=duration_message(item.time_since_seen, make),
        frames_since_seed=item.frames_since_seed,
        frames_since_seen=item.frames_since_seen,
    )


def objects_message(header: Any, objects: Sequence[TrackedObject], processing_s: float, make: Make) -> Any:
    """Convert the objects of one image to xmem_ros/TrackedObjectArray."""
    return make(
        OBJECTS,
        header=header,
        objects=[object_message(item, make) for item in objects],
        processing_time=duration_message(processing_s, make),
    )


def object_of(message: Any) -> TrackedObject:
    """Convert an xmem_ros/TrackedObject to an object; raises `ValueError` for an unknown state."""
    box = message.box
    return TrackedObject(
        id=message.id,
        label=message.label,
        name=message.name,
        state=ObjectState(message.state),
        score=message.score,
        box=(box.x_offset, box.y_offset, box.width, box.height) if box.width else None,
        area=message.area,
        centroid=(message.centroid_x, message.centroid_y),
        frames_since_seed=message.frames_since_seed,
        frames_since_seen=message.frames_since_seen,
        time_since_seed=seconds_of(message.time_since_seed),
        time_since_seen=seconds_of(message.time_since_seen),
    )


def duration_message(seconds: float, make: Make) -> Any:
    """Convert seconds to builtin_interfaces/Duration, to the microsecond, clamped to 68 years."""
    whole, microseconds = divmod(round(seconds * 1e6), 1_000_000)
    return make(DURATION, sec=min(max(whole, -(2**31)), 2**31 - 1), nanosec=microseconds * 1000)


def seconds_of(duration: Any) -> float:
    """Convert a builtin_interfaces/Duration to seconds."""
    return float(duration.sec + duration.nanosec / 1e9)
