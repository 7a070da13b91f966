# SPDX-License-Identifier: MIT
"""Stores of a segmenter on the device, and their state outside it.

Letters: O objects, H×W the padded working size, h×w at stride 16, CS sensory channels.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from xmem_ros.memory.memory import Memory, MemoryState
from xmem_ros.tracker.geometry import FrameGeometry


@dataclass
class SegmenterState:
    """State of a segmenter in host memory; O in the order of the memory's rows."""

    geometry: FrameGeometry
    memory: MemoryState
    sensory: Tensor | None  # O×CS×h×w
    last_seen: Tensor  # O×h×w
    appearances: Tensor  # O×slots×(C+COLOURS)
    filled: Tensor  # O×slots bool
    seeds: list[int]  # seeds of each object so far

    def without(self, row: int) -> 'SegmenterState | None':
        """Return the state less one object; None if it was the only one."""
        kept = [i for i, other in enumerate(self.memory.cohorts) if other != row]
        if not kept:
            return None
        return SegmenterState(
            self.geometry,
            self.memory.without(row),
            None if self.sensory is None else self.sensory[kept],
            self.last_seen[kept],
            self.appearances[kept],
            self.filled[kept],
            [self.seeds[i] for i in kept],
        )


@dataclass
class Stores:
    """Tensors of one grid size: memory, sensory memory and where each object was last seen."""

    geometry: FrameGeometry  # of the newest frame; frames of the same grid size share the stores
    memory: Memory
    sensory: Tensor | None  # rows×CS×h×w, float32; None: the network has no sensory memory
    last_seen: Tensor  # rows×h×w, share of each position in the previous frame; 0: not visible

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        sensory = 0 if self.sensory is None else self.sensory.nbytes
        return self.memory.nbytes + sensory + self.last_seen.nbytes

    def reset_sensory(self, rows: list[int]) -> None:
        """Give objects the sensory memory of new ones."""
        if rows and self.sensory is not None:
            self.sensory[rows] = 0

    def import_state(self, state: SegmenterState) -> None:
        """Take over a state, scaled to this grid size; the stores must be empty."""
        rows = list(state.memory.cohorts)
        self.memory.import_state(state.memory)
        if not rows:
            return
        size, device = tuple(self.last_seen.shape[1:]), self.last_seen.device
        if self.sensory is not None and state.sensory is not None:
            sensory = state.sensory.to(device)
            if tuple(sensory.shape[2:]) != size:
                sensory = F.interpolate(sensory, size, mode='bilinear', align_corners=False)
            self.sensory[rows] = sensory
        self.last_seen[rows] = F.adaptive_max_pool2d(state.last_seen.to(device), size)
