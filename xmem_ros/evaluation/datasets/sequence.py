# SPDX-License-Identifier: MIT
"""One sequence of a data set, and how its files are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from xmem_ros import pictures
from xmem_ros.errors import FrameError, SeedError
from xmem_ros.media import VOID, read_image, read_mask

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Seed:
    """A mask that seeds objects. Pixels of other values, and of 0, say nothing about the objects tracked already."""

    path: Path
    objects: frozenset[int] | None = None  # the values that begin here; None: all that it shows


@dataclass(frozen=True)
class Sequence:
    """One sequence of a data set. Frames and masks go by their files' stems.

    Attributes:
        name: of the sequence.
        frames: images in the order of time, from the first that is tracked.
        seeds: stem → the mask that seeds objects on that frame, in the order of time.
        written: stems of the frames whose masks are written, in the order of time.
        truth: stem → ground truth, of the size of the masks that are written.
        scored: stems that are scored, in the order of time; of a frame without ground truth none.
        scored_objects: object → the stems at which it is scored, where that is not the same for all.
        size_frame: an image of the size of the masks that are written; None: the frames' own size.
        binary: masks hold only 0 and 255. Another value in one is a mistake, an interpolated edge, say.
        new_only: each object is seeded once; a later seed that shows it again is a mistake.
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
        """Frame H×W×3 uint8 RGB. FrameError where the file is damaged."""
        return read_image(self.frames[index])

    def values(self, path: Path) -> np.ndarray:
        """One of the sequence's masks, H×W uint8: 0 background, other values are objects.

        Raises:
            SeedError: the file is absent or damaged, or the mask of a binary sequence holds other values.
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
        """Objects that begin on a frame: value → H×W bool, in order of value.

        Arguments:
            stem: of the frame; one of `seeds`.
            size: H, W of the frame, to compare.
            ignore_void: whether 255 is void, where there are other values.

        Raises:
            FrameError: frame and mask differ in size.
            SeedError: the mask is damaged or shows nothing.
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
                raise SeedError(f'{seed.path}: shows no object {absent[0]}, which is said to begin here')
            return {value: mask == value for value in sorted(wanted)}
        if not shown:
            raise SeedError(f'{seed.path}: the mask that seeds the sequence shows no object')
        return {value: mask == value for value in sorted(shown)}

    def check_seeds(self, *, ignore_void: bool = False) -> dict[int, Path]:
        """Look at every mask that seeds; returns the objects, each with the mask at which it begins.

        Raises:
            XMemError: a mask is absent, damaged, empty, not of its frame's size, or shows an object once more.
        """
        path_of = {path.stem: path for path in self.frames}
        seen: dict[int, Path] = {}
        for stem, seed in self.seeds.items():
            objects = self.seed_objects(stem, image_size(path_of[stem]), ignore_void=ignore_void)
            if not objects and not seen:
                raise SeedError(f'{seed.path}: sequence {self.name} begins with this mask, and it shows only {VOID}')
            for value in objects:
                if self.new_only and value in seen:
                    raise SeedError(
                        f'{seed.path}: shows object {value} again, which began in {seen[value].name}; a mask that '
                        'seeds shows new objects only (is this a training set, with a mask for every frame?)'
                    )
                seen.setdefault(value, seed.path)
        return seen

    def output_size(self) -> tuple[int, int] | None:
        """H, W of the masks that are written, where that is not the frames' size."""
        return image_size(self.size_frame) if self.size_frame else None


def image_size(path: Path) -> tuple[int, int]:
    """H, W of an image, by its header where that says it as it is shown; FrameError where the file is damaged."""
    try:
        with pictures.opened(path) as image:
            if not image.getexif().get(0x0112):  # turned by its orientation
                return image.height, image.width
    except FileNotFoundError:
        raise FrameError(f'{path}: no such image') from None
    except (OSError, pictures.PictureError) as error:
        raise FrameError(f'{path}: not a readable image ({error}); replace or remove the file') from error
    height, width = read_image(path).shape[:2]
    return height, width


def check_size(path: Path, mask: np.ndarray, size: tuple[int, ...], other: str = 'its frame') -> None:
    """FrameError, naming the mask's file, where a mask H×W has not the size (height, width) of the other."""
    if mask.shape != tuple(size):
        raise FrameError(
            f'{path}: the mask is {mask.shape[1]}×{mask.shape[0]} px, {other} {size[1]}×{size[0]}; they must be equal'
        )
