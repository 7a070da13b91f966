# SPDX-License-Identifier: MIT
"""Floor: least time of a step's arithmetic and memory traffic on this machine.

Arithmetic (2 per multiply-add) and bytes (each operand read once, the result written once) are
counted for every convolution, matrix product and gather that a step really calls. The floor is the
sum over them of the longer of both, at the rates that a large matrix product and a large copy reach
here, measured in the same process. Whatever lies between them (activations, additions, top-k,
resizing) counts as free, so nothing can reach the floor.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

GATHERS = (torch.ops.aten._embedding_bag_forward_only, torch.ops.aten._embedding_bag)


@dataclass
class Work:
    """Work of a call: arithmetic, bytes and type of every operation."""

    operations: list[tuple[float, float, torch.dtype]] = field(default_factory=list)

    @property
    def flops(self) -> float:
        """Floating-point operations."""
        return sum(flops for flops, _, _ in self.operations)

    @property
    def bytes(self) -> float:
        """Bytes read and written."""
        return sum(moved for _, moved, _ in self.operations)

    def floor_ms(self, ceilings: 'dict[torch.dtype, Ceiling]') -> float:
        """Return the time at a machine's rates [ms], each operation at that of its type."""
        return 1e3 * sum(max(f / ceilings[t].flops, b / ceilings[t].bytes) for f, b, t in self.operations)

    def __truediv__(self, steps: int) -> 'Work':
        return Work([(flops / steps, moved / steps, kind) for flops, moved, kind in self.operations])


@dataclass(frozen=True)
class Ceiling:
    """Measured rates of a machine for one type."""

    flops: float  # per second
    bytes: float  # per second, reads and writes


class WorkCounter(TorchDispatchMode):
    """Counts operations while active."""

    def __init__(self) -> None:
        super().__init__()
        self.work = Work()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operation and execute it."""
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet not in flop_registry and packet not in GATHERS:
            with self:  # inference mode does not decompose composite operations
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if packet in flop_registry:
            flops = flop_registry[packet](*args, **kwargs, out_val=out)
            self.work.operations.append((float(flops), float(_nbytes(args) + _nbytes([out])), out.dtype))
        elif packet in GATHERS:
            table, indices = args[0], args[1]
            gathered = indices.numel() * table.shape[1]
            moved = gathered * table.element_size() + indices.nbytes + out[0].nbytes
            self.work.operations.append((2.0 * gathered, float(moved), table.dtype))
        return out


def _nbytes(values: Any) -> int:
    if isinstance(values, torch.Tensor):
        return values.nbytes
    return sum(_nbytes(v) for v in values) if isinstance(values, list | tuple) else 0


def _best(call: Any, device: torch.device, repeats: int = 5) -> float:
    """Return the shortest time of a call [s]."""
    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        call()
        if device.type == 'cuda':
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def measure_ceiling(device: torch.device, dtype: torch.dtype) -> Ceiling:
    """Measure a large matrix product in `dtype` and a large copy."""
    side = 8192 if device.type == 'cuda' else 2048
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    flops = 2 * side**3 / _best(lambda: torch.mm(a, b, out=out), device)
    source = torch.empty(1 << (30 if device.type == 'cuda' else 28), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    moved = 2 * source.nbytes / _best(lambda: target.copy_(source), device)
    return Ceiling(flops, moved)
