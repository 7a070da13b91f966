# SPDX-License-Identifier: MIT
"""Layouts of two folders, JPEGImages/SEQ and Annotations/SEQ: people's own footage, and MOSE.

The earliest mask seeds; the others, where there are any, are ground truth.
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

    A mask belongs to the image of the same name but for the suffix. Frames before the earliest mask are left out. Masks
    may be sparse; with fewer than three there is no ground truth to score with.

    Raises:
        ParameterError: the folders are not there.
        SeedError: a sequence has no mask, or masks without an image.
    """
    return read_folders(root, root, 'a generic data set', GENERIC_LAYOUT, late_objects=options.late_objects)


def read_mose(root: Path, options: ReadOptions) -> list[Sequence]:
    """Read MOSE: as published, the first frame's mask alone seeds. Raises as `read_generic`."""
    part = next((root / name for name in ('valid', 'val') if (root / name / 'JPEGImages').is_dir()), root)
    return read_folders(root, part, 'MOSE', MOSE_LAYOUT, late_objects=options.late_objects)


def read_folders(root: Path, part: Path, dataset: str, layout: str, *, late_objects: bool = False) -> list[Sequence]:
    """Read `part/JPEGImages/SEQ` and `part/Annotations/SEQ`.

    late_objects: each object is seeded by the first mask that shows it, instead of by the first mask or not at all.
    """
    images, annotations = part / 'JPEGImages', part / 'Annotations'
    for folder in (images, annotations):
        if not folder.is_dir():
            raise wrong_root(root, folder, dataset, layout)
    return [_sequence(name, images / name, annotations / name, late_objects) for name in sequence_folders(images)]


def _sequence(name: str, image_folder: Path, mask_folder: Path, late_objects: bool) -> Sequence:
    if any(item.is_dir() and not item.name.startswith('.') for item in image_folder.iterdir()):
        raise SeedError(
            f'{image_folder}: holds folders where the images of one sequence belong; is this another layout?'
        )
    frames = frame_files(image_folder)
    masks = mask_files(mask_folder, frames)
    first = next(iter(masks))
    frames = from_frame(frames, first)
    stems = tuple(masks)
    present = set(np.unique(read_mask(masks[first])).tolist())
    return Sequence(
        name=name,
        frames=frames,
        seeds=_first_shown(masks) if late_objects else {first: Seed(masks[first])},
        written=tuple(frame.stem for frame in frames),
        truth=masks if len(masks) > 2 else {},
        scored=stems[1:-1],
        binary=present - {0} == {VOID},
    )


def _first_shown(masks: dict[str, Path]) -> dict[str, Seed]:
    """Stem → the seed of the objects that no earlier mask shows."""
    seeds, seen = {}, {0}
    for stem, path in masks.items():
        new = frozenset(np.unique(read_mask(path)).tolist()) - seen
        if new:
            seeds[stem] = Seed(path, new)
            seen |= new
    return seeds
