# SPDX-License-Identifier: MIT
"""Settings of an evaluation, and everything about them that can be wrong without looking at a file."""

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
LEAST_SIZE, MOST_SIZE = 16, 4096  # px
PUBLISHED_SIZE = 480  # px, of networks that the published sizes are for
Size = int | str  # px of the shorter side, `auto` or `full`


@dataclass(frozen=True)
class Run:
    """One pass over a data set; the probabilities of several are merged."""

    size: int  # px of the shorter side; 0: as the frames come
    flip: bool

    @property
    def name(self) -> str:
        """As in `480p` or `full_flip`."""
        return (f'{self.size}p' if self.size else FULL) + ('_flip' if self.flip else '')


@dataclass(frozen=True)
class Settings:
    """What to evaluate, and how.

    Attributes:
        dataset: a name in `DATASETS`.
        root: folder of the data set.
        weights: name or file, as for `Tracker.from_weights`.
        split: part of the data set.
        size: px of the shorter side that frames are tracked at; `full`: as they come; `auto`: as published for the data
            set, or what suits weights of another network.
        scales: sizes to track at, one after another, and to merge; empty: `size` alone.
        flip: track mirrored frames; with `scales`, both ways, and merge.
        memory: `published`, the policy of the paper, or `default`, that of the node.
        memory_every: frames between memory frames; None: as published for the data set.
        stores: sizes of the memory.
        precision: `float32`, `float16`, `bfloat16`, or `auto`: float16 (AMP) on CUDA, else float32.
        device: `auto`, `cpu`, `cuda`, `cuda:N`.
        save_all: write the mask of every frame, also where the data set asks for some.
        late_objects: seed each object by the first mask that shows it, where the first mask alone would seed.
        sparse: track only the annotated frames, where the data set has such a version.
        ignore_void: pixels of 255 beside other values neither seed nor count.
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
            raise ParameterError(f'data set {self.dataset!r} is not known; there is {", ".join(DATASETS)}')
        if self.split not in self.about.splits:
            raise ParameterError(
                f'{self.about.title} has no split {self.split!r}; there is {", ".join(self.about.splits)}'
            )
        for size in (self.size, *self.scales):
            check_size_option(size)
        if self.scales and self.size != AUTO:
            raise ParameterError('size and scales were both given; scales says all sizes to track at')
        if len(set(self.scales)) < len(self.scales):
            raise ParameterError(f'scales {", ".join(map(str, self.scales))}: one is given twice')
        if self.memory not in ('published', 'default'):
            raise ParameterError(f'memory is {self.memory!r}; it must be published or default')
        if self.precision != 'auto' and self.precision not in PRECISIONS:
            raise ParameterError(f'precision is {self.precision!r}; it must be auto, {", ".join(PRECISIONS)}')
        if self.memory_every is not None:
            check_whole('memory_every', self.memory_every, 1, MOST)
        if self.sparse and not self.about.sparse:
            raise ParameterError(f'{self.about.title} has no sparse version of its frames')
        if self.late_objects and not self.about.first_mask_seeds:
            raise ParameterError(
                f'{self.about.title} has a rule of its own for what seeds an object; late_objects is not it'
            )

    @property
    def about(self) -> Dataset:
        """The data set."""
        return DATASETS[self.dataset]

    @property
    def on_server(self) -> bool:
        """Whether only a server has the ground truth."""
        return self.split in self.about.server

    def runs(self, network: NetworkConfig) -> list[Run]:
        """The passes to make with such a network."""
        # `auto` may turn out to be a size that was given, too
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
        """Of the tracker that makes a pass over a sequence of so many objects."""
        return TrackerConfig(
            size=run.size,
            precision=self.precision,
            max_objects=objects,
            memory_every=self.memory_every or self.about.memory_every,
            memory=self.stores.published() if self.memory == 'published' else self.stores,
        )

    def record(self, network: NetworkConfig) -> dict[str, Any]:
        """What decides the masks, for the results and for telling one evaluation from another."""
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
    """Raise `ParameterError` for a size that cannot be used."""
    if size in (AUTO, FULL) or (isinstance(size, int) and LEAST_SIZE <= size <= MOST_SIZE):
        return
    raise ParameterError(
        f'size {size}; it is a number of pixels from {LEAST_SIZE} to {MOST_SIZE}, full (the frames as they come) or '
        'auto'
    )
