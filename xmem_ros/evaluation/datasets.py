# SPDX-License-Identifier: MIT
"""Data sets on disk: which frames, which masks seed, which are ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from xmem_ros.errors import FrameError, ParameterError, SeedError
from xmem_ros.media import VOID, image_files, objects_of, read_image, read_mask

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Sequence:
    """One sequence of a data set.

    Attributes:
        name: of the sequence.
        frames: images in the order of time, from the first that is tracked.
        masks: stem of a frame → its mask; every one but those that seed is ground truth.
        seeds: stems of the frames whose masks seed the objects, in the order of time.
        binary: masks are 0 and 255, and 255 is the one object (value 1 for us) instead of void.
    """

    name: str
    frames: tuple[Path, ...]
    masks: dict[str, Path]
    seeds: tuple[str, ...]
    binary: bool

    def frame(self, index: int) -> np.ndarray:
        """Frame H×W×3 uint8 RGB. FrameError where the file is damaged."""
        return read_image(self.frames[index])

    def values(self, stem: str) -> np.ndarray:
        """The mask of a frame, H×W uint8: 0 background, 255 void, other values are objects.

        Raises:
            SeedError: the file is damaged, or the mask of a binary sequence holds other values.
        """
        path = self.masks[stem]
        mask = read_mask(path)
        if not self.binary:
            return mask
        stray = sorted(set(np.unique(mask).tolist()) - {0, VOID})
        if stray:
            raise SeedError(
                f'{path}: value {stray[0]} in a sequence whose first mask holds only 0 and {VOID}; '
                f'use 0 and {VOID} throughout, or one value below {VOID} for each object'
            )
        return (mask == VOID).astype(np.uint8)

    def seed_objects(self, stem: str, frame: np.ndarray) -> dict[int, np.ndarray]:
        """Objects that the mask of a frame (H×W×3, given to compare sizes) shows: value → H×W bool.

        Raises:
            FrameError: frame and mask differ in size.
            SeedError: the mask is damaged or shows nothing.
        """
        mask = self.values(stem)
        check_size(self.masks[stem], mask, frame.shape[:2])
        objects = objects_of(mask)
        if not objects:
            raise SeedError(f'{self.masks[stem]}: the mask that seeds the sequence shows no object')
        return objects


def check_size(path: Path, mask: np.ndarray, size: tuple[int, ...], other: str = 'its frame') -> None:
    """FrameError, naming the mask's file, where a mask H×W has not the size (height, width) of the other."""
    if mask.shape != tuple(size):
        raise FrameError(
            f'{path}: the mask is {mask.shape[1]}×{mask.shape[0]} px, {other} {size[1]}×{size[0]}; they must be equal'
        )


def generic(root: Path) -> list[Sequence]:
    """Read `root/JPEGImages/SEQ/*` and `root/Annotations/SEQ/*.png`: the earliest mask seeds, the rest is ground truth.

    A mask belongs to the image of the same name but for the suffix. Frames before the earliest mask are left out. Masks
    may be sparse. Mask values: 0 background, 255 void, others objects; where the earliest mask holds only 0
    and 255, 255 is the one object.

    Raises:
        ParameterError: the folders are not there.
        SeedError: a sequence has no mask, too few to score, or masks without an image.
    """
    images, annotations = root / 'JPEGImages', root / 'Annotations'
    for folder in (images, annotations):
        if not folder.is_dir():
            raise ParameterError(
                f'{folder}: no such folder; a generic data set is a root with JPEGImages and Annotations'
            )
    names = sorted(folder.name for folder in images.iterdir() if folder.is_dir() and not folder.name.startswith('.'))
    if not names:
        raise ParameterError(f'{images}: no sequence; each is a folder of images')
    return [_generic_sequence(name, images / name, annotations / name) for name in names]


def _generic_sequence(name: str, image_folder: Path, mask_folder: Path) -> Sequence:
    frames = image_files(image_folder)
    if not frames:
        raise ParameterError(f'{image_folder}: no images in this sequence')
    masks = {file.stem: file for file in image_files(mask_folder)} if mask_folder.is_dir() else {}
    if not masks:
        raise SeedError(f'{mask_folder}: sequence {name} has no mask; its earliest frame needs one to be tracked from')
    stems = [frame.stem for frame in frames]
    for earlier, later in pairwise(frames):
        if earlier.stem == later.stem:
            raise ParameterError(f'{later}: {earlier.name} has the same name but for the suffix; keep one of them')
    strangers = sorted(set(masks) - set(stems))
    if strangers:
        raise SeedError(f'{masks[strangers[0]]}: no image in {image_folder} has the name of this mask')
    if len(masks) < 3:
        raise SeedError(
            f'{mask_folder}: {len(masks)} mask(s); scoring leaves out the first and the last, so it needs at least 3 '
            '(xmem-ros track follows objects without ground truth)'
        )
    first = min(masks)
    present = set(np.unique(read_mask(masks[first])).tolist())
    return Sequence(
        name=name,
        frames=tuple(frames[stems.index(first) :]),
        masks=masks,
        seeds=(first,),
        binary=present - {0} == {VOID},
    )


DATASETS: dict[str, Callable[[Path], list[Sequence]]] = {'generic': generic}
