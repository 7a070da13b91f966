# SPDX-License-Identifier: MIT
"""Filling of memory before a benchmark, without tracking thousands of frames.

`young`: as after the first frame. `working`: working memory one frame below the size at which it is
consolidated. `evicting`: that, and long-term memory full too: the next memory frame consolidates
and evicts, as one in five does in a long run. What is added are the first frame's own positions
with a little noise on keys and values, the same for every tracker that takes part, with usages
drawn at random, so that eviction has something to choose from.
"""

from dataclasses import dataclass

import torch

from xmem_ros.memory.store import Positions
from xmem_ros.tracker import Tracker

FULLNESS = ('young', 'working', 'evicting')
NOISE = 0.05  # relative to the standard deviation of keys and values


@dataclass
class Filling:
    """Frames and prototypes to add to a young memory."""

    working: list[Positions]
    long_term: Positions | None


def _noisy(held: Positions, generator: torch.Generator) -> Positions:
    def noisy(tensor: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(tensor.shape, generator=generator)
        return (tensor.float().cpu() + NOISE * tensor.float().std().cpu() * noise).to(tensor.device, tensor.dtype)

    key, values = noisy(held.key), noisy(held.values)
    new = Positions.fresh(key, held.shrinkage, held.selection, values, held.owner)
    use = torch.rand(len(held), generator=generator).to(new.use.device)
    new.use, new.life = use, torch.ones_like(use)
    return new


@torch.inference_mode()
def make_filling(tracker: Tracker, fullness: str, seed: int = 0) -> Filling:
    """Make a filling from a tracker that has seen its first frame."""
    memory = tracker._segmenter.memory
    assert memory is not None
    generator = torch.Generator().manual_seed(seed)
    first = memory.store.take(memory.anchors.arena.used, memory.rows)
    if fullness == 'young':
        return Filling([], None)
    frames = memory.config.max_working_frames - 2  # with the first frame, below the maximum
    working = [_noisy(first, generator) for _ in range(frames)]
    if fullness == 'working':
        return Filling(working, None)
    room = memory.config.long_term_elements
    pieces = torch.randint(len(first), (room,), generator=generator).to(first.key.device)
    return Filling(working, _noisy(first.select(pieces), generator))


@torch.inference_mode()
def fill(tracker: Tracker, filling: Filling) -> None:
    """Add a filling to a tracker that has seen the same first frame."""
    memory = tracker._segmenter.memory
    assert memory is not None
    for frame in filling.working:
        memory.add(frame)
    if filling.long_term is not None:
        memory.store.append(memory.long_term, filling.long_term, memory.rows)
