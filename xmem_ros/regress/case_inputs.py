# SPDX-License-Identifier: MIT
"""What every runner of a case shares: parameters, seeds, and the frames that come of them."""

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
class Seen:
    """One frame, and what was said of it."""

    index: int
    name: str
    stamp_ns: int
    image: Callable[[], np.ndarray]  # gives H×W×3 uint8 RGB, decoded when somebody looks
    labels: np.ndarray  # H×W uint8
    objects: list[TrackedObject]
    removed: frozenset[int] = frozenset()  # ids that the plan has taken away, and not begun again
    processing_ms: float | None = None
    age_ms: float | None = None


class Run(Protocol):
    """A recording that is being tracked."""

    length: int | None  # frames, as far as known

    def frames(self) -> Iterator[Seen]:
        """Track, frame by frame; raises `XMemError`."""

    def measured(self) -> Figures:
        """Figures that are not of single frames, once all are tracked."""

    def notes(self) -> list[str]:
        """What else a reader should know, such as seeds that could not be used."""

    def damage(self) -> str:
        """Why not all of the recording could be read, once all are tracked; empty where it could."""


def parameters_of(case: Case) -> Parameters:
    """The node's parameters as a case has them; raises `ParameterError`."""
    from xmem_ros.parameters.yaml_file import read_parameters

    return changed(read_parameters(case.params_file) if case.params_file else Parameters(), case.parameters)


def plan_of(case: Case, recording: Recording) -> list[PlannedSeeds]:
    """What is seeded where.

    Raises:
        SeedError, BagError: a seed that cannot be, or none at all.
    """
    from xmem_ros.recordings.recording import BagRecording
    from xmem_ros.recordings.seed_files import SUFFIXES, SeedReader, read_place
    from xmem_ros.recordings.seed_plan import recorded_seeds

    seeds = case.seeds
    if not seeds.file and not seeds.boxes:
        plan = recorded_seeds(recording, seeds.topic) if isinstance(recording, BagRecording) else []
        if not plan:
            raise SeedError(f'{recording.path}: has no recorded seeds; give the case seeds: mask, boxes or a YAML file')
        return plan
    reader = SeedReader()
    place = read_place(seeds.at)
    if seeds.file is not None and seeds.file.suffix in SUFFIXES:
        reader.add_file(seeds.file)
    elif seeds.file is not None:
        reader.add_masks(seeds.file, place)
    for name, box in seeds.boxes.items():
        reader.add_box(name, box, place)
    return reader.plan
