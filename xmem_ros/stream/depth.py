# SPDX-License-Identifier: MIT
"""Location of an object in space, from its mask, a depth image and a camera matrix. No rclpy.

Camera frames follow REP 103: x right, y down, z forward [m]. Images must be rectified, as for
depth_image_proc.
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

MIN_PIXELS = 8  # with a depth, for an object to be located
RIM = 2  # px; at an edge a sensor mixes the depths of both sides
_SLICE = 0.02  # of the distance; thickness of the slices of depth in which outliers are sought
_MIN_SHARE = 0.003  # of the pixels; a slice with fewer is a gap
_BOX_PERCENTILES = (2, 98)
_MAX_SAMPLES = 4096  # about; pixels whose depths are used, more take longer and change nothing
_MAX_SKEW = 0.02  # relative difference of the aspect ratios of aligned images


@dataclass(frozen=True)
class Camera:
    """A pinhole camera [px]; the centre of the first pixel is 0, 0."""

    fx: float
    fy: float
    cx: float
    cy: float
    size: tuple[int, int]  # H, W of its images

    def scaled(self, size: tuple[int, int]) -> Camera:
        """Scale to images of another H, W; raises `FrameError` for another aspect ratio."""
        if size == self.size:
            return self
        check_aspect_ratio(size, self.size, 'the depth image', 'its camera_info')
        down, across = size[0] / self.size[0], size[1] / self.size[1]
        return Camera(
            self.fx * across, self.fy * down, (self.cx + 0.5) * across - 0.5, (self.cy + 0.5) * down - 0.5, size
        )


@dataclass(frozen=True)
class Location:
    """Position and box of the side of an object that the camera sees; x, y, z [m] in its frame."""

    position: tuple[float, float, float]  # medians
    centre: tuple[float, float, float]  # of the box
    size: tuple[float, float, float]  # of the box, along the axes


def camera_of(info: Any) -> Camera:
    """Read a sensor_msgs/CameraInfo, with its region of interest and binning.

    Raises:
        FrameError: the camera is not calibrated.
    """
    fx, fy, cx, cy = info.p[0], info.p[5], info.p[2], info.p[6]
    if not fx:
        fx, fy, cx, cy = info.k[0], info.k[4], info.k[2], info.k[5]
    roi = info.roi
    height, width = roi.height or info.height, roi.width or info.width
    across, down = info.binning_x or 1, info.binning_y or 1
    size = (height // down, width // across)
    matrix = np.array([fx, fy, cx, cy])
    if not (np.isfinite(matrix).all() and fx > 0 and fy > 0 and min(size) > 0):
        raise FrameError(
            f'camera_info is not of a calibrated camera: fx {fx}, fy {fy}, cx {cx}, cy {cy}, {width}×{height} px; '
            'calibrate the camera, or set up its driver to publish the calibration'
        )
    return Camera(fx / across, fy / down, (cx - roi.x_offset) / across, (cy - roi.y_offset) / down, size)


def check_aspect_ratio(size: tuple[int, int], other: tuple[int, int], name: str, other_name: str) -> None:
    """Raise `FrameError` unless images of two H, W have the same aspect ratio."""
    if abs(size[0] * other[1] / (size[1] * other[0]) - 1) > _MAX_SKEW:
        raise FrameError(
            f'{name} is {size[1]}×{size[0]} and {other_name} {other[1]}×{other[0]}: their aspect ratios must be the '
            'same; align depth to the colour image'
        )


def scaled_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale a label image, H×W uint8, to another H, W by nearest neighbour.

    Raises:
        FrameError: the aspect ratios differ.
    """
    if labels.shape == size:
        return labels
    check_aspect_ratio(size, labels.shape, 'the depth image', 'the image')
    return cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def locate(depth: np.ndarray, labels: np.ndarray, label: int, box: Sequence[float], camera: Camera) -> Location | None:
    """Locate the pixels of a label in space.

    Args:
        depth: H×W uint16 [mm] or float32 [m]; zero, negative and non-finite values are no depth.
        labels: H×W uint8.
        label: pixel value of the object in `labels`.
        box: x, y, width, height around the object [px].
        camera: for images of H×W.

    Returns:
        None if fewer than `MIN_PIXELS` of the object have a depth.
    """
    rows, columns, z = measured_pixels(depth, labels, label, box, every=0)
    if not z.size:
        return None
    with np.errstate(all='ignore'):  # depths of 1e38 m or a focal length of 1e-300 px give no location
        found = _location(z, rows, columns, camera)
    return found if found is not None and np.isfinite([found.position, found.centre, found.size]).all() else None


def measured_pixels(
    depth: np.ndarray, labels: np.ndarray, label: int, box: Sequence[float], *, every: int, rim: int = RIM
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the pixels of a label that have a depth, without a rim where depths mix.

    The rim is kept if fewer than `MIN_PIXELS` would remain.

    Args:
        depth: as for `locate`.
        labels: as for `locate`.
        label: as for `locate`.
        box: as for `locate`.
        every: rows and columns from one pixel to the next; 0: as many as give a few thousand.
        rim: width of the rim [px].

    Returns:
        Rows, columns and depths [m, float32] of n pixels; empty if fewer than `MIN_PIXELS` of the
        object have a depth.
    """
    x, y, width, height = box
    step = max(every, 1)
    # The grid begins at the image's corner, so that the clouds of neighbours fit together.
    x0, y0 = (max(math.floor(side) - rim, 0) // step * step for side in (x, y))
    x1, y1 = math.ceil(x + width) + rim, math.ceil(y + height) + rim
    inside = (labels[y0:y1, x0:x1] == label).astype(np.uint8)
    if not inside.any():
        nothing = np.zeros(0, int)
        return nothing, nothing, np.zeros(0, np.float32)
    near = depth[y0:y1, x0:x1]
    eroded = cv2.erode(inside, rim_kernel(rim))
    for mask in (eroded, inside):
        spaced = every or max(math.isqrt(cv2.countNonZero(mask) // _MAX_SAMPLES), 1)
        rows, columns = np.nonzero(mask[::spaced, ::spaced])
        rows, columns = rows * spaced, columns * spaced
        z = near[rows, columns].astype(np.float32)
        with np.errstate(invalid='ignore'):
            measured = np.isfinite(z) & (z > 0)
        if np.count_nonzero(measured) >= MIN_PIXELS:
            break
    else:
        measured = np.zeros_like(measured)
    rows, columns, z = rows[measured] + y0, columns[measured] + x0, z[measured]
    return rows, columns, z * np.float32(1e-3) if near.dtype == np.uint16 else z


def rim_kernel(rim: int) -> np.ndarray:
    """Return the kernel with which OpenCV erodes or dilates a mask by a rim [px]."""
    return np.ones((2 * rim + 1, 2 * rim + 1), np.uint8)


def inliers(z: np.ndarray) -> np.ndarray:
    """Tell which of n depths [m] of an object are not outliers, such as the wall behind it.

    Depths are counted in slices of 2 % of their median. The object reaches from the median to the
    next gap on both sides. A long object, or one that is seen from the side, thus stays whole.
    """
    median = float(np.median(z))
    slices = np.clip(np.floor((z - median) / (_SLICE * median) + 0.5), -1e6, 1e6).astype(int)
    numbers, counts = np.unique(slices, return_counts=True)
    filled = set(numbers[counts >= max(1.0, _MIN_SHARE * len(z))].tolist())
    low = high = 0
    while low - 1 in filled:
        low -= 1
    while high + 1 in filled:
        high += 1
    return (slices >= low) & (slices <= high)


def _location(z: np.ndarray, rows: np.ndarray, columns: np.ndarray, camera: Camera) -> Location | None:
    """Locate n depths [m] and their pixels; None if no depth is near the median."""
    z = z.astype(np.float64)
    kept = inliers(z)
    if not kept.any():
        return None
    rows, columns, z = rows[kept], columns[kept], z[kept]
    points = np.stack([(columns - camera.cx) / camera.fx * z, (rows - camera.cy) / camera.fy * z, z])
    low, high = np.percentile(points, _BOX_PERCENTILES, axis=1)
    return Location(_triple(np.median(points, axis=1)), _triple((low + high) / 2), _triple(high - low))


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z
