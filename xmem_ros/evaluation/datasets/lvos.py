# SPDX-License-Identifier: MIT
"""LVOS: each object is scored in its own range of frames, every fifth frame number."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING, Any

from xmem_ros.errors import ParameterError, SeedError
from xmem_ros.evaluation.datasets.folders import (
    frame_files,
    from_frame,
    listed_videos,
    mask_files,
    sequence_folders,
    wrong_root,
)
from xmem_ros.evaluation.datasets.plain import first_shown, values_of
from xmem_ros.evaluation.datasets.sequence import Seed, Sequence
from xmem_ros.media import natural_order

if TYPE_CHECKING:
    from pathlib import Path

    from xmem_ros.evaluation.datasets.options import ReadOptions

LAYOUT = (
    'valid/ and test/ (or one of them itself): JPEGImages/SEQ, Annotations/SEQ, and meta.json (or valid_meta.json, '
    'test_meta.json beside them; test/ may have none)'
)
EVERY = 5  # difference between the numbers of successive scored frames
_FOLDERS = {'val': 'valid', 'test': 'test'}


def read(root: Path, options: ReadOptions) -> list[Sequence]:
    """Read LVOS. Raises `ParameterError`, `SeedError`.

    In a test part without a listing, each object begins at the first mask that shows it.
    """
    part_name = _FOLDERS[options.split]
    part = root / part_name if (root / part_name).is_dir() else root
    images, annotations = part / 'JPEGImages', part / 'Annotations'
    for folder in (images, annotations):
        if not folder.is_dir():
            raise wrong_root(root, folder, 'LVOS', LAYOUT)
    listings = (part / 'meta.json', part / f'{part_name}_meta.json', part.parent / f'{part_name}_meta.json')
    listing = next((path for path in listings if path.is_file()), None)
    if listing is None and options.split == 'val':
        raise wrong_root(root, listings[0], 'LVOS', LAYOUT)
    videos = listed_videos(listing, images) if listing else dict.fromkeys(sequence_folders(images))
    sequences = []
    for name, video in videos.items():
        frames = frame_files(images / name)
        masks = mask_files(annotations / name, frames)
        if listing is None:
            sequences.append(_unlisted(name, frames, masks))
        else:
            ranges = _ranges(listing, name, video)
            sequences.append(_listed(listing, name, frames, masks, ranges, options))
    return sequences


def _unlisted(name: str, frames: tuple[Path, ...], masks: dict[str, Path]) -> Sequence:
    seeds = first_shown(masks, {stem: values_of(path) for stem, path in masks.items()})
    if not seeds:
        raise SeedError(f'{masks[next(iter(masks))].parent}: no mask of this sequence shows an object; add a seed')
    frames = from_frame(frames, next(iter(seeds)))
    return Sequence(name=name, frames=frames, seeds=seeds, written=tuple(frame.stem for frame in frames))


def _listed(
    listing: Path,
    name: str,
    frames: tuple[Path, ...],
    masks: dict[str, Path],
    ranges: dict[int, range],
    options: ReadOptions,
) -> Sequence:
    """Make a sequence; `ranges`: object → numbers of its scored frames; the first has its seed.

    Frame numbers are those in the file names, not indices; they may themselves increase by five.
    """
    scored = options.split == 'val'
    stem_of = {int(frame.stem): frame.stem for frame in frames if frame.stem.isdecimal()}
    for value, numbers in ranges.items():
        for number in chain([numbers.start], numbers if scored else ()):
            if number not in stem_of:
                raise ParameterError(
                    f'{listing}: sequence {name} has object {value} at frame {number}, but {frames[0].parent} has no '
                    'image of that number; fetch the data set again'
                )
            if stem_of[number] not in masks:
                raise SeedError(
                    f'{masks[next(iter(masks))].parent / stem_of[number]}.png: no such mask; object {value} begins or '
                    'is scored in this frame'
                )
    begins = defaultdict(set)
    for value, numbers in ranges.items():
        begins[stem_of[numbers.start]].add(value)
    seeds = {stem: Seed(masks[stem], frozenset(begins[stem])) for stem in sorted(begins, key=natural_order)}
    frames = from_frame(frames, next(iter(seeds)))
    if not scored:
        return Sequence(name=name, frames=frames, seeds=seeds, written=tuple(frame.stem for frame in frames))
    per_object = {value: tuple(stem_of[number] for number in numbers) for value, numbers in ranges.items()}
    wanted = {stem for stems in per_object.values() for stem in stems}
    return Sequence(
        name=name,
        frames=frames,
        seeds=seeds,
        written=tuple(frame.stem for frame in frames if options.save_all or frame.stem in wanted),
        truth={stem: masks[stem] for stem in sorted(wanted, key=natural_order)},
        scored=tuple(sorted(wanted, key=natural_order)),
        scored_objects=per_object,
    )


def _ranges(listing: Path, name: str, video: Any) -> dict[int, range]:
    """Return object → numbers of its scored frames, from the listing; the end is exclusive."""
    try:
        ranges = {
            int(value): range(int(item['frame_range']['start']), int(item['frame_range']['end']), EVERY)
            for value, item in video['objects'].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ParameterError(
            f'{listing}: sequence {name} lacks the frame ranges of its objects ({error}); fetch the file again'
        ) from error
    if not ranges:
        raise ParameterError(f'{listing}: sequence {name} has no objects; fetch the file again')
    return ranges
