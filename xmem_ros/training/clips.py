# SPDX-License-Identifier: MIT
"""Training clips from videos and stills, with synthetic motion and pasted objects.

A clip depends on (seed, index) only, so that a run can be repeated and resumed.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from xmem_ros.network.model import IMAGE_MEAN, IMAGE_STD
from xmem_ros.training.config import ClipConfig
from xmem_ros.training.footage import Footage

PASTED = 255  # label of a pasted object; footage has labels 1 to 254


class Clips(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Data set of clips of `frames` frames.

    An item has images T×3×S×S (normalised), labels T×S×S (uint8, 0…O) and valid O (bool, whether an
    object slot is used). T is `frames` and S is `size` of the configuration.
    """

    def __init__(self, videos: list[Footage], stills: list[Footage], config: ClipConfig, seed: int, length: int):
        self.videos, self.stills, self.config, self.seed, self.length = videos, stills, config, seed, length
        counts = np.array([math.sqrt(len(video.frames)) * video.weight for video in videos])
        self.video_weights = counts / counts.sum() if len(videos) else counts
        counts = np.array([still.weight for still in stills], float)
        self.still_weights = counts / counts.sum() if len(stills) else counts

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        if not 0 <= index < self.length:
            raise IndexError(f'clip {index} of {self.length}')  # ends a loop over the clips
        rng = np.random.default_rng((self.seed, index))
        skip = self._max_skip(index / max(self.length, 1))
        for _ in range(20):
            images, labels = self._clip(rng, skip)
            present = [value for value in np.unique(labels[0]) if value and (labels[0] == value).sum() >= 40]
            if present:
                break
        rng.shuffle(present)
        chosen = present[: self.config.objects]
        table = np.zeros(256, np.uint8)
        for slot, value in enumerate(chosen, 1):
            table[value] = slot
        images = _photometric(images, self.config, rng)
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
        mean, std = torch.tensor(IMAGE_MEAN).view(3, 1, 1), torch.tensor(IMAGE_STD).view(3, 1, 1)
        valid = torch.arange(self.config.objects) < len(chosen)
        return (pixels - mean) / std, torch.from_numpy(table[np.stack(labels)]), valid

    def _max_skip(self, progress: float) -> int:
        """Return the maximum frame skip at this progress of the run, 0…1."""
        reached = [skip for share, skip in self.config.skips if progress >= share]
        return reached[-1] if reached else self.config.max_skip

    def _clip(self, rng: np.random.Generator, max_skip: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        pictures = len(self.stills) > 0 or self.config.frame_share > 0
        still = not self.videos or (pictures and rng.random() < self.config.still_share)
        if still:
            source = self._still(rng)
            picked = [0] * self.config.frames
        else:
            source = self.videos[rng.choice(len(self.videos), p=self.video_weights)]
            picked = self._frame_numbers(len(source.frames), max_skip // source.stride, rng)
        size = self.config.size
        shown = {number: (source.frames[number], source.labels[number]) for number in set(picked)}  # decoded once
        start = shown[picked[0]][1]
        motion = _Motion.across(start, size, rng, self.config, strength=1.0 if still else 0.25)
        images, labels = [], []
        for step, number in enumerate(picked):
            matrix = motion.at(step)
            images.append(_warp(shown[number][0], matrix, size, cv2.INTER_LINEAR))
            labels.append(_warp(shown[number][1], matrix, size, cv2.INTER_NEAREST))
        if self.config.backdrop:
            self._fill_beyond(images, [shown[number][0].shape[:2] for number in picked], motion, rng)
        if still and self.config.bend:
            bend = _Bend(size, rng, self.config.bend)
            images = [bend(step, image, cv2.INTER_LINEAR) for step, image in enumerate(images)]
            labels = [bend(step, label, cv2.INTER_NEAREST) for step, label in enumerate(labels)]
        if rng.random() < self.config.absence:
            self._cut_in(images, labels, source, rng)
        if rng.random() < self.config.paste:
            labelled = rng.random() < self.config.paste_labelled
            self._paste(images, labels, PASTED if labelled else 0, rng, own=source if rng.random() < 0.3 else None)
        if rng.random() < 0.5:
            images = [np.ascontiguousarray(image[:, ::-1]) for image in images]
            labels = [np.ascontiguousarray(label[:, ::-1]) for label in labels]
        return images, labels

    def _still(self, rng: np.random.Generator) -> Footage:
        """Draw a picture with its object, or with a random patch as the object."""
        if self.videos and (not self.stills or rng.random() < self.config.frame_share):
            source = self.videos[rng.choice(len(self.videos), p=self.video_weights)]
            number = int(rng.integers(len(source.frames)))
            source = source.part(source.name, number, number + 1)
        else:
            source = self.stills[rng.choice(len(self.stills), p=self.still_weights)]
        if rng.random() < self.config.region_share:
            return Footage(source.name, source.frames, [_patch(source.frames[0].shape[:2], rng).astype(np.uint8)])
        return source

    def _fill_beyond(
        self, images: list[np.ndarray], shapes: list[tuple[int, int]], motion: _Motion, rng: np.random.Generator
    ) -> None:
        """Fill the area beyond the footage with another, slowly drifting picture."""
        size = self.config.size
        beyond = [
            _warp(np.ones(shape, np.uint8), motion.at(i), size, cv2.INTER_NEAREST) == 0
            for i, shape in enumerate(shapes)
        ]
        if not any(part.any() for part in beyond):
            return
        pool = self.stills or self.videos
        picture = pool[rng.integers(len(pool))].frames[0]
        scale = 1.4 * size / min(picture.shape[:2])
        start, drift = rng.uniform(0, 0.4 * size, 2), rng.normal(0, 0.05 * size, 2)
        for step, (image, part) in enumerate(zip(images, beyond, strict=True)):
            left, top = np.clip(start + drift * step, 0, 0.4 * size)
            matrix = np.array([[scale, 0, -left], [0, scale, -top]])
            image[part] = _warp(picture, matrix, size, cv2.INTER_LINEAR)[part]

    def _cut_in(
        self, images: list[np.ndarray], labels: list[np.ndarray], own: Footage, rng: np.random.Generator
    ) -> None:
        """Replace some frames after the first by other footage without objects."""
        pool = [footage for footage in (self.videos or self.stills) if footage.name != own.name]
        if not pool:
            return
        other = pool[rng.integers(len(pool))]
        begin = int(rng.integers(1, len(images)))
        end = int(rng.integers(begin + 1, len(images) + 1))
        picked = self._frame_numbers(len(other.frames), self.config.max_skip, rng)
        motion = _Motion.across(other.labels[picked[0]], self.config.size, rng, self.config, strength=0.25)
        for step in range(begin, end):
            matrix = motion.at(step)
            frame = other.frames[picked[step]]
            images[step] = _warp(frame, matrix, self.config.size, cv2.INTER_LINEAR)
            labels[step] = np.zeros_like(labels[step])

    def _frame_numbers(self, count: int, max_skip: int, rng: np.random.Generator) -> list[int]:
        skip = int(rng.integers(1, max(max_skip, 1) + 1))
        skip = max(1, min(skip, (count - 1) // max(self.config.frames - 1, 1)))
        first = int(rng.integers(0, max(count - skip * (self.config.frames - 1), 1)))
        numbers = [min(first + step * skip, count - 1) for step in range(self.config.frames)]
        return numbers[::-1] if rng.random() < 0.5 else numbers

    def _paste(
        self,
        images: list[np.ndarray],
        labels: list[np.ndarray],
        value: int,
        rng: np.random.Generator,
        own: Footage | None,
    ) -> None:
        """Paste a moving cut-out over the clip.

        own: footage of the clip, to cut out a look-alike from; None: any footage.
        """
        pool = self.stills if self.stills and (not self.videos or rng.random() < 0.5) else self.videos
        source = own or pool[rng.integers(len(pool))]
        number = int(rng.integers(len(source.frames)))
        labelled = source.labels[number]
        values = np.unique(labelled[labelled > 0])
        mask = labelled == rng.choice(values) if len(values) > 1 else labelled > 0
        if rng.random() < self.config.patch_share:
            mask = _patch(mask.shape, rng)
        if mask.sum() < 100:
            return
        size, cut_out = self.config.size, source.frames[number]
        bend = _Bend(size, rng, self.config.bend) if self.config.bend else None
        motion = _Motion.across(mask, size, rng, self.config, strength=1.5, cut_out=True)
        for step, (image, label) in enumerate(zip(images, labels, strict=True)):
            matrix = motion.at(step)
            pasted = _warp(cut_out, matrix, size, cv2.INTER_LINEAR)
            alpha = _warp(mask.astype(np.uint8) * 255, matrix, size, cv2.INTER_LINEAR)
            if bend:
                pasted = bend(step, pasted, cv2.INTER_LINEAR)
                alpha = bend(step, alpha, cv2.INTER_LINEAR)
            soft = cv2.GaussianBlur(alpha, (3, 3), 0)[:, :, None].astype(np.float32) / 255
            image[:] = (pasted * soft + image * (1 - soft)).astype(np.uint8)
            label[alpha > 127] = value


class _Motion:
    """Smooth random motion of the source image in the clip's window: affine or perspective."""

    def __init__(self, centre: np.ndarray, target: np.ndarray, zoom: float, rates: np.ndarray, aspect: float):
        self.centre, self.target, self.zoom, self.rates, self.aspect = centre, target, zoom, rates, aspect
        self.growth = 0.0  # change of log scale per step
        self.turn = np.zeros(3)  # change per step: horizontal tilt [1/px], vertical tilt [1/px], log aspect ratio

    @classmethod
    def across(
        cls,
        labels: np.ndarray,
        size: int,
        rng: np.random.Generator,
        config: ClipConfig,
        strength: float,
        cut_out: bool = False,
    ) -> _Motion:
        """Draw a motion around an object.

        labels: H×W; strength: scale of the speed; cut_out: whether the object will be pasted.
        """
        if config.small or config.growth:  # otherwise larger objects are drawn more often
            values = np.unique(labels[labels > 0])
            labels = labels == rng.choice(values) if len(values) else labels
        ys, xs = np.nonzero(labels)
        height, width = labels.shape[:2]
        if len(xs):
            pick = rng.integers(len(xs))
            centre = np.array([xs[pick], ys[pick]], float)
            extent = math.sqrt(len(xs))
        else:
            centre = np.array([rng.uniform(0, width), rng.uniform(0, height)])
            extent = 0.3 * min(height, width)
        if cut_out:
            zoom = size * rng.uniform(0.12, 0.5) / max(extent, 1.0)
            target = rng.uniform(0.05, 0.95, 2) * size
        else:
            zoom = math.exp(rng.uniform(*np.log(config.zoom))) * 256 / min(height, width)
            if rng.random() < config.small:
                zoom = min(zoom, size * math.sqrt(rng.uniform(0.005, 0.02)) / max(extent, 1.0))
            zoom = max(zoom, 1.0 * size / max(height, width) * 0.9)
            target = rng.uniform(0.25, 0.75, 2) * size
            # keep the window inside the picture if possible
            for axis, length in enumerate((width, height)):
                if length * zoom >= size:
                    low = size - (length - centre[axis]) * zoom
                    target[axis] = np.clip(target[axis], low, centre[axis] * zoom)
        rates = rng.normal(0, 1, 8) * strength
        rates *= np.array([0.06 * size, 0.06 * size, 0.10, 0.06, 0.03 * size, 0.03 * size, 0.04, 0.05])
        motion = cls(centre, target, zoom, rates, math.exp(rng.normal(0, 0.08)))
        steps = max(config.frames - 1, 1)
        if rng.random() < config.growth:
            whole = rng.uniform(-1, 1) * math.log(config.growth_factor)
            motion.zoom *= math.exp(-whole / 2)
            motion.growth = whole / steps
        if config.perspective and strength >= 1:
            motion.turn = rng.normal(0, config.perspective, 3) * np.array([1.2 / size, 1.2 / size, 1.0]) / steps
        return motion

    def at(self, step: int) -> np.ndarray:
        """Return the matrix from source to window pixels at `step`: 2×3, with perspective 3×3."""
        wobble = math.sin(1.7 * step)
        dx = self.rates[0] * step + self.rates[4] * wobble
        dy = self.rates[1] * step + self.rates[5] * wobble
        angle = self.rates[2] * step + self.rates[6] * wobble
        zoom = self.zoom * math.exp((self.rates[3] + self.growth) * step)
        shear = self.rates[7] * step
        cos, sin = math.cos(angle) * zoom, math.sin(angle) * zoom
        aspect = self.aspect * math.exp(self.turn[2] * step / 2)
        linear = np.array([[cos * aspect, -sin + shear * zoom], [sin, cos / aspect]])
        place = self.target + np.array([dx, dy])
        if not self.turn.any():
            return np.hstack([linear, (place - linear @ self.centre)[:, None]])
        around = np.eye(3)
        around[:2, :2], around[:2, 2] = linear, -linear @ self.centre
        tilt, back = np.eye(3), np.eye(3)
        tilt[2, :2], back[:2, 2] = self.turn[:2] * step, place
        return back @ tilt @ around


class _Bend:
    """Smooth deformation that grows from frame to frame."""

    def __init__(self, size: int, rng: np.random.Generator, strength: float):
        coarse = rng.normal(0, strength * size / 100, (2, 5, 5)).astype(np.float32)
        self.shift = [cv2.resize(part, (size, size), interpolation=cv2.INTER_CUBIC) for part in coarse]
        self.grid = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
        self.phase = rng.uniform(0, 6)

    def __call__(self, step: int, image: np.ndarray, interpolation: int) -> np.ndarray:
        amount = 0.5 * step + math.sin(1.3 * step + self.phase)
        x, y = (grid + amount * shift for grid, shift in zip(self.grid, self.shift, strict=True))
        return cv2.remap(image, x, y, interpolation)


def _patch(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw a smooth blob of 1 to 15 % of the picture, H×W bool."""
    height, width = shape[:2]
    extent = max(int(math.sqrt(height * width) * rng.uniform(0.15, 0.5)), 1)
    noise = rng.normal(0, 1, (7, 7)).astype(np.float32)
    noise[[0, -1], :], noise[:, [0, -1]] = -2, -2
    noise[3, 3] = 3
    blob = cv2.resize(noise, (extent, extent), interpolation=cv2.INTER_CUBIC) > 0.3
    _, parts = cv2.connectedComponents(blob.astype(np.uint8))
    blob = parts == parts[extent // 2, extent // 2]
    mask = np.zeros((height, width), bool)
    top, left = int(rng.integers(max(height - extent, 1))), int(rng.integers(max(width - extent, 1)))
    part = mask[top : top + extent, left : left + extent]
    part |= blob[: part.shape[0], : part.shape[1]]
    return mask


def _warp(image: np.ndarray, matrix: np.ndarray, size: int, interpolation: int) -> np.ndarray:
    if len(matrix) == 3:
        return cv2.warpPerspective(image, matrix, (size, size), flags=interpolation)
    return cv2.warpAffine(image, matrix, (size, size), flags=interpolation)


def _photometric(images: list[np.ndarray], config: ClipConfig, rng: np.random.Generator) -> list[np.ndarray]:
    """Change brightness, contrast, gamma, saturation and tint of a clip; sometimes blur it.

    Brightness also varies slightly from frame to frame.
    """
    strength = config.colour
    gain, gamma = math.exp(rng.normal(0, strength / 2)), math.exp(rng.normal(0, strength / 2))
    tint, saturation = np.exp(rng.normal(0, strength / 6, 3)), max(0.0, 1 + rng.normal(0, strength))
    if rng.random() < 0.05:
        saturation = 0.0
    blur = rng.random() < config.blur
    ramp = np.linspace(0, 1, 256)
    drift = rng.normal(0, config.light) if config.light else 0.0
    out = []
    for step, image in enumerate(images):
        level = gain * math.exp(rng.normal(0, strength / 8) + drift * (step / max(len(images) - 1, 1) - 0.5))
        table = np.stack([np.clip(255 * (ramp**gamma) * level * t, 0, 255) for t in tint], -1).astype(np.uint8)
        image = cv2.LUT(image, table[None])
        if abs(saturation - 1) > 0.05:
            grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            image = cv2.addWeighted(image, saturation, grey, 1 - saturation, 0)
        if blur:
            length = int(rng.integers(2, 6))
            kernel = np.zeros((length, length), np.float32)
            cv2.line(kernel, (0, int(rng.integers(length))), (length - 1, int(rng.integers(length))), 1.0)
            image = cv2.filter2D(image, -1, kernel / kernel.sum())
        out.append(image)
    return out
