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

    area: int
    score: float  # mean probability of the label inside it
    box: tuple[int, int, int, int] | None  # x, y, width, height
    centroid: tuple[float, float]  # x, y


def observe_labels(joint: Tensor, palette: list[int]) -> tuple[np.ndarray, dict[int, Region]]:
    """Take the most probable plane at every pixel.

    joint: C×H×W probabilities; palette: the pixel value of each plane. Returns the label image H×W uint8 and the
    region of every pixel value but the first plane's.
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
        if not area:
            regions[label] = Region(0, 0.0, None, (math.nan, math.nan))
            continue
        moments = cv2.moments(inside, binaryImage=True)
        x, y, width, height = cv2.boundingRect(inside)
        centroid = (moments['m10'] / moments['m00'], moments['m01'] / moments['m00'])
        regions[label] = Region(area, float(totals[number] / area), (x, y, width, height), centroid)
    return np.asarray(palette, np.uint8)[index], regions
