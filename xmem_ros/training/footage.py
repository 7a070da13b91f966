# SPDX-License-Identifier: MIT
"""Annotated footage, read once into memory: videos in the DAVIS/YouTube-VOS layout and stills with masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from xmem_ros.errors import XMemError

IMAGE_SUFFIXES = {'.jpg', '.jpeg', '.png'}


class FootageError(XMemError, ValueError):
    """Training data that cannot be used; names the file or folder."""


@dataclass
class Footage:
    """A video, or a still (one frame). Object ids are 1…; 0 is background."""

    name: str
    frames: list[np.ndarray]  # each H×W×3 uint8 RGB
    labels: list[np.ndarray]  # each H×W uint8


def read_labels(path: Path) -> np.ndarray:
    """Read a mask as object ids H×W uint8; a mask of 0 and 255 is object 1.

    Raises `FootageError` where the file is unreadable.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            labels = np.array(image if image.mode in ('P', 'L') else image.convert('L'), dtype=np.uint8)
    except OSError as error:
        raise FootageError(f'{path}: not a readable mask ({error})') from error
    values = np.unique(labels)
    if set(values.tolist()) <= {0, 255}:
        return (labels > 0).astype(np.uint8)
    return labels


def read_frame(path: Path, shorter_side: int) -> np.ndarray:
    """Read an image as RGB, scaled down so that its shorter side is at most `shorter_side` px."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise FootageError(f'{path}: not a readable image')
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    scale = shorter_side / min(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return image


def _pair(name: str, images: Sequence[Path], masks: Path, shorter_side: int) -> Footage:
    frames, labels = [], []
    for path in images:
        mask = masks / f'{path.stem}.png'
        if not mask.is_file():
            raise FootageError(f'{path} has no mask: {mask} is missing')
        frame, label = read_frame(path, shorter_side), read_labels(mask)
        if label.shape != frame.shape[:2]:
            label = cv2.resize(label, frame.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        frames.append(frame)
        labels.append(label)
    return Footage(name, frames, labels)


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FootageError(f'{folder} is not a folder')
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise FootageError(f'{folder} holds no image ({", ".join(sorted(IMAGE_SUFFIXES))})')
    return images


def read_videos(root: Path, shorter_side: int, leave_out: Sequence[str] = ()) -> list[Footage]:
    """Read `root`/JPEGImages/SEQ and `root`/Annotations/SEQ, every sequence but those in `leave_out`."""
    folder = root / 'JPEGImages'
    if not folder.is_dir():
        raise FootageError(f'{root}: expected the folders JPEGImages/SEQ and Annotations/SEQ')
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    unknown = sorted(set(leave_out) - set(names))
    if unknown:
        raise FootageError(f'{root} has no sequence {", ".join(unknown)} to leave out')
    chosen = [name for name in names if name not in leave_out]
    return [
        _pair(name, _images(folder / name), root / 'Annotations' / name, shorter_side)
        for name in tqdm(chosen, desc=f'reading {root.name}', unit='video')
    ]


def read_stills(root: Path, shorter_side: int) -> list[Footage]:
    """Read `root`/images and `root`/masks, each pair as a video of one frame with one object."""
    images = _images(root / 'images')
    stills = [
        _pair(path.stem, [path], root / 'masks', shorter_side)
        for path in tqdm(images, desc=f'reading {root.name}', unit='image')
    ]
    for still in stills:
        still.labels[0] = (still.labels[0] > 0).astype(np.uint8)
    return stills
