# SPDX-License-Identifier: MIT
"""Crops of labelled pictures, and a simulated user who segments their objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from xmem_ros.seeding.prompt_maps import prompt_maps
from xmem_ros.seeding.prompt_network import STRIDE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xmem_ros.training.footage import Footage

SHAPES = ((256, 256), (224, 288), (288, 224), (208, 304), (304, 208))  # H, W of crops [px], similar areas
LEAST_AREA = 300  # px of an object in its picture
BOX_JITTER = 0.15  # maximum displacement of a side, as a share of the object's width or height
FIRST_POINT = 0.5  # a first point is at least this share of the largest distance to the outline inside


BOX, POINT, MASK = range(3)  # first prompts; MASK: a wrong mask and a point that corrects it
SHARES = (0.38, 0.48, 0.14)
CLOSE = (0.9, 0.1, 0.8)  # share of close crops; a point is first seen in the whole picture


@dataclass
class Example:
    """Crop with one object."""

    image: np.ndarray  # H×W×3 uint8 RGB
    mask: np.ndarray  # H×W bool


@dataclass
class User:
    """Prompts of one example so far."""

    example: Example
    rng: np.random.Generator
    box: tuple[float, float, float, float] | None = None
    points: list[tuple[int, int]] = field(default_factory=list)
    on_object: list[bool] = field(default_factory=list)
    mask: np.ndarray | None = None  # H/4×W/4 float32

    def begin(self, kind: int) -> None:
        """Give the first prompt."""
        if kind == BOX:
            self.box = jittered_box(self.example.mask, self.rng)
        elif kind == POINT:
            self.point(self.example.mask, on_object=True)
        else:
            wrong = damaged(self.example.mask, self.rng)
            self.mask = downscaled(wrong.astype(np.float32))
            self.correct(wrong)

    def correct(self, found: np.ndarray) -> None:
        """Give a point in the larger error of a mask, H×W bool; none if there is no error."""
        true = self.example.mask
        missing, wrong = true & ~found, found & ~true
        depths = [float(cv2.distanceTransform(_padded(error), cv2.DIST_L2, 3).max()) for error in (missing, wrong)]
        if max(depths) >= 1:
            on_object = depths[0] >= depths[1]
            self.point(missing if on_object else wrong, on_object=on_object)

    def point(self, region: np.ndarray, *, on_object: bool) -> None:
        """Give a point well inside a region, H×W bool."""
        depth = cv2.distanceTransform(_padded(region), cv2.DIST_L2, 3)[1:-1, 1:-1]
        share = FIRST_POINT if self.rng.random() < 0.5 else 0.95
        ys, xs = np.nonzero(depth >= share * depth.max())
        pick = self.rng.integers(len(ys))
        self.points.append((int(xs[pick]), int(ys[pick])))
        self.on_object.append(on_object)

    def maps(self) -> np.ndarray:
        """Draw the prompts, 5×H/4×W/4 float32."""
        points = np.array(self.points, np.float64).reshape(-1, 2) + 0.5
        on_object = np.array(self.on_object, bool)
        return prompt_maps(self.example.mask.shape, self.box, points, on_object, self.mask)


def jittered_box(mask: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Draw a box around a mask, H×W bool, by hand; left, top, right, bottom [px]."""
    ys, xs = np.nonzero(mask)
    left, top, right, bottom = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
    share = rng.choice((0.0, BOX_JITTER / 2, BOX_JITTER))
    jitter = rng.uniform(-share, share, 4) * (right - left, bottom - top, right - left, bottom - top)
    left, right = np.clip((left + jitter[0], right + jitter[2]), 0, mask.shape[1])
    top, bottom = np.clip((top + jitter[1], bottom + jitter[3]), 0, mask.shape[0])
    return float(left), float(top), float(right), float(bottom)


def damaged(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Damage a mask, H×W bool: shift, growth, missing and added parts, as of a tracker."""
    height, width = mask.shape
    side = int(np.sqrt(mask.sum()))
    shift = rng.integers(-side // 8 - 1, side // 8 + 2, 2)
    wrong: np.ndarray = np.roll(mask, shift, (0, 1)).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (int(rng.integers(1, max(side // 5, 3))),) * 2)
    wrong = cv2.erode(wrong, kernel) if rng.random() < 0.5 else cv2.dilate(wrong, kernel)
    ys, xs = np.nonzero(mask)
    for value in (0, 1):
        if rng.random() < 0.5:
            pick = rng.integers(len(ys))
            axes = rng.integers(side // 6 + 1, side // 2 + 3, 2)
            offset = (0, 0) if value == 0 else rng.integers(-side, side + 1, 2)
            centre = (int(xs[pick] + offset[0]), int(ys[pick] + offset[1]))
            cv2.ellipse(wrong, centre, tuple(map(int, axes)), float(rng.uniform(0, 180)), 0, 360, value, cv2.FILLED)
    return wrong.astype(bool).reshape(height, width)


def downscaled(mask: np.ndarray) -> np.ndarray:
    """Average a mask, H×W float32, over cells of the prompt maps."""
    return cv2.resize(mask, None, fx=1 / STRIDE, fy=1 / STRIDE, interpolation=cv2.INTER_AREA)


class Objects:
    """Labelled objects of footage, sampled at random.

    Arguments:
        footage: videos and pictures; each entry's weight counts for each of its objects.
        every: of a video, every n-th frame is used.
    """

    def __init__(self, footage: Sequence[Footage], every: int = 5):
        self._objects: list[tuple[Footage, int, int]] = []
        weights: list[float] = []
        for item in footage:
            for number in range(0, len(item.labels), every):
                values, counts = np.unique(item.labels[number], return_counts=True)
                for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                    if value and count >= LEAST_AREA:
                        self._objects.append((item, number, value))
                        weights.append(item.weight)
        self._weights = np.array(weights) / sum(weights)

    def __len__(self) -> int:
        return len(self._objects)

    def draw(self, rng: np.random.Generator, shape: tuple[int, int], *, close: bool) -> Example:
        """Draw a crop (H, W) close to an object, or of as much of the picture as fits."""
        while True:
            item, number, value = self._objects[rng.choice(len(self._objects), p=self._weights)]
            example = random_crop(item.frames[number], item.labels[number] == value, shape, rng, close=close)
            if example.mask.sum() >= LEAST_AREA / 4:
                return example


def random_crop(
    image: np.ndarray, mask: np.ndarray, shape: tuple[int, int], rng: np.random.Generator, *, close: bool
) -> Example:
    """Crop a picture around an object, scaled, stretched, turned and mirrored at random."""
    ys, xs = np.nonzero(mask)
    left, right, top, bottom = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
    least = max((right - left) / shape[1], (bottom - top) / shape[0])  # px of the picture per px of the crop
    whole = min(image.shape[1] / shape[1], image.shape[0] / shape[0])
    scale = least / rng.uniform(0.45, 0.92) if close else max(whole * rng.uniform(0.6, 1.15), least * 0.8)
    scale = max(scale, 0.2)
    stretch = np.exp(rng.uniform(-0.15, 0.15))
    scales = np.array([scale * stretch, scale / stretch])
    centre = np.array([(left + right) / 2, (top + bottom) / 2])
    room = np.maximum(shape[1] * scales[0] - (right - left), 0), np.maximum(shape[0] * scales[1] - (bottom - top), 0)
    centre += rng.uniform(-0.5, 0.5, 2) * room
    half = np.array([shape[1] * scales[0], shape[0] * scales[1]]) / 2
    size = np.array([image.shape[1], image.shape[0]])
    centre = np.where(2 * half <= size, np.clip(centre, half, np.maximum(size - half, half)), size / 2)
    angle = np.deg2rad(rng.uniform(-20, 20)) if rng.random() < 0.3 else 0.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    flip = np.diag([rng.choice((-1.0, 1.0)), 1.0])
    linear = turn @ flip @ np.diag(scales)
    offset = centre - linear @ (np.array([shape[1], shape[0]]) / 2)
    matrix = np.column_stack([linear, offset])
    flags = cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_REFLECT_101 if rng.random() < 0.5 else cv2.BORDER_REPLICATE
    if scale > 1.5:  # against aliasing
        image = cv2.GaussianBlur(image, (0, 0), scale / 2.5)
    pixels = cv2.warpAffine(image, matrix, shape[::-1], flags=flags | cv2.INTER_LINEAR, borderMode=border)
    soft = cv2.warpAffine(mask.astype(np.float32), matrix, shape[::-1], flags=flags | cv2.INTER_LINEAR)
    return Example(_varied(pixels, rng), soft >= 0.5)


def _varied(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Vary brightness, contrast, saturation, tint, sharpness and noise."""
    out = image.astype(np.float32)
    grey = out.mean(2, keepdims=True)
    if rng.random() < 0.05:
        out = np.repeat(grey, 3, 2)
    out = grey + (out - grey) * rng.uniform(0.6, 1.4)
    out = (out - out.mean()) * rng.uniform(0.6, 1.4) + out.mean() * rng.uniform(0.6, 1.4)
    out *= rng.uniform(0.9, 1.1, 3).astype(np.float32)
    if rng.random() < 0.2:
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.4, 1.6))
    if rng.random() < 0.2:
        out += rng.normal(0, rng.uniform(2, 10), out.shape).astype(np.float32)
    return np.clip(out, 0, 255).astype(np.uint8)


def _padded(mask: np.ndarray) -> np.ndarray:
    """Add a border of background, so that distances to the frame's edge count."""
    return np.pad(mask.astype(np.uint8), 1)
