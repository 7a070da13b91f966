# SPDX-License-Identifier: MIT
"""Masks from boxes and points by the bundled prompt network.

The network sees a crop around the prompt, scaled to a fixed number of pixels, which bounds the time
for any image size. For points, whose object has an unknown size, it first sees a part of half the
image's height and width, and then twice a crop around what it found (zoom-in). Features of recent
crops are kept, so that another point on the same image mostly costs the decoder alone.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import torch

from xmem_ros.errors import SeedError
from xmem_ros.network.model import image_statistics
from xmem_ros.seeding.candidates import Candidate, best_first
from xmem_ros.seeding.checks import box_text, check_box, check_points
from xmem_ros.seeding.prompt_maps import prompt_maps
from xmem_ros.seeding.prompt_network import STRIDE, Features, PromptNetwork
from xmem_ros.seeding.prompt_weights import load_prompt_network
from xmem_ros.seeding.seeder import Seeder

if TYPE_CHECKING:
    from collections.abc import Sequence

FILE = Path(__file__).with_name('prompts.safetensors')
CROP_AREA = 256 * 256  # px of a crop after scaling, as in training
MULTIPLE = 16
BOX_MARGIN = 0.15  # on each side, as a share of the box's longer side
ZOOM_MARGIN = 0.25  # as BOX_MARGIN, around a mask found in a larger view
FIRST_SHARE = 0.5  # of the frame's height and width, around the points, for the first look
ROUNDS = 2  # further looks, each around the mask found so far
GRID = 4  # of the views of points
KEPT_CROPS = 6


class View(NamedTuple):
    """Part of a frame: left, top, right, bottom [px]."""

    left: int
    top: int
    right: int
    bottom: int


class PromptSegmenter(Seeder):
    """Seeder by a prompt network; deterministic, and usable by several threads.

    Arguments:
        network: see `prompt_network`.
    """

    def __init__(self, network: PromptNetwork):
        self._network = network.eval().to(memory_format=torch.channels_last)
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, View], tuple[np.ndarray, Features]] = OrderedDict()

    @classmethod
    def bundled(cls) -> PromptSegmenter:
        """Load the bundled weights."""
        return cls(load_prompt_network(FILE))

    def candidates_of_box(self, frame: np.ndarray, box: Sequence[int]) -> list[Candidate]:
        """Segment the object in a box; see `Seeder`."""
        x, y, width, height = check_box(box, frame.shape[:2])
        sides = View(x, y, x + width, y + height)
        view = _around(sides, BOX_MARGIN, frame.shape[:2])
        none = np.zeros((0, 2))
        found = self._look(frame, view, sides, none, np.zeros(0, bool), None)
        if found:  # a second look, with the mask found, on the same features
            found = self._look(frame, view, sides, none, np.zeros(0, bool), found[0].mask)
        if not found:
            raise SeedError(
                f'nothing stands out in the box {box_text(box)}: draw it around a whole object, or give points '
                'or a mask'
            )
        return found

    def candidates_of_points(
        self, frame: np.ndarray, points: np.ndarray, point_labels: np.ndarray, mask: np.ndarray | None = None
    ) -> list[Candidate]:
        """Segment the object under points, or correct its mask; see `Seeder`."""
        size = frame.shape[:2]
        pixels, on_object = check_points(points, point_labels, size, correction=mask is not None)
        if mask is None:
            found = self._look(frame, _first_view(pixels[on_object], size), None, pixels, on_object, None)
            held = pixels[on_object]
        else:
            found = [Candidate(mask, 1.0)]
            held = pixels
        for _ in range(ROUNDS if mask is None else 1):
            if found:
                so_far = found[0].mask
                view = _on_grid(_around(_sides_of(so_far, held), ZOOM_MARGIN, size), size)
                found = self._look(frame, view, None, pixels, on_object, so_far)
        if not found:
            raise SeedError('nothing stands out at the points: give more of them on the object, a box or a mask')
        return found

    def _look(
        self,
        frame: np.ndarray,
        view: View,
        box: View | None,
        points: np.ndarray,
        on_object: np.ndarray,
        mask: np.ndarray | None,
    ) -> list[Candidate]:
        """Run the network on a view; candidates in the frame, best first."""
        crop_size = _crop_size(view)
        scale = np.array([crop_size[1] / (view.right - view.left), crop_size[0] / (view.bottom - view.top)])
        placed = (points - (view.left, view.top) + 0.5) * scale
        sides = None
        if box is not None:
            corners = np.array([[box.left, box.top], [box.right, box.bottom]])
            sides = ((corners - (view.left, view.top)) * scale).ravel().tolist()
        coarse = None
        if mask is not None:
            part = mask[view.top : view.bottom, view.left : view.right].astype(np.float32)
            coarse = cv2.resize(part, (crop_size[1] // STRIDE, crop_size[0] // STRIDE), interpolation=cv2.INTER_AREA)
        maps = torch.from_numpy(prompt_maps(crop_size, sides, placed, on_object, coarse))[None]
        with torch.inference_mode():
            logits, quality = self._network(self._features(frame, view, crop_size), maps)
            qualities = torch.sigmoid(quality)[0].tolist()
            masks = torch.sigmoid(logits)[0].numpy()
        return best_first((_restored(mask, view, frame.shape[:2]) for mask in masks), qualities)

    def _features(self, frame: np.ndarray, view: View, crop_size: tuple[int, int]) -> Features:
        """Compute the features of a view, or take those kept of the same pixels."""
        part = frame[view.top : view.bottom, view.left : view.right]
        crop = cv2.resize(np.ascontiguousarray(part), crop_size[::-1], interpolation=cv2.INTER_AREA)
        key = (hash(crop.tobytes()), view)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and np.array_equal(kept[0], crop):
                self._kept.move_to_end(key)
                return kept[1]
        mean, std = image_statistics(torch.device('cpu'))
        pixels = torch.from_numpy(crop).permute(2, 0, 1)[None]
        image = ((pixels.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
        features = self._network.features(image)
        with self._lock:
            self._kept[key] = (crop, features)
            while len(self._kept) > KEPT_CROPS:
                self._kept.popitem(last=False)
        return features


def _first_view(points: np.ndarray, size: tuple[int, int]) -> View:
    """Return a view of half a frame's height and width around points, or more to hold them."""
    low, high = points.min(0), points.max(0) + 1
    whole = np.array([size[1], size[0]])
    half = np.minimum(np.maximum(FIRST_SHARE * whole, high - low + 16), whole)
    start = np.clip((low + high - half) / 2, 0, whole - half).astype(int)
    end = np.minimum(start + np.ceil(half).astype(int), whole)
    return View(int(start[0]), int(start[1]), int(end[0]), int(end[1]))


def _around(sides: View, margin: float, size: tuple[int, int]) -> View:
    """Return the view around a box, with a margin, inside a frame of H, W."""
    grown = max(int(margin * max(sides.right - sides.left, sides.bottom - sides.top)), 8)
    return View(
        max(sides.left - grown, 0),
        max(sides.top - grown, 0),
        min(sides.right + grown, size[1]),
        min(sides.bottom + grown, size[0]),
    )


def _on_grid(view: View, size: tuple[int, int]) -> View:
    """Extend a view to a grid inside a frame of H, W.

    The next point changes the object's sides a little; mostly it then gets the same view, whose
    features are kept. The grid's step is a power of two, at most a `GRID`-th of the longer side.
    """
    step = 2 ** max(int(math.log2(max(view.right - view.left, view.bottom - view.top) / GRID)), 0)
    return View(
        view.left // step * step,
        view.top // step * step,
        min(-(-view.right // step) * step, size[1]),
        min(-(-view.bottom // step) * step, size[0]),
    )


def _sides_of(mask: np.ndarray, points: np.ndarray) -> View:
    """Return the box of a mask and of points."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    xs = np.concatenate([columns[[0, -1]] if columns.size else columns, points[:, 0]])
    ys = np.concatenate([rows[[0, -1]] if rows.size else rows, points[:, 1]])
    return View(int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)


def _crop_size(view: View) -> tuple[int, int]:
    """Return H, W of a view's crop: multiples of 16 of about `CROP_AREA`."""
    height, width = view.bottom - view.top, view.right - view.left
    ratio = min(max(width / height, 1 / 4), 4.0)
    return (
        max(round((CROP_AREA / ratio) ** 0.5 / MULTIPLE), 1) * MULTIPLE,
        max(round((CROP_AREA * ratio) ** 0.5 / MULTIPLE), 1) * MULTIPLE,
    )


def _restored(probabilities: np.ndarray, view: View, size: tuple[int, int]) -> np.ndarray:
    """Scale probabilities h×w of a view to a mask H×W bool of the frame."""
    full = np.zeros(size, bool)
    part = (view.right - view.left, view.bottom - view.top)
    enlarged = cv2.resize(probabilities, part, interpolation=cv2.INTER_LINEAR)
    full[view.top : view.bottom, view.left : view.right] = enlarged >= 0.5
    return full
