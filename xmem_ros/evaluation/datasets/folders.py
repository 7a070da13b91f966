# SPDX-License-Identifier: MIT
"""Common parts of the readers: folders of sequences, files by stem, errors for missing files."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmem_ros.data_files import read_json, read_text
from xmem_ros.errors import ParameterError, SeedError
from xmem_ros.media import IMAGE_SUFFIXES, image_files, order_note
from xmem_ros.outside_text import say

if TYPE_CHECKING:
    from collections.abc import Iterable

# File or folder below the root → data sets with such a layout.
_LAYOUTS = (
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
    """Make the error for a root without a required file; it names the layout that was found."""
    if not root.is_dir():
        return ParameterError(f'{root}: no such folder; the root of {dataset} is a folder with {layout}')
    found = next((f'; it looks like {name}' for path, name in _LAYOUTS if (root / path).exists()), '')
    return ParameterError(f'{missing}: not found; the root of {dataset} is a folder with {layout}{found}')


def sequence_folders(folder: Path) -> list[str]:
    """Return the names of the sequences in a folder, in order; raises `ParameterError` if none."""
    names = sorted(item.name for item in folder.iterdir() if item.is_dir() and not item.name.startswith('.'))
    if not names:
        raise ParameterError(f'{folder}: no sequences; a sequence is a folder of images')
    return names


def listed_sequences(path: Path) -> list[str]:
    """Read the names of sequences from a text file.

    A line names a sequence or, as in DAVIS 2016, one of its images.

    Raises:
        ParameterError: the file is not readable as text, is empty, or has an invalid name.
    """
    try:
        lines = read_text(path, ParameterError).splitlines()
    except (OSError, ParameterError) as error:
        raise ParameterError(f'{path}: not readable as text ({error}); fetch the file again') from error
    names = set()
    for line in filter(None, map(str.strip, lines)):
        image = line.split()[0].split('/')  # …/SEQ/00000.jpg, followed by the mask
        names.add(image[-2] if len(image) > 1 and image[-1].lower().endswith(IMAGE_SUFFIXES) else line)
    if not names:
        raise ParameterError(f'{path}: lists no sequence; fetch the file again')
    check_names(names, path)
    return sorted(names)


def check_names(names: Iterable[str], source: Path) -> None:
    """Check names of sequences, since masks are written to and removed from folders of these names.

    Raises:
        ParameterError: a name is not a single, visible folder name; the text names `source`.
    """
    for name in names:
        if not name or name.startswith('.') or name != Path(name).name:
            raise ParameterError(
                f'{source}: {name!r} is not a sequence name; it must be the name of a folder, without / and '
                'without a leading dot'
            )


def frame_files(folder: Path) -> tuple[Path, ...]:
    """Return the images of a sequence, in natural order of names.

    Raises:
        ParameterError: there are none, or two differ only in the suffix.
    """
    frames = image_files(folder) if folder.is_dir() else []
    if not frames:
        raise ParameterError(f'{folder}: no images in this sequence; add them, or remove the folder')
    for earlier, later in pairwise(frames):
        if earlier.stem == later.stem:
            raise ParameterError(f'{later}: {earlier.name} differs only in the suffix; keep one of them')
    if note := order_note(frames):
        say(note)
    return tuple(frames)


def mask_files(folder: Path, frames: tuple[Path, ...]) -> dict[str, Path]:
    """Return the masks of a sequence: stem → file, in the order of its frames.

    Raises:
        SeedError: there are none, or one has no image.
    """
    masks = {file.stem: file for file in image_files(folder)} if folder.is_dir() else {}
    if not masks:
        raise SeedError(f'{folder}: no masks; add at least one for the first frame to track')
    unpaired = sorted(set(masks) - {frame.stem for frame in frames})
    if unpaired:
        raise SeedError(
            f'{masks[unpaired[0]]}: no image in {frames[0].parent} has the name of this mask; rename or remove it'
        )
    return {frame.stem: masks[frame.stem] for frame in frames if frame.stem in masks}


def from_frame(frames: tuple[Path, ...], stem: str) -> tuple[Path, ...]:
    """Return the frames from the one with this stem on."""
    return frames[[frame.stem for frame in frames].index(stem) :]


def listed_videos(listing: Path, images: Path) -> dict[str, Any]:
    """Read a `meta.json`: sequence → entry. The image folder must have the same sequences.

    Raises:
        ParameterError: the file cannot be read, or its sequences are not those of the folder.
    """
    try:
        content = read_json(listing, ParameterError)
    except (OSError, ParameterError) as error:
        raise ParameterError(f'{listing}: not readable as JSON ({error}); fetch the file again') from error
    videos = content.get('videos', {}) if isinstance(content, dict) else None
    if not isinstance(videos, dict):
        raise ParameterError(f'{listing}: its videos are not a mapping by name; fetch the file again')
    names = sequence_folders(images)
    for name in names:
        if name not in videos:
            raise ParameterError(f'{listing}: does not list the sequence {images / name}; fetch the data set again')
    absent = sorted(set(videos) - set(names))
    if absent:
        raise ParameterError(
            f'{images / absent[0]}: not found, but listed in {listing}; {len(absent)} of its {len(videos)} sequences '
            'are missing; add them, since scores of a part are not comparable'
        )
    return {name: videos[name] for name in names}
