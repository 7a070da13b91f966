# SPDX-License-Identifier: MIT
"""A tracked frame with its depth image: locations and point clouds of its objects. No ROS."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import cv2
import numpy as np

from xmem_ros.stream.depth import RIM, Camera, Location, inliers, locate, measured_pixels, rim_kernel

if TYPE_CHECKING:
    from xmem_ros.objects import TrackedObject


@dataclass(frozen=True)
class MeasuredFrame:
    """Labels and depth of one image, H×W both; points are in the frame of the camera [m]."""

    stamp_ns: int
    labels: np.ndarray  # H×W uint8
    objects: tuple[TrackedObject, ...]
    depth: np.ndarray  # H×W uint16 [mm] or float32 [m]
    camera: Camera
    scale: tuple[float, float] = (1.0, 1.0)  # down, across: of the depth image to the image of the boxes

    @cached_property
    def located(self) -> list[tuple[TrackedObject, Location]]:
        """The visible objects that have depth, with their locations."""
        found = []
        for item in self.objects:
            box = self._box(item)
            location = locate(self.depth, self.labels, item.label, box, self.camera) if box is not None else None
            if location is not None:
                found.append((item, location))
        return found

    def object_points(self, item: TrackedObject, *, every: int = 1, rim: int = RIM) -> np.ndarray:
        """Return the points of an object, without the rim of its mask and without outliers.

        Args:
            item: one of `objects`.
            every: rows and columns from one point to the next.
            rim: as for `measured_pixels`.

        Returns:
            N×3 float32; N is 0 for an object without a mask or without depth.
        """
        box = self._box(item)
        if box is None:
            return np.zeros((0, 3), np.float32)
        rows, columns, z = measured_pixels(self.depth, self.labels, item.label, box, every=every, rim=rim)
        if not z.size:
            return np.zeros((0, 3), np.float32)
        kept = inliers(z)
        return _points(rows[kept], columns[kept], z[kept], self.camera)

    def background_points(self, *, every: int = 1, rim: int = RIM) -> np.ndarray:
        """Return the points outside all masks and outside a rim [px] around them, N×3 float32."""
        covered = self.labels != 0
        if rim and covered.any():
            covered = cv2.dilate(covered.astype(np.uint8), rim_kernel(rim)) != 0
        z = self.depth[::every, ::every]
        with np.errstate(invalid='ignore'):
            kept = np.isfinite(z) & (z > 0) & ~covered[::every, ::every]
        rows, columns = np.nonzero(kept)
        z = z[rows, columns].astype(np.float32)
        if self.depth.dtype == np.uint16:
            z *= np.float32(1e-3)
        return _points(rows * every, columns * every, z, self.camera)

    def _box(self, item: TrackedObject) -> tuple[float, float, float, float] | None:
        if item.box is None:
            return None
        (x, y, width, height), (down, across) = item.box, self.scale
        return x * across, y * down, width * across, height * down


def _points(rows: np.ndarray, columns: np.ndarray, z: np.ndarray, camera: Camera) -> np.ndarray:
    """Return N×3 float32 points [m] of pixels and their depths; without those that overflow."""
    points = np.empty((len(z), 3), np.float32)
    with np.errstate(all='ignore'):  # depths of 1e38 m or a focal length of 1e-300 px
        points[:, 0] = (columns - camera.cx) / camera.fx * z
        points[:, 1] = (rows - camera.cy) / camera.fy * z
    points[:, 2] = z
    finite = np.isfinite(points).all(axis=1)
    return points if finite.all() else points[finite]
