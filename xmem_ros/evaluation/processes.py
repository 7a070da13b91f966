# SPDX-License-Identifier: MIT
"""Processes of torchrun that share the sequences of an evaluation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    Item = TypeVar('Item')

MAX_WAIT = timedelta(days=7)  # for slower processes at the end


@dataclass(frozen=True)
class Processes:
    """Rank of this process, and the number of processes."""

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls) -> Processes:
        """Join the process group of torchrun, if there is one."""
        count = cls.started()
        if count == 1:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group('gloo', timeout=MAX_WAIT)  # only small dictionaries are exchanged
        return cls(dist.get_rank(), count)

    @staticmethod
    def started() -> int:
        """Return the number of processes of torchrun; 1 without it."""
        return int(os.environ.get('WORLD_SIZE', '1'))

    def device(self, wanted: str) -> str:
        """Return the device for this process.

        With several processes, `auto` and `cuda` become a GPU of its own.
        """
        import torch

        if self.count > 1 and wanted in ('auto', 'cuda') and torch.cuda.is_available():
            return f'cuda:{int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()}'
        return wanted

    def share(self, items: Sequence[Item], cost: Callable[[Item], float]) -> list[Item]:
        """Return this process's items; the costs of all processes are about equal (greedy)."""
        loads = [0.0] * self.count
        mine = []
        for index in sorted(range(len(items)), key=lambda index: -cost(items[index])):
            least = loads.index(min(loads))
            loads[least] += cost(items[index])
            if least == self.rank:
                mine.append(index)
        return [items[index] for index in sorted(mine)]

    def gather(self, part: dict[str, Any]) -> dict[str, Any]:
        """Merge the dictionaries of all processes; waits for each of them."""
        if self.count == 1:
            return part
        parts: list[Any] = [None] * self.count
        dist.all_gather_object(parts, part)
        return {name: value for one in parts for name, value in one.items()}

    def wait(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            dist.barrier()

    def leave(self) -> None:
        """Leave the process group."""
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()
