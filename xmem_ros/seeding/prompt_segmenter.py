# SPDX-License-Identifier: MIT
"""Masks from boxes and points by the bundled prompt network.

The network sees a crop around the prompt, scaled to a fixed number of pixels, which bounds the time
for any image size. For points, whose object has an unknown size, it first sees a part of half the
image's height and width, and then twice a crop around what it found (zoom-in). Features of recent
crops are kept, so that another point on the same image mostly costs the decoder alone.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import torch

from xmem_ros.errors import SeedError
from xmem_ros.network.model import image_statistics
from xmem_ros.seeding.candidates import Candidate, best_first
from xmem_ros.seeding.checks import check_box, check_points, nothing_in
from xmem_ros.seeding.prompt_maps import prompt_maps
from xmem_ros.seeding.prompt_network import STRIDE, Features, PromptNetwork
from xmem_ros.seeding.prompt_weights import load_prompt_network
from xmem_ros.seeding.seeder import Seeder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FILE = Path(__file__).with_name('prompts.safetensors')
CROP_AREA = 256 * 256  # px of a crop after scaling, as in training
MULTIPLE = 16
BOX_MARGIN = 0.15  # on each side, as a share of the box's longer side
ZOOM_MARGIN = 0.25  # as BOX_MARGIN, around a mask found in a larger view
FIRST_SHARE = 0.5  # of the frame's height and width, around the points, for the first look
ROUNDS = 2  # further looks, each around the mask found so far
GRID = 4  # of the views of points
MOST_SLACK = 2.5  # area of a view, per area that a closer one would have
MOST_AT_ONCE = 8  # boxes
KEPT_CROPS = MOST_AT_ONCE
KEPT_PROMPTS = 4
LARGEST_KEPT = 2**23  # px of an image whose candidates are kept, 3 bytes each
ONE_BY_ONE = 12  # points; further ones are taken at once


class View(NamedTuple):
    """Part of a frame: left, top, right, bottom [px]."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        """Area [px]."""
        return (self.right - self.left) * (self.bottom - self.top)


class _Prompt(NamedTuple):
    """What a user gave, and the view that the network gets."""

    view: View
    box: View | None
    points: np.ndarray = np.zeros((0, 2))
    on_object: np.ndarray = np.zeros(0, bool)
    mask: np.ndarray | None = None


class PromptSegmenter(Seeder):
    """Seeder by a prompt network; deterministic, and usable by several threads.

    Arguments:
        network: see `prompt_network`.
    """

    def __init__(self, network: PromptNetwork):
        self._network = network.eval().to(memory_format=torch.channels_last)
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, View], tuple[np.ndarray, Features]] = OrderedDict()
        self._found: OrderedDict[tuple[bytes, ...], tuple[list[Candidate], View]] = OrderedDict()

    @classmethod
    def bundled(cls) -> PromptSegmenter:
        """Load the bundled weights."""
        return cls(load_prompt_network(FILE))

    def candidates_of_box(self, frame: np.ndarray, box: Sequence[int]) -> list[Candidate]:
        """Segment the object in a box; see `Seeder`."""
        (found,) = self._in_boxes(frame, [check_box(box, frame.shape[:2])])
        if not found:
            raise nothing_in(box)
        return found

    def from_boxes(self, frame: np.ndarray, boxes: Sequence[Sequence[int]]) -> list[np.ndarray | SeedError]:
        """Segment the object in each box, those of similar shapes in one pass; see `Seeder`."""
        checked = [check_box(box, frame.shape[:2]) for box in boxes]
        found: list[list[Candidate]] = []
        for start in range(0, len(checked), MOST_AT_ONCE):
            found += self._in_boxes(frame, checked[start : start + MOST_AT_ONCE])
        return [
            candidates[0].mask if candidates else nothing_in(box)
            for candidates, box in zip(found, checked, strict=True)
        ]

    def _in_boxes(self, frame: np.ndarray, boxes: Sequence[Sequence[int]]) -> list[list[Candidate]]:
        prompts = []
        for x, y, width, height in boxes:
            sides = View(x, y, x + width, y + height)
            prompts.append(_Prompt(_around(sides, BOX_MARGIN, frame.shape[:2]), sides))
        found = self._look(frame, prompts)
        # A second look, with the masks found, on the same features.
        again = [index for index, candidates in enumerate(found) if candidates]
        second = self._look(frame, [prompts[index]._replace(mask=found[index][0].mask) for index in again])
        for index, candidates in zip(again, second, strict=True):
            found[index] = candidates
        return found

    def candidates_of_points(
        self, frame: np.ndarray, points: np.ndarray, point_labels: np.ndarray, mask: np.ndarray | None = None
    ) -> list[Candidate]:
        """Segment the object under points, or correct its mask; see `Seeder`."""
        size = frame.shape[:2]
        pixels, on_object = check_points(points, point_labels, size, correction=mask is not None)
        if mask is not None:
            (found,) = self._look(frame, [_Prompt(_zoomed(mask, pixels), None, pixels, on_object, mask)])
        else:
            found = self._one_by_one(frame, pixels, on_object)
        if not found:
            raise SeedError('nothing stands out at the points: give more of them on the object, a box or a mask')
        return found

    def _one_by_one(self, frame: np.ndarray, points: np.ndarray, on_object: np.ndarray) -> list[Candidate]:
        """Take the points in their order; each corrects the mask of those before it.

        The candidates of the first points are kept, so that one more point needs one more look.
        """
        first = int(on_object.argmax()) + 1
        counts = [*range(first, min(len(points), ONE_BY_ONE)), len(points)]
        image = hashlib.blake2b(frame.tobytes()).digest()
        keys = [(image, points[:count].tobytes(), on_object[:count].tobytes()) for count in counts]
        with self._lock:
            done = next((place for place in reversed(range(len(keys))) if keys[place] in self._found), -1)
            found, view = self._found[keys[done]] if done >= 0 else ([], View(0, 0, 0, 0))
        for count, key in list(zip(counts, keys, strict=True))[done + 1 :]:
            so_far = (points[:count], on_object[:count])
            if found:
                view = _kept_or_zoomed(view, found[0].mask, so_far[0])
                found = self._corrected(frame, _Prompt(view, None, *so_far, found[0].mask))
            else:
                found, view = self._first(frame, *so_far)
            if frame.shape[0] * frame.shape[1] <= LARGEST_KEPT:
                with self._lock:
                    self._found[key] = found, view
                    while len(self._found) > KEPT_PROMPTS:
                        self._found.popitem(last=False)
        return found

    def _first(self, frame: np.ndarray, points: np.ndarray, on_object: np.ndarray) -> tuple[list[Candidate], View]:
        """Look at a part of the frame around the points, then closer at what was found there."""
        view = _first_view(points[on_object], frame.shape[:2])
        (found,) = self._look(frame, [_Prompt(view, None, points, on_object)])
        for _ in range(ROUNDS):
            if found:
                view = _zoomed(found[0].mask, points[on_object])
                (found,) = self._look(frame, [_Prompt(view, None, points, on_object, found[0].mask)])
        return found, view

    def _corrected(self, frame: np.ndarray, prompt: _Prompt) -> list[Candidate]:
        """Look once at the mask of some of the points, with that mask and without it.

        Without it, since points may say that the mask is of something else. The mean of both is a
        candidate as well, as good as the better one. Those that agree with most points come first.
        """
        crop_size = _crop_size(prompt.view)
        masks, qualities = self._predict(frame, [prompt, prompt._replace(mask=None)], crop_size)
        mean = masks[np.arange(2), qualities.argmax(1)].mean(0)
        found = _candidates([mean, *masks[0], *masks[1]], [qualities.max(), *qualities.ravel()], prompt.view, frame)
        columns, rows = prompt.points.T
        return sorted(found, key=lambda candidate: (candidate.mask[rows, columns] != prompt.on_object).sum())

    def _look(self, frame: np.ndarray, prompts: Sequence[_Prompt]) -> list[list[Candidate]]:
        """Run the network; for each prompt the candidates in the frame, best first."""
        found: list[list[Candidate]] = [[] for _ in prompts]
        of_size: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, prompt in enumerate(prompts):
            of_size[_crop_size(prompt.view)].append(index)
        for crop_size, indices in of_size.items():
            masks, qualities = self._predict(frame, [prompts[index] for index in indices], crop_size)
            for place, index in enumerate(indices):
                found[index] = _candidates(masks[place], qualities[place], prompts[index].view, frame)
        return found

    def _predict(
        self, frame: np.ndarray, prompts: Sequence[_Prompt], crop_size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Run the network on crops of one size: probabilities B×3×h×w and predicted IoU B×3."""
        maps = np.stack([_maps(prompt, crop_size) for prompt in prompts])
        with torch.inference_mode():
            features = self._features(frame, [prompt.view for prompt in prompts], crop_size)
            logits, quality = self._network(features, torch.from_numpy(maps))
            return torch.sigmoid(logits).numpy(), torch.sigmoid(quality).numpy()

    def _features(self, frame: np.ndarray, views: Sequence[View], crop_size: tuple[int, int]) -> Features:
        """Compute the features of views, except those kept of the same pixels."""
        crops = {view: _crop(frame, view, crop_size) for view in views}
        features: dict[View, Features] = {}
        with self._lock:
            for view, crop in crops.items():
                kept = self._kept.get((hash(crop.tobytes()), view))
                if kept is not None and np.array_equal(kept[0], crop):
                    features[view] = kept[1]
        missing = [view for view in crops if view not in features]
        if missing:
            mean, std = image_statistics(torch.device('cpu'))
            pixels = torch.from_numpy(np.stack([crops[view] for view in missing])).permute(0, 3, 1, 2)
            images = ((pixels.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
            computed = self._network.features(images)
            for place, view in enumerate(missing):
                features[view] = Features(*(level[place : place + 1] for level in computed))
        with self._lock:
            for view, crop in crops.items():
                key = (hash(crop.tobytes()), view)
                self._kept[key] = (crop, features[view])
                self._kept.move_to_end(key)
            while len(self._kept) > KEPT_CROPS:
                self._kept.popitem(last=False)
        return Features(*(torch.cat(level) for level in zip(*(features[view] for view in views), strict=True)))


def _crop(frame: np.ndarray, view: View, crop_size: tuple[int, int]) -> np.ndarray:
    part = frame[view.top : view.bottom, view.left : view.right]
    return cv2.resize(np.ascontiguousarray(part), crop_size[::-1], interpolation=cv2.INTER_AREA)


def _maps(prompt: _Prompt, crop_size: tuple[int, int]) -> np.ndarray:
    """Return the prompt maps of a crop, 5×H/4×W/4."""
    view = prompt.view
    scale = np.array([crop_size[1] / (view.right - view.left), crop_size[0] / (view.bottom - view.top)])
    placed = (prompt.points - (view.left, view.top) + 0.5) * scale
    sides = None
    if prompt.box is not None:
        corners = np.array([[prompt.box.left, prompt.box.top], [prompt.box.right, prompt.box.bottom]])
        sides = ((corners - (view.left, view.top)) * scale).ravel().tolist()
    coarse = None
    if prompt.mask is not None:
        part = prompt.mask[view.top : view.bottom, view.left : view.right].astype(np.float32)
        coarse = cv2.resize(part, (crop_size[1] // STRIDE, crop_size[0] // STRIDE), interpolation=cv2.INTER_AREA)
    return prompt_maps(crop_size, sides, placed, prompt.on_object, coarse)


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


def _zoomed(mask: np.ndarray, points: np.ndarray) -> View:
    """Return the view around a mask, H×W of the frame, and points."""
    return _on_grid(_around(_sides_of(mask, points), ZOOM_MARGIN, mask.shape), mask.shape)


def _kept_or_zoomed(view: View, mask: np.ndarray, points: np.ndarray) -> View:
    """Return the last view, whose features are kept, unless another is much better."""
    wanted = _around(_sides_of(mask, points), ZOOM_MARGIN / 2, mask.shape)
    holds = (view.left <= wanted.left and view.top <= wanted.top) and (
        wanted.right <= view.right and wanted.bottom <= view.bottom
    )
    return view if holds and view.area <= MOST_SLACK * wanted.area else _zoomed(mask, points)


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


def _candidates(
    masks: Iterable[np.ndarray], qualities: Iterable[float], view: View, frame: np.ndarray
) -> list[Candidate]:
    """Scale probabilities h×w of a view to masks of the frame, best first."""
    part = (view.right - view.left, view.bottom - view.top)
    enlarged = (cv2.resize(mask, part, interpolation=cv2.INTER_LINEAR) >= 0.5 for mask in masks)
    found = best_first(enlarged, [float(quality) for quality in qualities])
    return [candidate._replace(mask=_placed(candidate.mask, view, frame.shape[:2])) for candidate in found]


def _placed(mask: np.ndarray, view: View, size: tuple[int, int]) -> np.ndarray:
    """Return a mask H×W of the frame, with the mask of a view in its place."""
    full = np.zeros(size, bool)
    full[view.top : view.bottom, view.left : view.right] = mask
    return full
