# SPDX-License-Identifier: MIT
"""What the readers of data sets share: folders of sequences, files by stem, and words for what is missing."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from xmem_ros.errors import ParameterError, SeedError
from xmem_ros.media import image_files

if TYPE_CHECKING:
    from pathlib import Path

# What tells a layout: a file or folder below the root.
_MARKS = (
    ('JPEGImages/480p', 'DAVIS'),
    ('trainval/JPEGImages/480p', 'DAVIS 2017'),
    ('test-dev/JPEGImages/480p', 'DAVIS 2017'),
    ('all_frames/valid_all_frames', 'YouTube-VOS'),
    ('valid/meta.json', 'YouTube-VOS or LVOS'),
    ('long_video', 'Long-time Video'),
    ('long_video_x3', 'Long-time Video'),
    ('JPEGImages', 'generic, MOSE or one part of Long-time Video'),
)


def wrong_root(root: Path, missing: Path, dataset: str, layout: str) -> ParameterError:
    """The error for a root that lacks what the data set has, with what it looks like instead."""
    if not root.is_dir():
        return ParameterError(f'{root}: no such folder; the root of {dataset} is a folder with {layout}')
    looks = next((f'; it looks like {name}' for mark, name in _MARKS if (root / mark).exists()), '')
    return ParameterError(f'{missing}: not there; the root of {dataset} is a folder with {layout}{looks}')


def sequence_folders(folder: Path) -> list[str]:
    """Names of the sequences in a folder, in order; raises `ParameterError` where there is none."""
    names = sorted(item.name for item in folder.iterdir() if item.is_dir() and not item.name.startswith('.'))
    if not names:
        raise ParameterError(f'{folder}: no sequence; each is a folder of images')
    return names


def listed_sequences(path: Path) -> list[str]:
    """Names of the sequences in a text file, one a line; raises `ParameterError` where there is none."""
    names = sorted({line.strip() for line in path.read_text().splitlines()} - {''})
    if not names:
        raise ParameterError(f'{path}: lists no sequence')
    return names


def frame_files(folder: Path) -> tuple[Path, ...]:
    """Images of a sequence, in the order of their names.

    Raises:
        ParameterError: there are none, or two of one name but for the suffix.
    """
    frames = image_files(folder) if folder.is_dir() else []
    if not frames:
        raise ParameterError(f'{folder}: no images in this sequence')
    for earlier, later in pairwise(frames):
        if earlier.stem == later.stem:
            raise ParameterError(f'{later}: {earlier.name} has the same name but for the suffix; keep one of them')
    return tuple(frames)


def mask_files(folder: Path, frames: tuple[Path, ...]) -> dict[str, Path]:
    """Masks of a sequence: stem → file, in the order of names.

    Raises:
        SeedError: there are none, or one without an image.
    """
    masks = {file.stem: file for file in image_files(folder)} if folder.is_dir() else {}
    if not masks:
        raise SeedError(f'{folder}: no masks; the earliest frame of a sequence needs one to be tracked from')
    strangers = sorted(set(masks) - {frame.stem for frame in frames})
    if strangers:
        raise SeedError(f'{masks[strangers[0]]}: no image in {frames[0].parent} has the name of this mask')
    return dict(sorted(masks.items()))


def from_frame(frames: tuple[Path, ...], stem: str) -> tuple[Path, ...]:
    """The frames from the one of that stem on."""
    return frames[[frame.stem for frame in frames].index(stem) :]


def read_json(path: Path) -> Any:
    """What a JSON file holds; raises `ParameterError` where it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ParameterError(f'{path}: not readable as JSON ({error}); fetch the file again') from error
