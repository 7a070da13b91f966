# SPDX-License-Identifier: MIT
"""Data sets by name, with their published protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xmem_ros.errors import ParameterError
from xmem_ros.evaluation.datasets import davis, long_video, lvos, plain, youtube
from xmem_ros.evaluation.datasets.folders import check_names

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xmem_ros.evaluation.datasets.options import ReadOptions
    from xmem_ros.evaluation.datasets.sequence import Sequence


@dataclass(frozen=True)
class Dataset:
    """Definition of a data set.

    Attributes:
        title: name given by its authors.
        layout: content of its root, in words.
        read: reader of the sequences.
        splits: names of its parts, default first.
        server: splits whose ground truth is only on a server; their masks are zipped.
        masks_folder: folder in the output for the sequences; '': the output itself.
        unresized: whether the official weights track frames without scaling.
        memory_every: frames between memory frames.
        first_mask_seeds: whether only the first mask is a seed; if so, `late_objects` applies.
        sparse: whether it has a version with only the annotated frames.
    """

    title: str
    layout: str
    read: Callable[[Path, ReadOptions], list[Sequence]]
    splits: tuple[str, ...] = ('val',)
    server: tuple[str, ...] = ()
    masks_folder: str = ''
    unresized: bool = False
    memory_every: int = 5
    first_mask_seeds: bool = False
    sparse: bool = False


DATASETS: dict[str, Dataset] = {
    'davis2016': Dataset('DAVIS 2016', davis.LAYOUT_2016, davis.read_2016),
    'davis2017': Dataset(
        'DAVIS 2017', davis.LAYOUT_2017, davis.read_2017, splits=('val', 'test-dev'), server=('test-dev',)
    ),
    **{
        f'youtube{year}': Dataset(
            f'YouTube-VOS {year}',
            youtube.LAYOUT,
            youtube.read,
            splits=('val', 'test'),
            server=('val', 'test'),
            masks_folder='Annotations',
            sparse=True,
        )
        for year in (2018, 2019)
    },
    'mose': Dataset('MOSE', plain.MOSE_LAYOUT, plain.read_mose, server=('val',), first_mask_seeds=True),
    'longvideo1': Dataset('Long-time Video 1×', long_video.LAYOUT, long_video.read_1, unresized=True),
    'longvideo3': Dataset('Long-time Video 3×', long_video.LAYOUT, long_video.read_3, unresized=True, memory_every=10),
    'lvos': Dataset(
        'LVOS', lvos.LAYOUT, lvos.read, splits=('val', 'test'), server=('test',), masks_folder='Annotations'
    ),
    'generic': Dataset('generic', plain.GENERIC_LAYOUT, plain.read_generic, first_mask_seeds=True),
}


def read_dataset(name: str, root: Path, options: ReadOptions) -> list[Sequence]:
    """Read all sequences of a data set.

    Raises:
        XMemError: the root does not have the layout of the data set, or files are missing.
    """
    if name not in DATASETS:
        raise ParameterError(f'data set {name!r} is unknown; known: {", ".join(DATASETS)}')
    sequences = DATASETS[name].read(root, options)
    check_names((sequence.name for sequence in sequences), root)  # names may come from a file
    return sequences
