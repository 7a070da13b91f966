# SPDX-License-Identifier: MIT
"""Long-time Video, 1× and 3×: sparse masks, frames without scaling."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from xmem_ros.evaluation.datasets.plain import read_folders

if TYPE_CHECKING:
    from pathlib import Path

    from xmem_ros.evaluation.datasets.options import ReadOptions
    from xmem_ros.evaluation.datasets.sequence import Sequence

LAYOUT = 'long_video/ and long_video_x3/ (or one of them itself): JPEGImages/SEQ, Annotations/SEQ'


def read_1(root: Path, options: ReadOptions) -> list[Sequence]:
    """Read the 1× videos. Raises `ParameterError`, `SeedError`."""
    return _read(root, 'long_video', options)


def read_3(root: Path, options: ReadOptions) -> list[Sequence]:
    """Read the 3× videos: forwards, backwards, forwards. Raises `ParameterError`, `SeedError`."""
    return _read(root, 'long_video_x3', options)


def _read(root: Path, part: str, options: ReadOptions) -> list[Sequence]:
    folder = root / part if (root / part).is_dir() else root
    sequences = read_folders(root, folder, 'Long-time Video', LAYOUT, options)
    if options.save_all:
        return sequences
    return [replace(sequence, written=tuple(sequence.truth)) if sequence.truth else sequence for sequence in sequences]
