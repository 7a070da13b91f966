# SPDX-License-Identifier: MIT
"""Several processes that share an evaluation's sequences, started by torchrun: one for each GPU, or some on a CPU."""

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

LONGEST_WAIT = timedelta(days=7)  # of the first process that is done for the last one


@dataclass(frozen=True)
class Processes:
    """This process among all of them."""

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls) -> Processes:
        """Find the others, where torchrun started any."""
        count = cls.started()
        if count == 1:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group('gloo', timeout=LONGEST_WAIT)  # only words are exchanged
        return cls(dist.get_rank(), count)

    @staticmethod
    def started() -> int:
        """How many torchrun started; 1 without it."""
        return int(os.environ.get('WORLD_SIZE', '1'))

    def device(self, wanted: str) -> str:
        """`auto` and `cuda` become this process's own GPU, where there are several processes and GPUs."""
        import torch

        if self.count > 1 and wanted in ('auto', 'cuda') and torch.cuda.is_available():
            return f'cuda:{int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()}'
        return wanted

    def share(self, items: Sequence[Item], cost: Callable[[Item], float]) -> list[Item]:
        """This process's items: the costliest first, each to the process that has least, so that all end together."""
        loads = [0.0] * self.count
        mine = []
        for index in sorted(range(len(items)), key=lambda index: -cost(items[index])):
            least = loads.index(min(loads))
            loads[least] += cost(items[index])
            if least == self.rank:
                mine.append(index)
        return [items[index] for index in sorted(mine)]

    def gather(self, part: dict[str, Any]) -> dict[str, Any]:
        """All processes' dictionaries in one; waits for every process."""
        if self.count == 1:
            return part
        parts: list[Any] = [None] * self.count
        dist.all_gather_object(parts, part)
        return {name: value for one in parts for name, value in one.items()}

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            dist.barrier()

    def leave(self) -> None:
        """Part from the others."""
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()
