# SPDX-License-Identifier: MIT
"""Annotated footage: videos in the layouts of DAVIS, YouTube-VOS and MOSE, pictures with masks, labelled bags.

All files are looked at before the first step. What fits is kept in memory, the rest is read when it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import overload

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from xmem_ros.errors import FrameError, SeedError, XMemError
from xmem_ros.media import IMAGE_SUFFIXES, VOID, image_files, read_image, read_mask


class FootageError(XMemError, ValueError):
    """Training data that cannot be used; names the file or folder."""


@dataclass
class Budget:
    """Room for footage in memory, in bytes; what is kept is taken off."""

    left: int

    def take(self, size: int) -> bool:
        """Whether there was room."""
        if size > self.left:
            return False
        self.left -= size
        return True


class Pictures(Sequence[np.ndarray]):
    """Arrays, some in memory and some on disk."""

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
    """A video, or a still (one frame). Object ids are 1…254; 0 is background."""

    name: str
    frames: Sequence[np.ndarray]  # each H×W×3 uint8 RGB
    labels: Sequence[np.ndarray]  # each H×W uint8
    weight: float = 1.0  # how often it is taken

    def part(self, name: str, begin: int, end: int) -> Footage:
        """Some of its frames."""
        return Footage(name, self.frames[begin:end], self.labels[begin:end], self.weight)


def scaled(frame: np.ndarray, labels: np.ndarray, shorter_side: int) -> tuple[np.ndarray, np.ndarray]:
    """Frame and labels with at most `shorter_side` px on the shorter side; labels of another size are brought to it."""
    scale = shorter_side / min(frame.shape[:2])
    if scale < 1:
        frame = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    if labels.shape != frame.shape[:2]:
        labels = cv2.resize(labels, frame.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return frame, labels


def object_labels(mask: np.ndarray) -> np.ndarray:
    """A mask's values as object ids: of 0 and 255 alone, 255 is object 1; else it is void, which counts as none."""
    if mask.max(initial=0) == VOID:
        inside = mask[mask > 0].min()
        return np.where(mask == VOID, np.uint8(1 if inside == VOID else 0), mask)
    return mask


def still_labels(mask: np.ndarray) -> np.ndarray:
    """A picture's mask as one object: what is not 0, or, of a soft mask, what is more than half."""
    return (mask > (VOID // 2 if mask.max(initial=0) > VOID // 2 else 0)).astype(np.uint8)


def _pair(image: Path, mask: Path, shorter_side: int, single: bool) -> tuple[np.ndarray, np.ndarray]:
    try:
        values = read_mask(mask)
        return scaled(read_image(image), still_labels(values) if single else object_labels(values), shorter_side)
    except (FrameError, SeedError) as error:
        raise FootageError(str(error)) from error


def _part(image: Path, mask: Path, shorter_side: int, single: bool, part: int) -> np.ndarray:
    return _pair(image, mask, shorter_side, single)[part]


def _look_at(path: Path, what: str) -> tuple[int, int]:
    """Width and height by the file's header; raises `FootageError` where it is none of an image."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, SyntaxError, ValueError) as error:
        raise FootageError(f'{path}: not a readable {what} ({error}); replace or remove the file') from error


def _read_pairs(
    pairs: list[tuple[Path, Path]], shorter_side: int, budget: Budget, *, single: bool = False
) -> tuple[Pictures, Pictures]:
    frames: list[np.ndarray | Callable[[], np.ndarray]] = []
    labels: list[np.ndarray | Callable[[], np.ndarray]] = []
    for image, mask in pairs:
        width, height = _look_at(image, 'image')
        scale = min(1.0, shorter_side / min(width, height))
        if budget.take(round(width * scale) * round(height * scale) * 4):
            frame, label = _pair(image, mask, shorter_side, single)
            frames.append(frame)
            labels.append(label)
        else:
            _look_at(mask, 'mask')
            frames.append(partial(_part, image, mask, shorter_side, single, 0))
            labels.append(partial(_part, image, mask, shorter_side, single, 1))
    return Pictures(frames), Pictures(labels)


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in image_files(folder):
        if path.stem in found:
            raise FootageError(
                f'{path}: {found[path.stem].name} has the same name but for the suffix; keep one of them'
            )
        found[path.stem] = path
    return found


def video_folders(root: Path) -> tuple[Path, Path]:
    """Where sequences and their masks lie: as in DAVIS (perhaps in 480p), YouTube-VOS or MOSE (perhaps in train).

    Raises `FootageError` saying what is expected.
    """
    for base in (root, root / 'train'):
        for inner in ('', '480p', 'Full-Resolution'):
            images, masks = base / 'JPEGImages' / inner, base / 'Annotations' / inner
            if not inner and (images / '480p').is_dir():
                continue
            if images.is_dir() and masks.is_dir():
                return images, masks
    raise FootageError(f'{root}: expected the folders JPEGImages/SEQ and Annotations/SEQ, or a bag')


def read_videos(
    root: Path, shorter_side: int, leave_out: Sequence[str] = (), budget: Budget | None = None
) -> list[Footage]:
    """Read every sequence but those in `leave_out`. Frames without a mask are left out.

    Raises:
        FootageError: folders that are not there, a mask without an image, no mask at all, an unreadable file.
    """
    budget = budget or Budget(1 << 40)
    images, masks = video_folders(root)
    names = sorted(path.name for path in images.iterdir() if path.is_dir() and not path.name.startswith('.'))
    if not names:
        raise FootageError(f'{images}: no sequence; each is a folder of images')
    chosen, unmasked = [], 0
    with tqdm(names, desc=f'reading {root.name or root}', unit='video') as bar:
        for name in bar:
            if name in leave_out:
                continue
            frames = _by_stem(images / name)
            labels = _by_stem(masks / name) if (masks / name).is_dir() else {}
            if stray := sorted(set(labels) - set(frames)):
                raise FootageError(f'{labels[stray[0]]}: a mask without an image; {images / name} has none of its name')
            pairs = [(frames[stem], labels[stem]) for stem in sorted(labels)]
            if not pairs:
                raise FootageError(f'{masks / name}: sequence {name} has no mask; remove it or leave it out')
            unmasked += len(frames) - len(pairs)
            chosen.append(Footage(name, *_read_pairs(pairs, shorter_side, budget)))
    if unmasked:
        print(f'{root}: {unmasked} frames have no mask and are left out')
    return chosen


def sequence_names(root: Path) -> set[str]:
    """Names of the sequences in a folder of videos."""
    return {path.name for path in video_folders(root)[0].iterdir() if path.is_dir()}


def read_stills(root: Path, shorter_side: int, budget: Budget | None = None) -> list[Footage]:
    """Read pictures with masks, each as a video of one frame with one object.

    `root`/images with `root`/masks, or each picture.jpg with a picture.png beside it. Raises `FootageError`.
    """
    budget = budget or Budget(1 << 40)
    if not root.is_dir():
        raise FootageError(f'{root} is not a folder')
    if (root / 'images').is_dir():
        if not (root / 'masks').is_dir():
            raise FootageError(f'{root / "masks"}: no such folder; each image needs a mask there')
        images, masks = _by_stem(root / 'images'), _by_stem(root / 'masks')
    else:
        files = image_files(root)
        masks = {path.stem: path for path in files if path.suffix.lower() == '.png'}
        images = {path.stem: path for path in files if path.suffix.lower() != '.png'}
    if not images:
        raise FootageError(f'{root}: no images ({", ".join(sorted(IMAGE_SUFFIXES))}) in images/ or beside their masks')
    for there, lacking, what in (
        (images, masks, 'an image without a mask'),
        (masks, images, 'a mask without an image'),
    ):
        if stray := sorted(set(there) - set(lacking)):
            missing = f'{stray[0]}.png is missing' if there is images else f'{stray[0]}.jpg is missing'
            raise FootageError(f'{there[stray[0]]}: {what}; {missing}')
    stills = []
    for stem in tqdm(sorted(images), desc=f'reading {root.name or root}', unit='image'):
        frames, labels = _read_pairs([(images[stem], masks[stem])], shorter_side, budget, single=True)
        stills.append(Footage(stem, frames, labels))
    return stills
