# SPDX-License-Identifier: MIT
"""Inputs and frames of a case, common to all runners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from xmem_ros.errors import SeedError
from xmem_ros.parameters.table import Parameters, changed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

    from xmem_ros.objects import TrackedObject
    from xmem_ros.recordings.recording import Recording
    from xmem_ros.recordings.seed_plan import PlannedSeeds
    from xmem_ros.regress.figures import Figures
    from xmem_ros.regress.suite import Case


@dataclass(frozen=True)
class FrameResult:
    """Result of tracking one frame."""

    index: int
    name: str
    stamp_ns: int
    image: Callable[[], np.ndarray]  # → H×W×3 uint8 RGB, decoded on demand
    labels: np.ndarray  # H×W uint8
    objects: list[TrackedObject]
    removed: frozenset[int] = frozenset()  # ids that the seed plan has removed and not seeded again
    processing_ms: float | None = None
    age_ms: float | None = None


class Run(Protocol):
    """A case being tracked; figures, notes and damage are complete after the last frame."""

    length: int | None  # frames; None: unknown

    def frames(self) -> Iterator[FrameResult]:
        """Track, frame by frame; raises `XMemError`."""

    def figures(self) -> Figures:
        """Return the figures of the whole recording."""

    def notes(self) -> list[str]:
        """Return notes for the report, such as unusable seeds."""

    def damage(self) -> str:
        """Return why the recording could not be read completely; '' if it could."""


def parameters_of(case: Case) -> Parameters:
    """Return the node's parameters for a case; raises `ParameterError`."""
    from xmem_ros.parameters.yaml_file import read_parameters

    return changed(read_parameters(case.params_file) if case.params_file else Parameters(), case.parameters)


def plan_of(case: Case, recording: Recording) -> list[PlannedSeeds]:
    """Make the seed plan of a case.

    Raises:
        SeedError, BagError: a seed cannot be used, or there is none.
    """
    from xmem_ros.recordings.recording import BagRecording
    from xmem_ros.recordings.seed_files import SUFFIXES, SeedReader, parse_image_reference
    from xmem_ros.recordings.seed_plan import recorded_seeds

    seeds = case.seeds
    if not seeds.file and not seeds.boxes:
        plan = recorded_seeds(recording, seeds.topic) if isinstance(recording, BagRecording) else []
        if not plan:
            raise SeedError(f'{recording.path}: no recorded seeds; add seeds to the case: a mask, boxes or a YAML file')
        return plan
    reader = SeedReader()
    place = parse_image_reference(seeds.at)
    if seeds.file is not None and seeds.file.suffix in SUFFIXES:
        reader.add_file(seeds.file)
    elif seeds.file is not None:
        reader.add_masks(seeds.file, place)
    for name, box in seeds.boxes.items():
        reader.add_box(name, box, place)
    return reader.plan
