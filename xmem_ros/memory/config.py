# SPDX-License-Identifier: MIT
"""Configuration of the memory: sizes and policy."""

from dataclasses import dataclass, fields, replace

from xmem_ros.checks import check_choice, check_flag, check_whole
from xmem_ros.errors import ParameterError

POLICIES = ('own', 'all')  # of usage; see `usage`
MOST = 100_000_000  # upper limit of every number; no device holds as many positions


@dataclass(frozen=True)
class MemoryConfig:
    """Sizes and policy of the memory; sizes default to the published ones.

    A frame has h·w positions at stride 16.
    """

    max_working_frames: int = 10  # a consolidation starts at this number; includes the first frame
    min_working_frames: int = 5  # a consolidation leaves this number; includes the first frame
    long_term: bool = True
    long_term_elements: int = 10_000
    prototypes: int = 128  # made by one consolidation
    top_k: int = 30  # positions that each query reads
    anchors_per_object: int = 3  # its first seed and its latest corrections
    max_anchor_frames: int = 4  # room for anchors, in whole frames
    usage: str = 'own'  # which queries count as usage: own or all; see `usage`
    quotas: bool = True  # whether objects and background have fixed shares of long-term memory
    guard: bool = True  # whether an object that is not visible is memorised as absent

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
        """Return the same sizes with the policy of the paper."""
        return replace(self, usage='all', quotas=False, guard=False)

    @property
    def ring_frames(self) -> int:
        """Maximum number of working frames, without the first frame."""
        return self.max_working_frames - 1

    def capacities(self, frame_positions: int) -> list[int]:
        """Return the capacities in positions of the arenas: anchors, working frames, long-term."""
        long_term = self.long_term_elements if self.long_term else 0
        return [self.max_anchor_frames * frame_positions, self.ring_frames * frame_positions, long_term]

    def capacity(self, frame_positions: int) -> int:
        """Return the capacity in positions of the whole store."""
        return sum(self.capacities(frame_positions))
