# SPDX-License-Identifier: MIT
"""What the readers of data sets share: folders of sequences, files by stem, and words for what is missing."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmem_ros.data_files import read_json
from xmem_ros.errors import ParameterError, SeedError
from xmem_ros.media import IMAGE_SUFFIXES, image_files

if TYPE_CHECKING:
    from collections.abc import Iterable

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
    """Names of the sequences in a text file, a line for each sequence or, as in DAVIS 2016, for each of its images.

    Raises:
        ParameterError: the file is not readable as text, has no line, or one that names no sequence.
    """
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(f'{path}: not readable as text ({error}); fetch the file again') from error
    names = set()
    for line in filter(None, map(str.strip, lines)):
        image = line.split()[0].split('/')  # …/SEQ/00000.jpg, and the mask's name after it
        names.add(image[-2] if len(image) > 1 and image[-1].lower().endswith(IMAGE_SUFFIXES) else line)
    if not names:
        raise ParameterError(f'{path}: lists no sequence')
    check_names(names, path)
    return sorted(names)


def check_names(names: Iterable[str], source: Path) -> None:
    """See that names of sequences are those of folders, as masks are written to, and removed from, folders so called.

    Raises:
        ParameterError: one is not, leads elsewhere or is hidden; the text names `source`, where they come from.
    """
    for name in names:
        if not name or name.startswith('.') or name != Path(name).name:
            raise ParameterError(
                f'{source}: {name!r} is no name of a sequence; it is that of one folder, without / and not hidden'
            )


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


def listed_videos(listing: Path, images: Path) -> dict[str, Any]:
    """What a `meta.json` says of each sequence, having seen that it lists those of the folder of images, and no others.

    Raises:
        ParameterError: it cannot be read, does not list a sequence, or one that it lists is not there.
    """
    try:
        told = read_json(listing, ParameterError)
    except (OSError, ParameterError) as error:
        raise ParameterError(f'{listing}: not readable as JSON ({error}); fetch the file again') from error
    videos = told.get('videos', {}) if isinstance(told, dict) else None
    if not isinstance(videos, dict):
        raise ParameterError(f'{listing}: not a list of videos by their names; fetch the file again')
    names = sequence_folders(images)
    for name in names:
        if name not in videos:
            raise ParameterError(f'{listing}: does not list the sequence {images / name}')
    absent = sorted(set(videos) - set(names))
    if absent:
        raise ParameterError(
            f'{images / absent[0]}: not there; {listing} lists it, and {len(absent)} of its {len(videos)} sequences '
            'are absent in all; a part of them would give other scores'
        )
    return {name: videos[name] for name in names}
