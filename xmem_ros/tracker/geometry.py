# SPDX-License-Identifier: MIT
"""Conversion of images and masks to the working size, and of probabilities to labels and boxes."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xmem_ros.errors import FrameError
from xmem_ros.network.model import STRIDE, image_statistics

MOST_ELONGATED = 10  # longer over shorter side of a scaled frame
MOST_PIXELS = 4096 * 4096  # of a frame at the working size
_MOST_CELLS = 10_000  # of the grid in which a mask's parts are connected


@dataclass(frozen=True)
class FrameGeometry:
    """Image size, working size (H, W, px) and padding of frames."""

    image_size: tuple[int, int]
    working_size: tuple[int, int]
    padding: tuple[int, int, int, int]  # left, right, top, bottom

    @classmethod
    def of(cls, image_size: tuple[int, int], shorter_side: int) -> 'FrameGeometry':
        """Return the geometry of frames scaled to `shorter_side` px (0: unscaled).

        They are padded to multiples of 16, the smaller half at the left and top. Raises
        `FrameError` for a frame that is too large or too elongated.
        """
        height, width = image_size
        if shorter_side and max(image_size) > MOST_ELONGATED * min(image_size):
            raise FrameError(
                f'the frame is {height}×{width} px (H×W), too elongated for a shorter side of {shorter_side} px: '
                f'its sides may differ by a factor of at most {MOST_ELONGATED}; crop it, or set size to 0'
            )
        if shorter_side:
            # round the longer side down, as torchvision's Resize does
            if height <= width:
                height, width = shorter_side, max(int(shorter_side * width / height), 1)
            else:
                height, width = max(int(shorter_side * height / width), 1), shorter_side
        if height * width > MOST_PIXELS:
            raise FrameError(
                f'the working size would be {height}×{width} px (H×W); at most {MOST_PIXELS} px are allowed: '
                'set a smaller size'
            )
        down, right = -height % STRIDE, -width % STRIDE
        return cls(image_size, (height, width), (right // 2, right - right // 2, down // 2, down - down // 2))

    @property
    def padded_size(self) -> tuple[int, int]:
        """Padded working size H, W: multiples of 16."""
        left, right, top, bottom = self.padding
        return self.working_size[0] + top + bottom, self.working_size[1] + left + right

    @property
    def grid_size(self) -> tuple[int, int]:
        """Grid size h, w of keys and values, at stride 16."""
        return self.padded_size[0] // STRIDE, self.padded_size[1] // STRIDE

    @property
    def scale(self) -> float:
        """Working pixels for each image pixel."""
        (height, width), (rows, columns) = self.working_size, self.image_size
        return height * width / (rows * columns)

    def to_image(self, planes: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Crop and scale planes C×H×W of the padded size to `size`, default: the image's."""
        size = size or self.image_size
        left, _, top, _ = self.padding
        height, width = self.working_size
        planes = planes[:, top : top + height, left : left + width]
        if self.working_size == size:
            return planes
        return F.interpolate(planes[None], size, mode='bilinear', align_corners=False)[0]


def geometry_of(frame: np.ndarray, shorter_side: int) -> FrameGeometry:
    """Return the geometry of a frame H×W×3 uint8 RGB; raises `FrameError` for anything else."""
    if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        given = f'{frame.dtype} {frame.shape}' if isinstance(frame, np.ndarray) else type(frame).__name__
        raise FrameError(f'a frame must be a NumPy array H×W×3 of uint8 in RGB order; given: {given}')
    if min(frame.shape[:2]) < 1:
        raise FrameError(f'the frame is empty: its shape is {frame.shape}; give at least one pixel')
    return FrameGeometry.of(frame.shape[:2], shorter_side)


def image_to_tensor(frame: np.ndarray, geometry: FrameGeometry, device: torch.device) -> Tensor:
    """Scale, normalise and pad a frame: H×W×3 uint8 RGB → 1×3×H'×W' float32.

    Scaling is bilinear without antialiasing, as published. It commutes with the normalisation by
    ImageNet's statistics, up to rounding.
    """
    # torch warns of read-only arrays, such as the buffers of messages
    frame = np.ascontiguousarray(frame) if frame.flags.writeable else frame.copy()
    source = torch.from_numpy(frame).to(device)
    image = source.permute(2, 0, 1)[None].to(torch.float32)
    if geometry.working_size != geometry.image_size:
        image = F.interpolate(image, geometry.working_size, mode='bilinear', align_corners=False, antialias=False)
    mean, std = image_statistics(device)
    image = (image / 255 - mean) / std
    return F.pad(image, geometry.padding).contiguous(memory_format=torch.channels_last)


def mask_to_tensor(mask: np.ndarray, geometry: FrameGeometry, device: torch.device) -> Tensor:
    """Scale (nearest) and pad a mask: H×W bool → H'×W' float32, 0 or 1.

    A mask that would vanish keeps the pixel at its centroid.
    """
    plane = torch.from_numpy(np.ascontiguousarray(mask)).to(device, torch.float32)
    if geometry.working_size != geometry.image_size:
        scaled = F.interpolate(plane[None, None], geometry.working_size, mode='nearest')[0, 0]
        if not scaled.any():
            ys, xs = np.nonzero(mask)
            if len(ys):
                y = int(ys.mean() * geometry.working_size[0] / geometry.image_size[0])
                x = int(xs.mean() * geometry.working_size[1] / geometry.image_size[1])
                scaled[y, x] = 1
        plane = scaled
    return F.pad(plane, geometry.padding)


@dataclass(frozen=True)
class Region:
    """Area, score, box and centroid of a label's pixels; lengths in px."""

    area: int  # of all pixels
    score: float  # mean probability of the label at its pixels
    box: tuple[int, int, int, int] | None  # x, y, width, height; without small parts
    centroid: tuple[float, float]  # x, y; without small parts


def observe_labels(
    joint: Tensor, palette: list[int], min_part_share: float = 0.0
) -> tuple[np.ndarray, dict[int, Region]]:
    """Label every pixel with its most probable plane.

    joint: C×H×W probabilities; palette: label of each plane; min_part_share: as for `outline`.
    Returns the label image H×W uint8 and the region of every label except the first plane's.
    """
    best, plane = joint.max(0)
    planes = len(palette)
    flat = plane.flatten()
    sums = torch.zeros(planes, device=joint.device, dtype=torch.float64).index_add_(0, flat, best.flatten().double())
    index = plane.to(torch.uint8).cpu().numpy()
    totals = sums.cpu().numpy()
    regions = {}
    for number, label in enumerate(palette):
        if number == 0:
            continue
        inside = (index == number).astype(np.uint8)
        area = int(cv2.countNonZero(inside))
        box, centroid = outline(inside, min_part_share)
        regions[label] = Region(area, float(totals[number] / area) if area else 0.0, box, centroid)
    return np.asarray(palette, np.uint8)[index], regions


def outline(
    inside: np.ndarray, min_part_share: float = 0.0
) -> tuple[tuple[int, int, int, int] | None, tuple[float, float]]:
    """Return box (x, y, width, height) and centroid (x, y) of a mask in px; None and NaN if empty.

    inside: H×W uint8, 0 or 1. min_part_share: connected parts below this share of the largest part
    are ignored; 0: none. The share is of the largest part, not of the whole: behind a fence every
    part of an object is small.
    """
    x, y, width, height = cv2.boundingRect(inside)
    if not width:
        return None, (math.nan, math.nan)
    crop = inside[y : y + height, x : x + width]
    if min_part_share and (large := _large_parts(crop, min_part_share)) is not None:
        left, top, width, height = cv2.boundingRect(large)
        x, y, crop = x + left, y + top, large[top : top + height, left : left + width]
    moments = cv2.moments(crop, binaryImage=True)
    return (x, y, width, height), (x + moments['m10'] / moments['m00'], y + moments['m01'] / moments['m00'])


def _large_parts(crop: np.ndarray, min_part_share: float) -> np.ndarray | None:
    """Remove small parts from a mask H×W, 0 or 1; None if it has none.

    Parts are connected in a grid of cells of n×n px, which bounds the time. Parts less than n px
    apart count as one.
    """
    height, width = crop.shape
    side = math.ceil(math.sqrt(height * width / _MOST_CELLS))
    rows, columns = -(-height // side), -(-width // side)
    padded = np.zeros((rows * side, columns * side), np.uint8)
    np.multiply(crop, 255, out=padded[:height, :width])
    cells = cv2.resize(padded, (columns, rows), interpolation=cv2.INTER_AREA)
    count, parts = cv2.connectedComponents((cells > 0).view(np.uint8), ltype=cv2.CV_16U)
    if count <= 2:
        return None
    areas = np.bincount(parts.ravel(), weights=cells.ravel(), minlength=count)[1:]
    kept = np.concatenate(([False], areas >= min_part_share * areas.max()))
    if kept[1:].all():
        return None
    inside = np.repeat(np.repeat(kept[parts], side, 0), side, 1)[:height, :width]
    return crop & inside.view(np.uint8)
