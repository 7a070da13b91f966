# SPDX-License-Identifier: MIT
"""Settings of an evaluation and their checks that need no files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmem_ros.checks import check_whole
from xmem_ros.errors import ParameterError
from xmem_ros.evaluation.datasets import DATASETS, Dataset
from xmem_ros.memory.config import MOST, MemoryConfig
from xmem_ros.tracker.config import PRECISIONS, TrackerConfig

if TYPE_CHECKING:
    from xmem_ros.network.config import NetworkConfig

AUTO, FULL = 'auto', 'full'
MIN_SIZE, MAX_SIZE = 16, 4096  # px
PUBLISHED_SIZE = 480  # px, shorter side of the networks with published sizes
Size = int | str  # shorter side in px, `auto` or `full`


@dataclass(frozen=True)
class Run:
    """One pass over a data set; several passes are merged."""

    size: int  # shorter side, px; 0: no scaling
    flip: bool

    @property
    def name(self) -> str:
        """Name of the pass, such as `480p` or `full_flip`."""
        return (f'{self.size}p' if self.size else FULL) + ('_flip' if self.flip else '')


@dataclass(frozen=True)
class Settings:
    """Data set, network and protocol of an evaluation.

    Attributes:
        dataset: a name in `DATASETS`.
        root: folder of the data set.
        weights: name or file, as for `Tracker.from_weights`.
        split: part of the data set.
        size: shorter side of the images in the network, px; `full`: no scaling; `auto`: the size
            published for the data set, or 240 px for networks such as `compact`.
        scales: sizes of several passes that are merged; empty: only `size`.
        flip: mirror the frames; with `scales`, track both ways.
        memory: policy, `published` (the paper's) or `default` (the node's).
        memory_every: frames between memory frames; None: as published for the data set.
        stores: sizes of the memory.
        precision: `float32`, `float16`, `bfloat16`, or `auto`: float16 (AMP) on CUDA, else float32.
        device: `auto`, `cpu`, `cuda`, `cuda:N`.
        save_all: write the mask of every frame, not only those that the data set requires.
        late_objects: seed each object by the first mask that shows it, not by the first mask only.
        sparse: track only the annotated frames, if the data set has that version.
        ignore_void: ignore pixels of 255 in masks with other values.
    """

    dataset: str
    root: Path
    weights: str = 'compact'
    split: str = 'val'
    size: Size = AUTO
    scales: tuple[Size, ...] = ()
    flip: bool = False
    memory: str = 'published'
    memory_every: int | None = None
    stores: MemoryConfig = field(default_factory=MemoryConfig)
    precision: str = 'auto'
    device: str = 'auto'
    save_all: bool = False
    late_objects: bool = False
    sparse: bool = False
    ignore_void: bool = False

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            raise ParameterError(f'data set {self.dataset!r} is unknown; known: {", ".join(DATASETS)}')
        if self.split not in self.about.splits:
            raise ParameterError(
                f'{self.about.title} has no split {self.split!r}; known: {", ".join(self.about.splits)}'
            )
        for size in (self.size, *self.scales):
            check_size_option(size)
        if self.scales and self.size != AUTO:
            raise ParameterError('size cannot be combined with scales; list all sizes in scales')
        if len(set(self.scales)) < len(self.scales):
            raise ParameterError(f'scales {", ".join(map(str, self.scales))}: a size is repeated; remove it')
        if self.memory not in ('published', 'default'):
            raise ParameterError(f'memory is {self.memory!r}; it must be published or default')
        if self.precision != 'auto' and self.precision not in PRECISIONS:
            raise ParameterError(f'precision is {self.precision!r}; it must be auto, {", ".join(PRECISIONS)}')
        if self.memory_every is not None:
            check_whole('memory_every', self.memory_every, 1, MOST)
        if self.sparse and not self.about.sparse:
            raise ParameterError(f'{self.about.title} has no sparse version of its frames; omit sparse')
        if self.late_objects and not self.about.first_mask_seeds:
            raise ParameterError(
                f'{self.about.title} defines the seeds of late objects itself; late_objects is only for '
                'generic and mose'
            )

    @property
    def about(self) -> Dataset:
        """Definition of the data set."""
        return DATASETS[self.dataset]

    @property
    def on_server(self) -> bool:
        """Whether only a server has the ground truth."""
        return self.split in self.about.server

    def runs(self, network: NetworkConfig) -> list[Run]:
        """Return the passes for a network."""
        # `auto` may equal another size of the list
        sizes = dict.fromkeys(self._pixels(size, network) for size in self.scales or (self.size,))
        flips = (False, True) if self.scales and self.flip else (self.flip,)
        return [Run(size, flip) for size in sizes for flip in flips]

    def _pixels(self, size: Size, network: NetworkConfig) -> int:
        if isinstance(size, int):
            return size
        if size == AUTO and not (self.about.unresized and network.shorter_side == PUBLISHED_SIZE):
            return network.shorter_side
        return 0

    def tracker_config(self, run: Run, objects: int) -> TrackerConfig:
        """Return the tracker's settings for a pass over a sequence with this number of objects."""
        return TrackerConfig(
            size=run.size,
            precision=self.precision,
            max_objects=objects,
            memory_every=self.memory_every or self.about.memory_every,
            memory=self.stores.published() if self.memory == 'published' else self.stores,
        )

    def record(self, network: NetworkConfig) -> dict[str, Any]:
        """Return all settings that affect the masks, to identify an evaluation."""
        sizes = list(dict.fromkeys(run.size or FULL for run in self.runs(network)))
        return {
            'dataset': self.dataset,
            'split': self.split,
            'weights': self.weights,
            'size': sizes if self.scales else sizes[0],
            'flip': self.flip,
            'memory': self.memory,
            'memory_every': self.memory_every or self.about.memory_every,
            'long_term': self.stores.long_term,
            'working_frames': [self.stores.min_working_frames, self.stores.max_working_frames],
            'long_term_elements': self.stores.long_term_elements,
            'prototypes': self.stores.prototypes,
            'top_k': self.stores.top_k,
            'save_all': self.save_all,
            'late_objects': self.late_objects,
            'sparse': self.sparse,
            'ignore_void': self.ignore_void,
        }


def check_size_option(size: Size) -> None:
    """Raise `ParameterError` for an invalid size."""
    if size in (AUTO, FULL) or (isinstance(size, int) and MIN_SIZE <= size <= MAX_SIZE):
        return
    raise ParameterError(
        f'size is {size!r}; it must be {MIN_SIZE} to {MAX_SIZE} (px of the shorter side), full (no scaling) or auto'
    )
