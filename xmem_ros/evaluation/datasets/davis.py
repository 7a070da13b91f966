# SPDX-License-Identifier: MIT
"""DAVIS 2016 and 2017.

As published, frames and seeds for other sizes than 480 px are read at full resolution. Masks are
written at the size of the 480p frames and of the ground truth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xmem_ros.errors import ParameterError, SeedError
from xmem_ros.evaluation.datasets.folders import (
    frame_files,
    listed_sequences,
    mask_files,
    sequence_folders,
    wrong_root,
)
from xmem_ros.evaluation.datasets.plain import values_of
from xmem_ros.evaluation.datasets.sequence import Seed, Sequence
from xmem_ros.media import VOID, image_files

if TYPE_CHECKING:
    from pathlib import Path

    from xmem_ros.evaluation.datasets.options import ReadOptions

LAYOUT_2016 = (
    'JPEGImages/480p/SEQ, Annotations/480p/SEQ and ImageSets/480p/val.txt (or the list in '
    '../2017/trainval/ImageSets/2016/val.txt, or none: all sequences)'
)
LAYOUT_2017 = (
    'trainval/ and test-dev/ (or one of them itself): JPEGImages/480p/SEQ, Annotations/480p/SEQ, ImageSets/2017/'
)
LARGE = ('Full-Resolution', '1080p')  # as DAVIS 2017 and 2016 call it


@dataclass(frozen=True)
class _Resolution:
    """Folders of images and masks of one resolution."""

    images: Path
    masks: Path


def read_2016(root: Path, options: ReadOptions) -> list[Sequence]:
    """Read DAVIS 2016 val: one object a sequence. Raises `ParameterError`, `SeedError`."""
    small, large = _resolutions(root, root, 'DAVIS 2016', LAYOUT_2016, options.size)
    names = _names_2016(root, small.images)
    sequences = []
    for name in names:
        sequence = _sequence(name, small, large, whole=True)
        path = next(iter(sequence.seeds.values())).path
        values = values_of(path)
        if len(values - {VOID}) > 1:
            raise SeedError(
                f'{path}: shows {len(values - {VOID})} objects, but DAVIS 2016 has one; for DAVIS 2017 use the data '
                'set davis2017'
            )
        sequences.append(replace(sequence, binary=values == {VOID}))
    return sequences


def read_2017(root: Path, options: ReadOptions) -> list[Sequence]:
    """Read DAVIS 2017 val or test-dev. Raises `ParameterError`, `SeedError`."""
    part_name = 'trainval' if options.split == 'val' else 'test-dev'
    part = root / part_name if (root / part_name).is_dir() else root
    listing = part / 'ImageSets' / '2017' / f'{options.split}.txt'
    if not listing.is_file():
        raise wrong_root(root, listing, f'DAVIS 2017 {options.split}', LAYOUT_2017)
    small, large = _resolutions(root, part, 'DAVIS 2017', LAYOUT_2017, options.size)
    return [_sequence(name, small, large, whole=options.split == 'val') for name in listed_sequences(listing)]


def _names_2016(root: Path, images: Path) -> list[str]:
    for listing in (
        root / 'ImageSets' / '480p' / 'val.txt',
        root / 'ImageSets' / '2016' / 'val.txt',
        root.parent / '2017' / 'trainval' / 'ImageSets' / '2016' / 'val.txt',
    ):
        if listing.is_file():
            return listed_sequences(listing)
    return sequence_folders(images)


def _resolutions(root: Path, part: Path, dataset: str, layout: str, size: int) -> tuple[_Resolution, _Resolution]:
    """Return the folders of the 480p files, and of the files to track."""
    small = _Resolution(part / 'JPEGImages' / '480p', part / 'Annotations' / '480p')
    for folder in (small.images, small.masks):
        if not folder.is_dir():
            raise wrong_root(root, folder, dataset, layout)
    if size == 480:
        return small, small
    for name in LARGE:
        images, masks = part / 'JPEGImages' / name, part / 'Annotations' / name
        if images.is_dir() and masks.is_dir():
            return small, _Resolution(images, masks)
    if 0 < size < 480:  # the frames are scaled down from either resolution
        return small, small
    wanted = f'size {size}' if size else 'the full size'
    raise ParameterError(
        f'{part / "JPEGImages" / LARGE[0]}: not found; {wanted} requires frames and masks of full resolution in '
        f'JPEGImages/{LARGE[0]} and Annotations/{LARGE[0]}'
    )


def _sequence(name: str, small: _Resolution, large: _Resolution, *, whole: bool) -> Sequence:
    """Read a sequence; `whole`: whether it has a mask for every frame."""
    frames = frame_files(large.images / name)
    own_frames = frames if large == small else frame_files(small.images / name)
    masks = mask_files(small.masks / name, own_frames)
    stems = tuple(frame.stem for frame in own_frames)
    if stems != tuple(frame.stem for frame in frames):
        raise ParameterError(
            f'{large.images / name}: frames differ from those in {small.images / name}; both need the same file names'
        )
    first = stems[0]
    needed = stems if whole else stems[:1]
    for stem in needed:
        if stem not in masks:
            raise SeedError(
                f'{small.masks / name / stem}.png: no such mask, but DAVIS has one for this frame; fetch the data '
                'set again'
            )
    seed = masks[first]
    if large != small:
        found = {file.stem: file for file in image_files(large.masks / name)} if (large.masks / name).is_dir() else {}
        if first not in found:
            raise SeedError(
                f'{large.masks / name / first}.png: no such mask, but it is the seed at this size; fetch the data set '
                'again'
            )
        seed = found[first]
    return Sequence(
        name=name,
        frames=frames,
        seeds={first: Seed(seed)},
        written=stems,
        truth=masks if whole else {},
        scored=stems[1:-1] if whole else (),
        size_frame=own_frames[0] if large != small else None,
    )
