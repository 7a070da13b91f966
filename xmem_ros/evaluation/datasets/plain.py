# SPDX-License-Identifier: MIT
"""Layouts of two folders, JPEGImages/SEQ and Annotations/SEQ: your own videos, and MOSE.

The first mask is the seed; further masks are ground truth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xmem_ros.errors import SeedError
from xmem_ros.evaluation.datasets.folders import frame_files, from_frame, mask_files, sequence_folders, wrong_root
from xmem_ros.evaluation.datasets.sequence import Seed, Sequence
from xmem_ros.media import VOID, read_mask

if TYPE_CHECKING:
    from pathlib import Path

    from xmem_ros.evaluation.datasets.options import ReadOptions

GENERIC_LAYOUT = 'JPEGImages/SEQ/*.jpg and Annotations/SEQ/*.png'
MOSE_LAYOUT = 'valid/JPEGImages/SEQ and valid/Annotations/SEQ, or these two themselves'


def read_generic(root: Path, options: ReadOptions) -> list[Sequence]:
    """Read `root/JPEGImages/SEQ/*` and `root/Annotations/SEQ/*.png`.

    Masks and images are paired by stem. Frames before the first mask are omitted. Masks may be
    sparse; a sequence with fewer than three masks is not scored.

    Raises:
        ParameterError: the folders are absent.
        SeedError: a sequence has no mask, or a mask without an image.
    """
    return read_folders(root, root, 'a generic data set', GENERIC_LAYOUT, options)


def read_mose(root: Path, options: ReadOptions) -> list[Sequence]:
    """Read MOSE: as published, only the first mask is a seed. Raises as `read_generic`."""
    part = next((root / name for name in ('valid', 'val') if (root / name / 'JPEGImages').is_dir()), root)
    return read_folders(root, part, 'MOSE', MOSE_LAYOUT, options)


def read_folders(root: Path, part: Path, dataset: str, layout: str, options: ReadOptions) -> list[Sequence]:
    """Read `part/JPEGImages/SEQ` and `part/Annotations/SEQ`.

    With `late_objects` each object is seeded by the first mask that shows it, and a sequence begins
    at the first of these masks. Otherwise only the first mask is a seed.
    """
    images, annotations = part / 'JPEGImages', part / 'Annotations'
    for folder in (images, annotations):
        if not folder.is_dir():
            raise wrong_root(root, folder, dataset, layout)
    late, void = options.late_objects, options.ignore_void
    return [_sequence(name, images / name, annotations / name, late, void) for name in sequence_folders(images)]


def _sequence(name: str, image_folder: Path, mask_folder: Path, late_objects: bool, ignore_void: bool) -> Sequence:
    if any(item.is_dir() and not item.name.startswith('.') for item in image_folder.iterdir()):
        raise SeedError(
            f'{image_folder}: holds folders instead of the images of one sequence; check the layout of the data set'
        )
    frames = frame_files(image_folder)
    masks = mask_files(mask_folder, frames)
    first = next(iter(masks))
    binary = values_of(masks[first]) == {VOID}
    seeds = {first: Seed(masks[first])}
    if late_objects:
        shown = {stem: values_of(path) for stem, path in masks.items()}
        binary = next((values for values in shown.values() if values), set()) == {VOID}
        if ignore_void and set().union(*shown.values()) != {VOID}:
            binary, shown = False, {stem: values - {VOID} for stem, values in shown.items()}
        seeds = first_shown(masks, shown)
        if not seeds:
            raise SeedError(f'{mask_folder}: no mask of this sequence shows an object; add a seed')
        first = next(iter(seeds))
        masks = dict(list(masks.items())[list(masks).index(first) :])
    frames = from_frame(frames, first)
    return Sequence(
        name=name,
        frames=frames,
        seeds=seeds,
        written=tuple(frame.stem for frame in frames),
        truth=masks if len(masks) > 2 else {},
        scored=tuple(masks)[1:-1],
        binary=binary,
    )


def values_of(mask: Path) -> set[int]:
    """Return the values in a mask, except for 0, the background."""
    return set(np.unique(read_mask(mask)).tolist()) - {0}


def first_shown(masks: dict[str, Path], shown: dict[str, set[int]]) -> dict[str, Seed]:
    """Return stem → seed of objects that no earlier mask shows; `shown`: values of each mask."""
    seeds: dict[str, Seed] = {}
    seen: set[int] = set()
    for stem, path in masks.items():
        new = shown[stem] - seen
        if new:
            seeds[stem] = Seed(path, frozenset(new))
            seen |= new
    return seeds
