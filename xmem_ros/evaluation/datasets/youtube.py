# SPDX-License-Identifier: MIT
"""YouTube-VOS 2018 and 2019.

Objects begin in different frames. The mask of such a frame shows only the new objects; its 0 does
not mean that others are absent. All frames are tracked, and the annotated ones are written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xmem_ros.errors import ParameterError
from xmem_ros.evaluation.datasets.folders import (
    frame_files,
    from_frame,
    listed_videos,
    mask_files,
    wrong_root,
)
from xmem_ros.evaluation.datasets.sequence import Seed, Sequence

if TYPE_CHECKING:
    from pathlib import Path

    from xmem_ros.evaluation.datasets.options import ReadOptions

LAYOUT = 'all_frames/valid_all_frames/JPEGImages/SEQ, valid/Annotations/SEQ and valid/meta.json'
_FOLDERS = {'val': 'valid', 'test': 'test'}


def read(root: Path, options: ReadOptions) -> list[Sequence]:
    """Read YouTube-VOS. Raises `ParameterError`, `SeedError`."""
    part = _FOLDERS[options.split]
    images = root / 'all_frames' / f'{part}_all_frames' / 'JPEGImages'
    if options.sparse:
        images = root / part / 'JPEGImages'
    annotations, listing = root / part / 'Annotations', root / part / 'meta.json'
    for needed in (images, annotations, listing):
        if not needed.exists():
            raise wrong_root(root, needed, 'YouTube-VOS', LAYOUT)
    sequences = []
    for name, video in listed_videos(listing, images).items():
        try:
            wanted = {str(stem) for item in video['objects'].values() for stem in item['frames']}
        except (KeyError, TypeError, AttributeError) as error:
            raise ParameterError(
                f'{listing}: sequence {name} lacks the frames of its objects ({error}); fetch the file again'
            ) from error
        frames = frame_files(images / name)
        absent = sorted(wanted - {frame.stem for frame in frames})
        if absent:
            raise ParameterError(
                f'{images / name / absent[0]}.jpg: no such image, but {listing} requires its mask; fetch it again'
            )
        sequences.append(_sequence(name, frames, annotations / name, wanted, options.save_all))
    return sequences


def _sequence(name: str, frames: tuple[Path, ...], mask_folder: Path, wanted: set[str], save_all: bool) -> Sequence:
    masks = mask_files(mask_folder, frames)
    frames = from_frame(frames, next(iter(masks)))
    stems = [frame.stem for frame in frames]
    return Sequence(
        name=name,
        frames=frames,
        seeds={stem: Seed(path) for stem, path in masks.items()},
        written=tuple(stem for stem in stems if save_all or stem in wanted),
        new_only=True,
    )
