# SPDX-License-Identifier: MIT
"""xmem_ros/TrackedObject for responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builtin_interfaces.msg import Duration
from sensor_msgs.msg import RegionOfInterest

from xmem_ros.conversions.objects import BOX, DURATION, OBJECT, object_message
from xmem_ros.msg import TrackedObject

if TYPE_CHECKING:
    from xmem_ros import objects

_TYPES = {BOX: RegionOfInterest, DURATION: Duration, OBJECT: TrackedObject}


def message_of(item: objects.TrackedObject) -> TrackedObject:
    """Convert an object to its message."""
    return object_message(item, _make)


def _make(msgtype: str, **fields: Any) -> Any:
    return _TYPES[msgtype](**fields)
