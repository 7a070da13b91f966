# SPDX-License-Identifier: MIT
"""Tracking of a sequence in one pass, and the trackers for all passes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from xmem_ros.engines.deployment import deployed
from xmem_ros.errors import XMemError
from xmem_ros.evaluation.follow import follow
from xmem_ros.tracker import Tracker, pick_device
from xmem_ros.tracker.config import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xmem_ros.evaluation.datasets import Sequence
    from xmem_ros.evaluation.settings import Run, Settings
    from xmem_ros.network.model import XMemNetwork

WARM_UP = 3  # frames; the first ones of a process also load kernels


@dataclass(frozen=True)
class PassResult:
    """Result of a pass for one frame, at the size of the written masks."""

    name: str
    values: np.ndarray  # H×W uint8, the data set's values
    probabilities: np.ndarray | None  # C×H×W float32, background first
    planes: list[int]  # value of each plane of the probabilities
    seconds: float  # forward time
    step_seconds: float


def track_sequence(
    tracker: Tracker, sequence: Sequence, run: Run, ignore_void: bool = False, *, probabilities: bool = False
) -> Iterator[PassResult]:
    """Track a sequence; results of a mirrored pass are mirrored back.

    Raises:
        XMemError: a frame or mask cannot be used; the text names the sequence and the file.
    """
    stems = [path.stem for path in sequence.frames]

    def frames() -> Iterator[tuple[str, np.ndarray]]:
        for index, stem in enumerate(stems):
            frame = sequence.frame(index)
            yield stem, np.ascontiguousarray(frame[:, ::-1]) if run.flip else frame

    def seeds(index: int, frame: np.ndarray) -> dict[int, np.ndarray]:
        if stems[index] not in sequence.seeds:
            return {}
        masks = sequence.seed_objects(stems[index], frame.shape[:2], ignore_void=ignore_void)
        return {value: mask[:, ::-1] for value, mask in masks.items()} if run.flip else masks

    try:
        for followed in follow(
            tracker,
            frames(),
            seeds,
            length=len(stems),
            exact_seeds=False,  # as published
            probabilities=probabilities,
            output_size=sequence.output_size(),
        ):
            values, planes = followed.values, followed.result.probabilities
            if run.flip:
                values = np.ascontiguousarray(values[:, ::-1])
                planes = None if planes is None else planes[:, :, ::-1]
            yield PassResult(followed.name, values, planes, followed.planes, followed.seconds, followed.step_seconds)
    except XMemError as error:
        raise type(error)(f'sequence {sequence.name}: {error}') from error


class Trackers:
    """Trackers for the sequences, one at a time, because each allocates its own memory.

    Converts the weights of the network unless the precision is float32.
    """

    def __init__(self, network: XMemNetwork, settings: Settings, device: str) -> None:
        self.settings = settings
        self.device = pick_device(device)
        if self.device.type == 'cuda' and self.device.index is not None:
            torch.cuda.set_device(self.device)  # timer events belong to the current device
        # float32 uses the network unchanged, as in the comparison with the authors' code
        self.network = network if self.precision == 'float32' else deployed(network, PRECISIONS[self.precision])
        self._tracker: Tracker | None = None
        self._key: tuple[int, int] | None = None
        self._warm = False

    @property
    def precision(self) -> str:
        """Precision of the network; `auto` is float16 (AMP) on CUDA, as published, else float32."""
        if self.settings.precision != 'auto':
            return self.settings.precision
        return 'float16' if self.device.type == 'cuda' else 'float32'

    def tracker(self, run: Run, objects: int) -> Tracker:
        """Return the tracker for a pass over a sequence with this number of objects."""
        key = (run.size, objects)
        if self._tracker is None or self._key != key:
            self._tracker = None  # free its memory before the next tracker allocates
            config = replace(self.settings.tracker_config(run, objects), precision=self.precision)
            self._tracker = Tracker(self.network, config, self.device)
            self._key = key
        return self._tracker

    def warm(self, run: Run, objects: int, sequence: Sequence) -> Tracker:
        """Return the tracker, warmed up once on the first frames of the sequence."""
        tracker = self.tracker(run, objects)
        if not self._warm:
            frames = track_sequence(tracker, sequence, run, self.settings.ignore_void)
            for _ in zip(range(WARM_UP), frames, strict=False):
                pass
            self._warm = True
        return tracker
