# SPDX-License-Identifier: MIT
"""How the frames of a case are tracked: offline in this process, or live through a node."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from xmem_ros.errors import ParameterError, SeedError
from xmem_ros.parameters.table import Parameters, changed
from xmem_ros.regress.suite_schema import LIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

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


def open_run(case: Case) -> AbstractContextManager[Run]:
    """Make ready to track a case; raises `XMemError`."""
    if case.runner == LIVE:
        _check_ros()
        from xmem_ros.regress.live import live_run

        return live_run(case)
    from xmem_ros.regress.offline import offline_run

    return offline_run(case)


def _check_ros() -> None:
    """Raise `ParameterError` where a node cannot be talked to."""
    for module, remedy in (
        ('rclpy', 'source the setup.bash of a ROS 2 and of the workspace with xmem_ros'),
        ('xmem_ros.msg', 'build the package (colcon build, or make build) and source its setup.bash'),
    ):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ParameterError(f'runner: live needs {module}, which is not installed here: {remedy}') from error


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
