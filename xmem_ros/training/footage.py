# SPDX-License-Identifier: MIT
"""Annotated footage: videos (DAVIS, YouTube-VOS, MOSE), pictures with masks, labelled bags.

All files are checked before the first step. Footage is kept in memory up to a budget; the rest is
read from disk on demand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import cv2
import numpy as np

from xmem_ros import pictures
from xmem_ros.errors import FrameError, SeedError, XMemError
from xmem_ros.media import IMAGE_SUFFIXES, VOID, image_files, natural_order, read_image, read_mask
from xmem_ros.outside_text import say
from xmem_ros.progress import Bar


class FootageError(XMemError, ValueError):
    """Unusable training data; the message names the file or folder."""


@dataclass
class Budget:
    """Memory left for footage [bytes]."""

    left: int

    def take(self, size: int) -> bool:
        """Reserve memory; return False if there is too little."""
        if size > self.left:
            return False
        self.left -= size
        return True


class Pictures(Sequence[np.ndarray]):
    """Sequence of arrays, each in memory or loaded from disk on access."""

    def __init__(self, kept: list[np.ndarray | Callable[[], np.ndarray]]):
        self._kept = kept

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, index: slice) -> Pictures: ...

    def __getitem__(self, index: int | slice) -> np.ndarray | Pictures:
        if isinstance(index, slice):
            return Pictures(self._kept[index])
        kept = self._kept[index]
        return kept() if callable(kept) else kept


@dataclass
class Footage:
    """Video, or still (a video of one frame); object ids are 1…254, 0 is background."""

    name: str
    frames: Sequence[np.ndarray]  # each H×W×3 uint8 RGB
    labels: Sequence[np.ndarray]  # each H×W uint8
    weight: float = 1.0  # sampling weight
    stride: int = 1  # camera frames from one frame to the next

    def part(self, name: str, begin: int, end: int) -> Footage:
        """Return the frames `begin` to `end` (exclusive)."""
        return replace(self, name=name, frames=self.frames[begin:end], labels=self.labels[begin:end])


def scaled_frame(frame: np.ndarray, shorter_side: int) -> np.ndarray:
    """Scale a frame down to at most `shorter_side` px on the shorter side."""
    scale = shorter_side / min(frame.shape[:2])
    return cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else frame


def scaled_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale labels to a size (H, W)."""
    return labels if labels.shape == size else cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST)


def scaled_size(size: tuple[int, int], shorter_side: int) -> tuple[int, int]:
    """Return the height and width of a frame of this size after `scaled_frame`."""
    scale = min(1.0, shorter_side / min(size))
    return (round(size[0] * scale), round(size[1] * scale)) if scale < 1 else size


@dataclass(frozen=True)
class _Pair:
    """Picture and its mask on disk."""

    image: Path
    first: Path  # of the sequence
    mask: Path
    size: tuple[int, int]  # H, W that both are scaled to
    shorter_side: int
    kind: str  # 'ids', 'binary' (one object of value 255) or 'still' (see `still_labels`)

    def frame(self) -> np.ndarray:
        try:
            frame = scaled_frame(read_image(self.image, self.first), self.shorter_side)
        except FrameError as error:
            raise FootageError(str(error)) from error
        return frame if frame.shape[:2] == self.size else cv2.resize(frame, self.size[::-1])

    def labels(self) -> np.ndarray:
        try:
            if self.kind == 'still':
                return scaled_labels(still_labels(_grey(self.mask)), self.size)
            mask = read_mask(self.mask)
        except SeedError as error:
            raise FootageError(str(error)) from error
        if self.kind == 'binary':
            stray = sorted(set(np.unique(mask).tolist()) - {0, VOID})
            if stray:
                raise FootageError(
                    f'{self.mask}: value {stray[0]} in a sequence whose first mask holds only 0 and {VOID}; '
                    f'use 0 and {VOID} throughout, or one value below {VOID} for each object'
                )
            mask = (mask == VOID).astype(np.uint8)
        return scaled_labels(np.where(mask == VOID, np.uint8(0), mask), self.size)


def still_labels(mask: np.ndarray) -> np.ndarray:
    """Convert the mask of a picture to labels.

    A mask with the values 1 to 20 holds object ids, and 255 is void. Any other mask is a soft mask
    of one object, thresholded at one half.
    """
    values = np.unique(mask)
    if ((values > 0) & (values <= 20)).any() and not ((values > 20) & (values < VOID)).any():
        return np.where(mask == VOID, np.uint8(0), mask).astype(np.uint8)
    return (mask > VOID // 2).astype(np.uint8)


def _grey(path: Path) -> np.ndarray:
    try:
        with pictures.opened(path) as image:
            return np.array(image if image.mode in ('L', 'P') else image.convert('L'))
    except (OSError, pictures.PictureError) as error:
        raise FootageError(f'{path}: not a readable mask ({error}); replace or remove the file') from error


def _size(path: Path, what: str) -> tuple[int, int]:
    """Read height and width from an image header; raises `FootageError` for another file."""
    try:
        with pictures.opened(path) as image:
            width, height = image.size
            return height, width
    except (OSError, pictures.PictureError) as error:
        raise FootageError(f'{path}: not a readable {what} ({error}); replace or remove the file') from error


def _read_pairs(
    pairs: list[tuple[Path, Path]], shorter_side: int, budget: Budget, kind: str, verify: bool
) -> tuple[Pictures, Pictures]:
    frames: list[np.ndarray | Callable[[], np.ndarray]] = []
    labels: list[np.ndarray | Callable[[], np.ndarray]] = []
    for image, mask in pairs:
        size, mask_size = _size(image, 'image'), _size(mask, 'mask')
        if abs(size[0] * mask_size[1] / (size[1] * mask_size[0]) - 1) > 0.02:
            raise FootageError(
                f'{mask}: the mask is {mask_size[1]}×{mask_size[0]} px, its image {size[1]}×{size[0]} px; their aspect '
                'ratios must be equal'
            )
        first = image if kind == 'still' else pairs[0][0]
        pair = _Pair(image, first, mask, scaled_size(size, shorter_side), shorter_side, kind)
        if budget.take(pair.size[0] * pair.size[1] * 4):
            frames.append(pair.frame())
            labels.append(pair.labels())
        else:
            if verify:
                pair.frame(), pair.labels()
            frames.append(pair.frame)
            labels.append(pair.labels)
    return Pictures(frames), Pictures(labels)


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in image_files(folder):
        if path.stem in found:
            raise FootageError(
                f'{path}: {found[path.stem].name} has the same name except for the suffix; keep one of them'
            )
        found[path.stem] = path
    return found


def _kind(masks: list[Path]) -> str:
    """Determine the kind of masks from the first non-empty one; only 0 and 255 means 'binary'."""
    for path in masks:
        try:
            values = set(np.unique(read_mask(path)).tolist()) - {0}
        except SeedError as error:
            raise FootageError(str(error)) from error
        if values:
            return 'binary' if values == {VOID} else 'ids'
    return 'ids'


def _folders(path: Path) -> set[str]:
    return {child.name for child in path.iterdir() if child.is_dir() and not child.name.startswith('.')}


def video_folders(root: Path) -> tuple[Path, Path]:
    """Find the folders of the sequences and of their masks.

    Layouts: DAVIS (with or without 480p), YouTube-VOS, MOSE (with or without train). Raises
    `FootageError` for any other layout.
    """
    for base in (root, root / 'train'):
        for inner in ('480p', 'Full-Resolution', ''):
            images, masks = base / 'JPEGImages' / inner, base / 'Annotations' / inner
            if images.is_dir() and masks.is_dir():
                return images, masks
    raise FootageError(f'{root}: expected the folders JPEGImages/SEQ and Annotations/SEQ, or a bag')


def read_videos(
    root: Path,
    shorter_side: int,
    leave_out: Sequence[str] = (),
    budget: Budget | None = None,
    *,
    only: Sequence[str] | None = None,
    verify: bool = True,
) -> list[Footage]:
    """Read all sequences, or those in `only`, except those in `leave_out`.

    Frames without a mask are skipped.

    Raises:
        FootageError: missing folders, a mask without an image, no mask at all, an unreadable file.
    """
    budget = budget or Budget(1 << 40)
    images, masks = video_folders(root)
    names = sorted(_folders(images))
    if not names:
        raise FootageError(f'{images}: no sequence; each is a folder of images')
    if stray := sorted(_folders(masks) - set(names)):
        raise FootageError(f'{masks / stray[0]}: masks without images; {images} has no folder of that name')
    if only is not None:
        if missing := sorted(set(only) - set(names)):
            raise FootageError(f'{images}: no sequence {", ".join(missing)}')
        names = [name for name in names if name in only]
    names = [name for name in names if name not in leave_out]
    chosen, unmasked = [], 0
    for name in Bar(names, desc=f'reading {root.name or root}', unit='video'):
        frames = _by_stem(images / name)
        labels = _by_stem(masks / name) if (masks / name).is_dir() else {}
        if stray := sorted(set(labels) - set(frames)):
            raise FootageError(
                f'{labels[stray[0]]}: a mask without an image; {images / name} has no image of that name'
            )
        stems = sorted(labels, key=natural_order)
        if not stems:
            raise FootageError(f'{masks / name}: sequence {name} has no mask; remove it or leave it out')
        unmasked += len(frames) - len(stems)
        pairs = [(frames[stem], labels[stem]) for stem in stems]
        kind = _kind([labels[stem] for stem in stems])
        chosen.append(Footage(name, *_read_pairs(pairs, shorter_side, budget, kind, verify)))
    if unmasked:
        say(f'{root}: {unmasked} frames without a mask are left out')
    return chosen


def sequence_names(root: Path) -> set[str]:
    """Return the names of the sequences in a folder of videos."""
    return _folders(video_folders(root)[0])


def read_stills(root: Path, shorter_side: int, budget: Budget | None = None, *, verify: bool = True) -> list[Footage]:
    """Read pictures with masks, each as a video of one frame.

    Layouts: `root`/images with `root`/masks, or each picture.jpg with a picture.png beside it, in
    `root` or in its subfolders. Raises `FootageError`.
    """
    budget = budget or Budget(1 << 40)
    if not root.is_dir():
        raise FootageError(f'{root} is not a folder')
    if (root / 'images').is_dir():
        if not (root / 'masks').is_dir():
            raise FootageError(f'{root / "masks"}: no such folder; each image needs a mask there')
        pairs = _matched(_by_stem(root / 'images'), _by_stem(root / 'masks'))
    else:
        pairs = []
        for folder in [root, *(root / name for name in sorted(_folders(root)))]:
            files = image_files(folder)
            masks = {path.stem: path for path in files if path.suffix.lower() == '.png'}
            pairs += _matched({path.stem: path for path in files if path.suffix.lower() != '.png'}, masks)
    if not pairs:
        raise FootageError(f'{root}: no images ({", ".join(sorted(IMAGE_SUFFIXES))}) in images/ or beside their masks')
    stills = []
    for image, mask in Bar(pairs, desc=f'reading {root.name or root}', unit='image'):
        frames, labels = _read_pairs([(image, mask)], shorter_side, budget, 'still', verify)
        stills.append(Footage(f'{root.name}/{image.stem}', frames, labels))
    return stills


def _matched(images: dict[str, Path], masks: dict[str, Path]) -> list[tuple[Path, Path]]:
    if stray := sorted(set(images) - set(masks)):
        raise FootageError(f'{images[stray[0]]}: an image without a mask; {stray[0]}.png is missing')
    if stray := sorted(set(masks) - set(images)):
        raise FootageError(f'{masks[stray[0]]}: a mask without an image; {stray[0]}.jpg is missing')
    return [(images[stem], masks[stem]) for stem in sorted(images)]
