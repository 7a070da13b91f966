# SPDX-License-Identifier: MIT
"""Between an image and the network's padded working size, and from probabilities back to labels, boxes and scores."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xmem_ros.errors import FrameError
from xmem_ros.network.model import STRIDE, image_statistics

MOST_ELONGATED = 10  # longer over shorter side of a frame that is to be scaled
MOST_PIXELS = 4096 * 4096  # of a frame as the network sees it
_MOST_CELLS = 10_000  # in which the parts of a mask are looked for


@dataclass(frozen=True)
class FrameGeometry:
    """Sizes (H, W) in px of one kind of frame: as it comes, as the network sees it, and the padding between."""

    image_size: tuple[int, int]
    working_size: tuple[int, int]
    padding: tuple[int, int, int, int]  # left, right, top, bottom

    @classmethod
    def of(cls, image_size: tuple[int, int], shorter_side: int) -> 'FrameGeometry':
        """Scale the shorter side to `shorter_side` (0: keep), pad to multiples of 16, smaller half left and top.

        Raises `FrameError` for a frame that is too large or too elongated.
        """
        height, width = image_size
        if shorter_side and max(image_size) > MOST_ELONGATED * min(image_size):
            raise FrameError(
                f'the frame is {height}×{width} px (H×W), too elongated for a shorter side of {shorter_side} px: '
                f'its sides may differ by a factor of at most {MOST_ELONGATED}; crop it, or set size to 0'
            )
        if shorter_side:
            # the longer side is rounded down, as torchvision's Resize does
            if height <= width:
                height, width = shorter_side, max(int(shorter_side * width / height), 1)
            else:
                height, width = max(int(shorter_side * height / width), 1), shorter_side
        if height * width > MOST_PIXELS:
            raise FrameError(
                f'the network would see the frame as {height}×{width} px (H×W); at most {MOST_PIXELS} px are allowed: '
                'set a smaller size'
            )
        down, right = -height % STRIDE, -width % STRIDE
        return cls(image_size, (height, width), (right // 2, right - right // 2, down // 2, down - down // 2))

    @property
    def padded_size(self) -> tuple[int, int]:
        """What the network sees, H and W multiples of 16."""
        left, right, top, bottom = self.padding
        return self.working_size[0] + top + bottom, self.working_size[1] + left + right

    @property
    def grid_size(self) -> tuple[int, int]:
        """h, w of keys and values, at stride 16."""
        return self.padded_size[0] // STRIDE, self.padded_size[1] // STRIDE

    @property
    def scale(self) -> float:
        """Working pixels for each pixel of the image."""
        (height, width), (rows, columns) = self.working_size, self.image_size
        return height * width / (rows * columns)

    def to_image(self, planes: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """C×H×W at the padded working size → C×H×W at the image's size, or another (H, W)."""
        size = size or self.image_size
        left, _, top, _ = self.padding
        height, width = self.working_size
        planes = planes[:, top : top + height, left : left + width]
        if self.working_size == size:
            return planes
        return F.interpolate(planes[None], size, mode='bilinear', align_corners=False)[0]


def geometry_of(frame: np.ndarray, shorter_side: int) -> FrameGeometry:
    """The geometry of a frame H×W×3 uint8 RGB; raises `FrameError` for anything else."""
    if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        given = f'{frame.dtype} {frame.shape}' if isinstance(frame, np.ndarray) else type(frame).__name__
        raise FrameError(f'a frame must be a NumPy array H×W×3 of uint8 in RGB order; given: {given}')
    if min(frame.shape[:2]) < 1:
        raise FrameError(f'the frame is empty: {frame.shape}')
    return FrameGeometry.of(frame.shape[:2], shorter_side)


def image_to_tensor(frame: np.ndarray, geometry: FrameGeometry, device: torch.device) -> Tensor:
    """H×W×3 uint8 RGB → 1×3×H'×W' float32, ImageNet-normalised, scaled and padded.

    As published, scaling is bilinear without antialiasing. It commutes with the normalisation, up to rounding.
    """
    # a message's buffer is read-only, which torch takes only with a warning
    frame = np.ascontiguousarray(frame) if frame.flags.writeable else frame.copy()
    source = torch.from_numpy(frame).to(device)
    image = source.permute(2, 0, 1)[None].to(torch.float32)
    if geometry.working_size != geometry.image_size:
        image = F.interpolate(image, geometry.working_size, mode='bilinear', align_corners=False, antialias=False)
    mean, std = image_statistics(device)
    image = (image / 255 - mean) / std
    return F.pad(image, geometry.padding).contiguous(memory_format=torch.channels_last)


def mask_to_tensor(mask: np.ndarray, geometry: FrameGeometry, device: torch.device) -> Tensor:
    """H×W bool → H'×W' float32 0/1, scaled (nearest) and padded.

    An object too small to survive the scaling keeps the pixel that its centre falls on.
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
    """What a label's pixels are like; px."""

    area: int  # of all its pixels
    score: float  # mean probability of the label inside it
    box: tuple[int, int, int, int] | None  # x, y, width, height; without specks
    centroid: tuple[float, float]  # x, y; without specks


def observe_labels(
    joint: Tensor, palette: list[int], min_part_share: float = 0.0
) -> tuple[np.ndarray, dict[int, Region]]:
    """Take the most probable plane at every pixel.

    joint: C×H×W probabilities; palette: the pixel value of each plane; min_part_share: as in `outline`. Returns the
    label image H×W uint8 and the region of every pixel value but the first plane's.
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
    """Box (x, y, width, height) and centroid (x, y) of a mask [px]; None and NaN of an empty one.

    inside: H×W uint8, 0 or 1. min_part_share: connected parts smaller than this share of the largest part are left out;
    0: none is. The largest, not the whole: of a thing behind a fence every part is small.
    """
    x, y, width, height = cv2.boundingRect(inside)
    if not width:
        return None, (math.nan, math.nan)
    crop = inside[y : y + height, x : x + width]
    if min_part_share and (whole := _without_specks(crop, min_part_share)) is not None:
        left, top, width, height = cv2.boundingRect(whole)
        x, y, crop = x + left, y + top, whole[top : top + height, left : left + width]
    moments = cv2.moments(crop, binaryImage=True)
    return (x, y, width, height), (x + moments['m10'] / moments['m00'], y + moments['m01'] / moments['m00'])


def _without_specks(crop: np.ndarray, min_part_share: float) -> np.ndarray | None:
    """H×W 0/1 without its small parts; None where it has none.

    Parts are looked for in cells of n×n px, which keeps the time bounded; those less than n px apart count as one.
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
