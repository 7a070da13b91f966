# SPDX-License-Identifier: MIT
"""LVOS: each object begins at a frame of its own, and is scored at every fifth frame from there to its end."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from xmem_ros.errors import ParameterError, SeedError
from xmem_ros.evaluation.datasets.folders import (
    frame_files,
    from_frame,
    mask_files,
    read_json,
    sequence_folders,
    wrong_root,
)
from xmem_ros.evaluation.datasets.sequence import Seed, Sequence
from xmem_ros.media import read_mask

if TYPE_CHECKING:
    from pathlib import Path

    from xmem_ros.evaluation.datasets.options import ReadOptions

LAYOUT = (
    'valid/ and test/ (or one of them itself): JPEGImages/SEQ, Annotations/SEQ, and meta.json (or valid_meta.json, '
    'test_meta.json beside them)'
)
EVERY = 5  # frames from one that is scored to the next
_FOLDERS = {'val': 'valid', 'test': 'test'}


def read(root: Path, options: ReadOptions) -> list[Sequence]:
    """Read LVOS. Where there is no list of objects, each begins at the first mask that shows it.

    Raises `ParameterError`, `SeedError`.
    """
    part_name = _FOLDERS[options.split]
    part = root / part_name if (root / part_name).is_dir() else root
    images, annotations = part / 'JPEGImages', part / 'Annotations'
    for folder in (images, annotations):
        if not folder.is_dir():
            raise wrong_root(root, folder, 'LVOS', LAYOUT)
    listings = (part / 'meta.json', part / f'{part_name}_meta.json', part.parent / f'{part_name}_meta.json')
    listing = next((path for path in listings if path.is_file()), None)
    videos = read_json(listing).get('videos', {}) if listing else {}
    sequences = []
    for name in sequence_folders(images):
        frames = frame_files(images / name)
        masks = mask_files(annotations / name, frames)
        if listing is None:
            ranges = _ranges_of(masks, frames)
        elif name in videos:
            ranges = _listed_ranges(listing, name, videos[name], masks, frames)
        else:
            raise ParameterError(f'{listing}: does not list the sequence {images / name}')
        sequences.append(_sequence(name, frames, masks, ranges, scored=options.split == 'val', options=options))
    return sequences


def _sequence(
    name: str,
    frames: tuple[Path, ...],
    masks: dict[str, Path],
    ranges: dict[int, range],
    *,
    scored: bool,
    options: ReadOptions,
) -> Sequence:
    """ranges: object → the frames' numbers, in `frames`, at which it is scored; the first is the one that seeds it."""
    stems = [frame.stem for frame in frames]
    begins = defaultdict(set)
    for value, numbers in ranges.items():
        begins[stems[numbers.start]].add(value)
    seeds = {stem: Seed(masks[stem], frozenset(begins[stem])) for stem in sorted(begins)}
    per_object = {value: tuple(stems[number] for number in numbers) for value, numbers in ranges.items()}
    wanted = {stem for some in per_object.values() for stem in some}
    missing = sorted(wanted - set(masks)) if scored else []
    if missing:
        raise SeedError(f'{masks[next(iter(masks))].parent / missing[0]}.png: no such mask; LVOS is scored on it')
    frames = from_frame(frames, next(iter(seeds)))
    return Sequence(
        name=name,
        frames=frames,
        seeds=seeds,
        written=tuple(f.stem for f in frames if options.save_all or not scored or f.stem in wanted),
        truth={stem: masks[stem] for stem in sorted(wanted)} if scored else {},
        scored=tuple(sorted(wanted)) if scored else (),
        scored_objects=per_object if scored else None,
    )


def _listed_ranges(
    listing: Path, name: str, video: dict[str, Any], masks: dict[str, Path], frames: tuple[Path, ...]
) -> dict[int, range]:
    """Object → frames that it is scored on, by the list; its frames go by the number in their name."""
    number_of = {int(frame.stem): index for index, frame in enumerate(frames) if frame.stem.isdigit()}
    ranges = {}
    try:
        for value, item in video['objects'].items():
            start, end = int(item['frame_range']['start']), int(item['frame_range']['end'])
            ranges[int(value)] = range(number_of[start], number_of.get(end, len(frames)), EVERY)
            if frames[number_of[start]].stem not in masks:
                raise SeedError(
                    f'{masks[next(iter(masks))].parent / frames[number_of[start]].stem}.png: no such mask; object '
                    f'{value} begins there'
                )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, SeedError):
            raise
        raise ParameterError(
            f'{listing}: sequence {name} lacks frame ranges of its objects, or they are not those of its frames '
            f'({error})'
        ) from error
    if not ranges:
        raise ParameterError(f'{listing}: sequence {name} has no objects')
    return ranges


def _ranges_of(masks: dict[str, Path], frames: tuple[Path, ...]) -> dict[int, range]:
    """Object → frames that it is scored on, where there is no list: from the first mask that shows it to the last."""
    number_of = {frame.stem: index for index, frame in enumerate(frames)}
    last = max(number_of[stem] for stem in masks)
    first: dict[int, int] = {}
    for stem, path in masks.items():
        for value in np.unique(read_mask(path)).tolist():
            if value:
                first.setdefault(value, number_of[stem])
    if not first:
        raise SeedError(f'{masks[next(iter(masks))].parent}: no mask of this sequence shows an object')
    return {value: range(number, last + 1, EVERY) for value, number in sorted(first.items())}
