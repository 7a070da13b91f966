# SPDX-License-Identifier: MIT
"""Masks from boxes and points by GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004).

GrabCut runs on a crop around the box or points. The crop is scaled down, which bounds the time for
any image size. The result is deterministic. Needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from xmem_ros.errors import SeedError
from xmem_ros.seeding.checks import box_text, check_box, check_points
from xmem_ros.seeding.regions import connected_to, without_specks

if TYPE_CHECKING:
    from collections.abc import Sequence

BOX_SIDE, POINTS_SIDE = 240, 160
"""Longer side of the crop for GrabCut [px]; smaller for points, which need several runs."""

_ITERATIONS = 4
_RNG_SEED = 20_221_026
_BOX_MARGIN = 0.35
# Maximum distances of the object's outline from its points, as fractions of the frame's shorter
# side. GrabCut runs with each; the best result is used.
_REACHES = (0.1, 0.18, 0.3, 0.45)


def mask_from_box(frame: np.ndarray, box: Sequence[int]) -> np.ndarray:
    """Segment the object in a box.

    Args:
        frame: H×W×3 uint8 RGB.
        box: x, y, width, height [px], inside the frame.

    Returns:
        H×W bool, False outside the box.

    Raises:
        SeedError: the box is empty, tiny or not inside the frame, or shows no distinct object.
    """
    x, y, width, height = check_box(box, frame.shape[:2])
    margin = max(int(_BOX_MARGIN * max(width, height)), 8)
    crop = _Crop(frame, x - margin, y - margin, x + width + margin, y + height + margin, BOX_SIDE)
    trimap = np.full(crop.size, cv2.GC_BGD, np.uint8)
    x0, y0, x1, y1 = crop.scaled(x, y, x + width, y + height)
    trimap[y0:y1, x0:x1] = cv2.GC_PR_FGD
    if (trimap == cv2.GC_BGD).sum() < 0.02 * trimap.size:
        _mark_corners_as_background(trimap)
    found = crop.restore(without_specks(_grab_cut(crop.image, trimap)))
    mask = np.zeros(frame.shape[:2], bool)
    mask[y : y + height, x : x + width] = found[y : y + height, x : x + width]
    if mask.sum() < max(0.01 * width * height, 4):
        raise SeedError(
            f'nothing stands out in the box {box_text(box)}: draw it closer around the whole '
            'object, or give points or a mask'
        )
    return mask


def mask_from_points(frame: np.ndarray, points: np.ndarray, point_labels: np.ndarray) -> np.ndarray:
    """Segment the object under points.

    Args:
        frame: H×W×3 uint8 RGB.
        points: N×2 x, y [px], inside the frame.
        point_labels: N, 1 = on the object, 0 = not on it.

    Returns:
        H×W bool. Every part contains a point on the object; the other points are excluded.

    Raises:
        SeedError: no point is on the object, a point is outside the frame or not a number, points
            and labels differ in number, or a pixel has two labels.
    """
    pixels, on_object = check_points(points, point_labels, frame.shape[:2])
    height, width = frame.shape[:2]
    positives = pixels[on_object]
    reach = _REACHES[-1] * min(height, width) + 8
    x0, y0 = positives.min(0) - reach
    x1, y1 = positives.max(0) + reach
    crop = _Crop(frame, int(x0), int(y0), int(x1) + 1, int(y1) + 1, POINTS_SIDE)
    scaled = crop.scaled_points(pixels)
    unit = min(height, width) * crop.scale
    candidates = [_within_reach(crop, scaled, on_object, reach * unit) for reach in _REACHES]
    mask = crop.restore(max(candidates, key=lambda candidate: candidate[0])[1])
    mask[positives[:, 1], positives[:, 0]] = True
    mask[pixels[~on_object, 1], pixels[~on_object, 0]] = False
    return connected_to(mask, positives)


class _Crop:
    """Part of a frame, scaled down so that its longer side has at most `side` px."""

    def __init__(self, frame: np.ndarray, x0: int, y0: int, x1: int, y1: int, side: int) -> None:
        height, width = frame.shape[:2]
        self._frame_size = (height, width)
        self._x0, self._y0 = max(x0, 0), max(y0, 0)
        self._x1, self._y1 = min(x1, width), min(y1, height)
        part = frame[self._y0 : self._y1, self._x0 : self._x1]
        self.scale = min(side / max(part.shape[:2]), 1.0)
        self.size = (max(round(part.shape[0] * self.scale), 1), max(round(part.shape[1] * self.scale), 1))
        self.image = np.ascontiguousarray(
            cv2.resize(np.ascontiguousarray(part), self.size[::-1], interpolation=cv2.INTER_AREA)
        )

    def scaled(self, x0: int, y0: int, x1: int, y1: int) -> tuple[int, int, int, int]:
        """Scale the corners of a box to px of `image`; at least one px wide and high."""
        ratio_x, ratio_y = self._ratio()
        left, top = int((x0 - self._x0) * ratio_x), int((y0 - self._y0) * ratio_y)
        right, bottom = round((x1 - self._x0) * ratio_x), round((y1 - self._y0) * ratio_y)
        return left, top, max(right, left + 1), max(bottom, top + 1)

    def scaled_points(self, points: np.ndarray) -> np.ndarray:
        """Scale N×2 px of the frame to N×2 px of `image`; points outside stay outside."""
        centred = points - (self._x0, self._y0) + 0.5
        return np.floor(centred * self._ratio()).astype(int)

    def restore(self, mask: np.ndarray) -> np.ndarray:
        """Scale a mask, h×w bool of `image`, to H×W bool of the frame, with smooth edges."""
        part = (self._x1 - self._x0, self._y1 - self._y0)
        full = np.zeros(self._frame_size, bool)
        enlarged = cv2.resize(mask.astype(np.float32), part, interpolation=cv2.INTER_LINEAR)
        full[self._y0 : self._y1, self._x0 : self._x1] = enlarged >= 0.5
        return full

    def _ratio(self) -> tuple[float, float]:
        return self.size[1] / (self._x1 - self._x0), self.size[0] / (self._y1 - self._y0)


def _grab_cut(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    """Run GrabCut: image h×w×3 uint8 and trimap h×w of cv2.GC_* → mask h×w bool."""
    if not (trimap & 1).any() or (trimap & 1).all():
        return (trimap & 1).astype(bool)
    cv2.setRNGSeed(_RNG_SEED)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    smooth = cv2.bilateralFilter(image, 5, 30, 3)
    cv2.grabCut(smooth, trimap, (0, 0, 1, 1), background, foreground, _ITERATIONS, cv2.GC_INIT_WITH_MASK)
    return (trimap & 1).astype(bool)


def _within_reach(crop: _Crop, points: np.ndarray, on_object: np.ndarray, reach: float) -> tuple[float, np.ndarray]:
    """Run GrabCut for an object within `reach` px of the convex hull of its points.

    Returns:
        A score, and the mask, h×w bool. The score rises with the contrast along the outline and
        with the area. It falls with the share of the outline that lies at the distance `reach`.
    """
    height, width = crop.size
    positives = points[on_object]
    distance = _distance_to(positives, crop.size)
    trimap = np.where(distance <= reach, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    inside = ((points >= 0) & (points < (width, height))).all(1)
    for x, y in positives:
        cv2.circle(trimap, (int(x), int(y)), max(2, int(0.08 * reach)), cv2.GC_FGD, cv2.FILLED)
    for x, y in points[~on_object & inside]:
        cv2.circle(trimap, (int(x), int(y)), 3, cv2.GC_BGD, cv2.FILLED)
    trimap[positives[:, 1], positives[:, 0]] = cv2.GC_FGD
    mask = _grab_cut(crop.image, trimap)
    mask[positives[:, 1], positives[:, 0]] = True
    mask = connected_to(mask, positives)
    edge = mask & (cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
    at_limit = (edge & (distance > reach - 1.5)).sum() / max(edge.sum(), 1)
    return float(_contrast(crop.image, mask) * (1 - at_limit) ** 2 * mask.sum() ** 0.25), mask


def _contrast(image: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean gradient of the image along the outline of a mask."""
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2Lab), (3, 3), 0).astype(np.float32)
    gradient = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)).sum(-1)
    inside = mask.astype(np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    outline = cv2.dilate(inside, kernel) != cv2.erode(inside, kernel)
    return float(gradient[outline].mean()) if outline.any() else 0.0


def _distance_to(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the distance to the convex hull of the points [px], h×w float32."""
    elsewhere = np.ones(size, np.uint8)
    cv2.fillConvexPoly(elsewhere, cv2.convexHull(points.astype(np.int32)), 0)
    return cv2.distanceTransform(elsewhere, cv2.DIST_L2, 5)


def _mark_corners_as_background(trimap: np.ndarray) -> None:
    """Mark the corners as background; a box as large as the image leaves no other background."""
    height, width = trimap.shape
    ellipse = np.zeros_like(trimap)
    cv2.ellipse(ellipse, (width // 2, height // 2), (width // 2, height // 2), 0, 0, 360, 1, cv2.FILLED)
    trimap[ellipse == 0] = cv2.GC_PR_BGD
