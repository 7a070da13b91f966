# SPDX-License-Identifier: MIT
"""Limits of the memory; the defaults are the published ones."""

from dataclasses import dataclass, fields, replace

from xmem_ros.checks import check_choice, check_flag, check_whole
from xmem_ros.errors import ParameterError
from xmem_ros.memory.usage import POLICIES

MOST = 100_000_000  # of any number here: more than a memory of today holds


@dataclass(frozen=True)
class MemoryConfig:
    """Sizes of the stores. A frame has h·w positions at stride 16."""

    max_working_frames: int = 10  # the first frame among them; reaching it starts a consolidation
    min_working_frames: int = 5  # the first frame among them; what a consolidation leaves
    long_term: bool = True
    long_term_elements: int = 10_000
    prototypes: int = 128  # made by one consolidation
    top_k: int = 30
    anchors_per_object: int = 3  # its first seed and its latest corrections
    max_anchor_frames: int = 4  # whole frames' worth of positions for anchors
    usage: str = 'own'  # what counts as usage of a position; see `usage`
    quotas: bool = True  # whether each object, and the background, has its share of long-term memory
    guard: bool = True  # whether an object that is not visible is memorised as absent, whatever was guessed

    def __post_init__(self) -> None:
        check_choice('memory.usage', self.usage, POLICIES)
        for f in fields(self):
            if isinstance(f.default, bool):
                check_flag(f'memory.{f.name}', getattr(self, f.name))
            elif isinstance(f.default, int):
                check_whole(f'memory.{f.name}', getattr(self, f.name), 1, MOST)
        if self.anchors_per_object < 2:
            raise ParameterError(
                f'memory.anchors_per_object is {self.anchors_per_object}; it must be at least 2: '
                'the first seed and the latest correction'
            )
        if self.min_working_frames >= self.max_working_frames:
            raise ParameterError(
                f'memory.min_working_frames ({self.min_working_frames}) must be below '
                f'memory.max_working_frames ({self.max_working_frames})'
            )
        if self.long_term and self.prototypes > self.long_term_elements:
            raise ParameterError(
                f'memory.prototypes ({self.prototypes}) must not exceed '
                f'memory.long_term_elements ({self.long_term_elements})'
            )

    def published(self) -> 'MemoryConfig':
        """The same sizes with the policy of the paper."""
        return replace(self, usage='all', quotas=False, guard=False)

    @property
    def ring_frames(self) -> int:
        """Working frames beside the first."""
        return self.max_working_frames - 1

    def capacities(self, frame_positions: int) -> list[int]:
        """Positions of the three arenas for frames of `frame_positions`: anchors, working frames, long-term memory."""
        long_term = self.long_term_elements if self.long_term else 0
        return [self.max_anchor_frames * frame_positions, self.ring_frames * frame_positions, long_term]

    def capacity(self, frame_positions: int) -> int:
        """Positions of the whole store for frames of `frame_positions` positions."""
        return sum(self.capacities(frame_positions))
