# SPDX-License-Identifier: MIT
"""Located objects in the target frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xmem_ros.node.depth_source import Measurement
    from xmem_ros.objects import TrackedObject


@dataclass(frozen=True)
class PlacedObject:
    """An object with its position and box in the target frame [m].

    The box stays aligned with the axes of the camera, so in another frame it is turned.
    """

    object: TrackedObject
    position: tuple[float, float, float]
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    orientation: tuple[float, float, float, float]  # x, y, z, w of the box


def placed_objects(measurement: Measurement) -> list[PlacedObject]:
    """Return the visible objects that have depth, in the order of their ids."""
    transform = measurement.transform
    orientation = transform.quaternion()
    return [
        PlacedObject(
            item, transform.point(location.position), transform.point(location.centre), location.size, orientation
        )
        for item, location in measurement.frame.located
    ]
