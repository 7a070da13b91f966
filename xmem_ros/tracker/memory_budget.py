# SPDX-License-Identifier: MIT
"""Memory budget: bytes of the stores before the first frame, and the largest memory that fits."""

from dataclasses import replace

import torch

from xmem_ros.errors import FrameError
from xmem_ros.memory.config import MemoryConfig
from xmem_ros.memory.gallery import Gallery
from xmem_ros.memory.memory import Memory
from xmem_ros.network.config import NetworkConfig
from xmem_ros.tracker.config import TrackerConfig
from xmem_ros.tracker.geometry import FrameGeometry

MEGABYTE = 1_000_000


def bytes_for(
    geometry: FrameGeometry, memory: MemoryConfig, rows: int, network: NetworkConfig, dtype: torch.dtype
) -> int:
    """Return the bytes of all stores for frames of a geometry; dtype: of the values."""
    height, width = geometry.grid_size
    stores = Memory.bytes_for(memory, height * width, rows, network.key_dim, network.value_dim, dtype)
    planes = 4 * rows * (network.sensory_dim + 1) * height * width
    return stores + planes + Gallery.bytes_for(rows, network.feature_widths[0])


def fitted(
    geometry: FrameGeometry, config: TrackerConfig, memory: MemoryConfig, network: NetworkConfig, dtype: torch.dtype
) -> MemoryConfig:
    """Reduce long-term elements to the memory budget; raises `FrameError` if it is too small.

    memory: the configuration to reduce; dtype: of the values.
    """

    def needed(elements: int) -> int:
        return bytes_for(geometry, replace(memory, long_term_elements=elements), config.max_objects, network, dtype)

    budget = int(config.memory_budget_mb * MEGABYTE)
    if not budget or needed(memory.long_term_elements) <= budget:
        return memory
    low, high = memory.prototypes if memory.long_term else 1, memory.long_term_elements
    if not memory.long_term or needed(low) > budget:
        height, width = geometry.image_size
        raise FrameError(
            f'memory.budget_mb is {config.memory_budget_mb:g}, but frames of {width}×{height} px with '
            f'{config.max_objects} objects need {needed(low) / MEGABYTE:.1f} MB at least: raise it, or lower '
            'max_objects, size, memory.max_working_frames or memory.max_anchor_frames'
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needed(middle) <= budget else (low, middle)
    return replace(memory, long_term_elements=low)
