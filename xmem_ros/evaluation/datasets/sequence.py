# SPDX-License-Identifier: MIT
"""Sequence of a data set, and the reading of its files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from xmem_ros import pictures
from xmem_ros.errors import FrameError, SeedError
from xmem_ros.media import VOID, check_mask_bytes, read_image, read_mask

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Seed:
    """Mask that seeds objects; its other pixels do not change the objects already tracked."""

    path: Path
    objects: frozenset[int] | None = None  # values to seed; None: all in the mask


@dataclass(frozen=True)
class Sequence:
    """One sequence of a data set; frames and masks are paired by the stems of their files.

    Attributes:
        name: name of the sequence.
        frames: images in temporal order, from the first one to track.
        seeds: stem → mask that seeds objects on that frame, in temporal order.
        written: stems of the frames with a mask to write, in temporal order.
        truth: stem → ground truth, of the size of the written masks.
        scored: stems to score, in temporal order; each has ground truth.
        scored_objects: object → stems of its scored frames; None: `scored` for all objects.
        size_frame: an image of the size of the written masks; None: the frames' own size.
        binary: whether masks have only 0 and 255; other values (interpolated edges) are errors.
        new_only: whether each object is seeded once; a later seed of the same object is an error.
    """

    name: str
    frames: tuple[Path, ...]
    seeds: Mapping[str, Seed]
    written: tuple[str, ...]
    truth: Mapping[str, Path] = field(default_factory=dict)
    scored: tuple[str, ...] = ()
    scored_objects: Mapping[int, tuple[str, ...]] | None = None
    size_frame: Path | None = None
    binary: bool = False
    new_only: bool = False

    def frame(self, index: int) -> np.ndarray:
        """Read a frame, H×W×3 uint8 RGB; raises `FrameError` for a damaged file."""
        return read_image(self.frames[index], self.frames[0])

    def values(self, path: Path) -> np.ndarray:
        """Read one of the sequence's masks, H×W uint8: 0 background, other values objects.

        Raises:
            SeedError: the file is absent or damaged, or a binary mask has other values.
        """
        mask = read_mask(path)
        if self.binary:
            stray = sorted(set(np.unique(mask).tolist()) - {0, VOID})
            if stray:
                raise SeedError(
                    f'{path}: value {stray[0]} in a sequence whose first mask holds only 0 and {VOID}; '
                    f'use 0 and {VOID} throughout, or one value for each object'
                )
        return mask

    def seed_objects(self, stem: str, size: tuple[int, ...], *, ignore_void: bool = False) -> dict[int, np.ndarray]:
        """Read the seeds of a frame: value → H×W bool, in the order of values.

        Arguments:
            stem: stem of the frame; one of `seeds`.
            size: H, W of the frame, to check that the mask fits.
            ignore_void: whether 255 is void in masks with other values.

        Raises:
            FrameError: frame and mask differ in size.
            SeedError: the mask is damaged or empty.
        """
        seed = self.seeds[stem]
        mask = self.values(seed.path)
        check_size(seed.path, mask, size)
        nothing = {0, VOID} if ignore_void and not self.binary else {0}
        shown = {int(value) for value in np.unique(mask)} - nothing
        if seed.objects is not None:
            wanted = seed.objects - nothing
            absent = sorted(wanted - shown)
            if absent:
                raise SeedError(
                    f'{seed.path}: shows no object {absent[0]}, but the data set lists it from this frame on'
                )
            return self._split(seed.path, mask, wanted)
        if not shown:
            raise SeedError(f'{seed.path}: the mask that seeds the sequence shows no object; paint at least one')
        return self._split(seed.path, mask, shown)

    @staticmethod
    def _split(path: Path, mask: np.ndarray, values: set[int] | frozenset[int]) -> dict[int, np.ndarray]:
        try:
            check_mask_bytes(len(values) * mask.size)
        except SeedError as error:
            raise SeedError(f'{path}: {error}') from error
        return {value: mask == value for value in sorted(values)}

    def check_seeds(self, *, ignore_void: bool = False) -> dict[int, Path]:
        """Check every seed; returns object → mask that seeds it first.

        Raises:
            XMemError: a mask is absent, damaged, empty, of another size, or repeats an object.
        """
        path_of = {path.stem: path for path in self.frames}
        seen: dict[int, Path] = {}
        for stem, seed in self.seeds.items():
            objects = self.seed_objects(stem, image_size(path_of[stem]), ignore_void=ignore_void)
            if not objects and not seen:
                raise SeedError(
                    f'{seed.path}: the first mask of sequence {self.name} shows only {VOID}; it must show an object'
                )
            for value in objects:
                if self.new_only and value in seen:
                    raise SeedError(
                        f'{seed.path}: shows object {value} again, which began in {seen[value].name}; seeds must show '
                        'only new objects (a training set, with a mask for every frame, cannot be evaluated)'
                    )
                seen.setdefault(value, seed.path)
        return seen

    def output_size(self) -> tuple[int, int] | None:
        """Return H, W of the written masks; None: those of the frames."""
        return image_size(self.size_frame) if self.size_frame else None


def image_size(path: Path) -> tuple[int, int]:
    """Return H, W of an image, from its header if possible; raises `FrameError` if damaged."""
    try:
        with pictures.opened(path) as image:
            if not image.getexif().get(0x0112):  # without EXIF orientation
                return image.height, image.width
    except FileNotFoundError:
        raise FrameError(f'{path}: no such image') from None
    except (OSError, pictures.PictureError) as error:
        raise FrameError(f'{path}: not a readable image ({error}); replace or remove the file') from error
    height, width = read_image(path).shape[:2]
    return height, width


def check_size(path: Path, mask: np.ndarray, size: tuple[int, ...], other: str = 'its frame') -> None:
    """Raise `FrameError` unless a mask H×W has a size, (height, width)."""
    if mask.shape != tuple(size):
        raise FrameError(
            f'{path}: the mask is {mask.shape[1]}×{mask.shape[0]} px, {other} {size[1]}×{size[0]}; both must be equal'
        )
