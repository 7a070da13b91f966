# SPDX-License-Identifier: MIT
"""Where an object is in space: its mask, a depth image and a camera's matrix → a position and a box. No rclpy.

Camera frames as in REP 103: x right, y down, z forward [m]. Images are taken for rectified, as depth_image_proc takes
them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from xmem_ros.errors import FrameError

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_PIXELS = 8  # with depth, of an object that is to have a place
_RIM = 2  # px; at an edge a sensor mixes the depths of both sides
_OUTLIER = 3 * 1.4826  # median absolute deviations; the factor makes that three standard deviations of normal noise
_LEAST_SPREAD = 0.02  # of the distance; what lies within it is no outlier, however flat the rest is
_SHARE = (2, 98)  # percentiles that a box reaches to
_MOST_PIXELS = 4096  # about, of which depths are taken; more say the same, and take longer
_MOST_SKEW = 0.02  # between the shapes of images that show the same


@dataclass(frozen=True)
class Camera:
    """A pinhole [px]; the centre of the first pixel is 0, 0."""

    fx: float
    fy: float
    cx: float
    cy: float
    size: tuple[int, int]  # H, W that the others are for

    def scaled(self, size: tuple[int, int]) -> Camera:
        """The same camera with images of another H, W; raises `FrameError` where they cannot show the same."""
        if size == self.size:
            return self
        check_shape(size, self.size, 'the depth image', 'its camera_info')
        down, across = size[0] / self.size[0], size[1] / self.size[1]
        return Camera(
            self.fx * across, self.fy * down, (self.cx + 0.5) * across - 0.5, (self.cy + 0.5) * down - 0.5, size
        )


@dataclass(frozen=True)
class Place:
    """Of the side of an object that the camera sees; x, y, z in m, in the camera's frame."""

    position: tuple[float, float, float]  # medians
    centre: tuple[float, float, float]  # of the box
    size: tuple[float, float, float]  # of the box, along the axes


def camera_of(info: Any) -> Camera:
    """Read a sensor_msgs/CameraInfo, with its region of interest and binning.

    Raises:
        FrameError: an uncalibrated camera.
    """
    fx, fy, cx, cy = info.p[0], info.p[5], info.p[2], info.p[6]
    if not fx:
        fx, fy, cx, cy = info.k[0], info.k[4], info.k[2], info.k[5]
    roi = info.roi
    height, width = roi.height or info.height, roi.width or info.width
    across, down = info.binning_x or 1, info.binning_y or 1
    size = (height // down, width // across)
    numbers = np.array([fx, fy, cx, cy])
    if not (np.isfinite(numbers).all() and fx > 0 and fy > 0 and min(size) > 0):
        raise FrameError(
            f'camera_info is not of a calibrated camera: fx {fx}, fy {fy}, cx {cx}, cy {cy}, {width}×{height} px; '
            'calibrate the camera, or have its driver publish what it knows'
        )
    return Camera(fx / across, fy / down, (cx - roi.x_offset) / across, (cy - roi.y_offset) / down, size)


def check_shape(size: tuple[int, int], other: tuple[int, int], what: str, beside: str) -> None:
    """Raise `FrameError` unless images of two H, W are alike but for their scale."""
    if abs(size[0] * other[1] / (size[1] * other[0]) - 1) > _MOST_SKEW:
        raise FrameError(
            f'{what} is {size[1]}×{size[0]} and {beside} {other[1]}×{other[0]}, which is no scale of it: align depth '
            'to the colour image'
        )


def scaled_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A label image, H×W uint8, at the H, W of the depth image, by nearest; raises `FrameError` for another shape."""
    if labels.shape == size:
        return labels
    check_shape(size, labels.shape, 'the depth image', 'the image')
    return cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def locate(depth: np.ndarray, labels: np.ndarray, label: int, box: Sequence[float], camera: Camera) -> Place | None:
    """Where the pixels of a label are.

    Args:
        depth: H×W uint16 [mm] or float32 [m]; 0, negative and not finite are no depth.
        labels: H×W uint8.
        label: of the object.
        box: x, y, width, height around it [px].
        camera: of images of that size.

    Returns:
        None where fewer than `LEAST_PIXELS` of the object have a depth.
    """
    x, y, width, height = box
    x0, y0 = max(math.floor(x) - _RIM, 0), max(math.floor(y) - _RIM, 0)
    x1, y1 = math.ceil(x + width) + _RIM, math.ceil(y + height) + _RIM
    inside = (labels[y0:y1, x0:x1] == label).astype(np.uint8)
    if not inside.any():
        return None
    near = depth[y0:y1, x0:x1]
    eroded = cv2.erode(inside, np.ones((2 * _RIM + 1, 2 * _RIM + 1), np.uint8))
    for mask in (eroded, inside):
        every = max(math.isqrt(cv2.countNonZero(mask) // _MOST_PIXELS), 1)
        rows, columns = np.nonzero(mask[::every, ::every])
        rows, columns = rows * every, columns * every
        z = near[rows, columns].astype(np.float32)
        with np.errstate(invalid='ignore'):
            seen = np.isfinite(z) & (z > 0)
        if np.count_nonzero(seen) >= LEAST_PIXELS:
            break
    else:
        return None
    rows, columns, z = rows[seen] + y0, columns[seen] + x0, z[seen]
    if near.dtype == np.uint16:
        z = z * np.float32(1e-3)
    with np.errstate(all='ignore'):  # depths of 1e38 m, or a focal length of 1e-300 px: no place comes of them
        place = _place(z, rows, columns, camera)
    return place if place is not None and np.isfinite([place.position, place.centre, place.size]).all() else None


def _place(z: np.ndarray, rows: np.ndarray, columns: np.ndarray, camera: Camera) -> Place | None:
    """Of n depths [m] and the pixels that they are of; None where no depth is near the median."""
    z = z.astype(np.float64)
    away = np.abs(z - np.median(z))
    sound = away <= max(_OUTLIER * float(np.median(away)), _LEAST_SPREAD * float(np.median(z)))
    if not sound.any():
        return None
    rows, columns, z = rows[sound], columns[sound], z[sound]
    points = np.stack([(columns - camera.cx) / camera.fx * z, (rows - camera.cy) / camera.fy * z, z])
    low, high = np.percentile(points, _SHARE, axis=1)
    return Place(_triple(np.median(points, axis=1)), _triple((low + high) / 2), _triple(high - low))


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z
