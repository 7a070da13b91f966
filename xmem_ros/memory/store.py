# SPDX-License-Identifier: MIT
"""Key-value store of memory positions: tensors that are allocated once.

The store is divided into arenas, each filled from its start without gaps. All objects share the
keys. Each object has a row (see `xmem_ros.objects`) with its values, and flags that tell at which
positions it has one. Letters: N positions, R rows, CK and CV key and value channels.
"""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from xmem_ros.memory.matching import memory_rows
from xmem_ros.memory.usage import BACKGROUND, UNREAD


@dataclass
class Arena:
    """Contiguous part of the store, of which the first `size` positions are in use."""

    start: int
    capacity: int
    size: int = 0

    @property
    def used(self) -> slice:
        """Positions in use."""
        return slice(self.start, self.start + self.size)

    @property
    def free(self) -> int:
        """Number of positions that can still be appended."""
        return self.capacity - self.size


@dataclass
class Positions:
    """n memory positions outside the store."""

    key: Tensor  # n×CK, float32
    shrinkage: Tensor  # n×1, float32
    selection: Tensor  # n×CK, float32
    values: Tensor  # O×n×CV
    valid: Tensor  # O×n bool, whether an object has a value
    owner: Tensor  # n int16, row of the object that covers them, or BACKGROUND
    use: Tensor  # n, sum of the affinities with which it was read
    life: Tensor  # n, number of reads that count, see `usage`

    @classmethod
    def fresh(
        cls, key: Tensor, shrinkage: Tensor, selection: Tensor, values: Tensor, owner: Tensor | None = None
    ) -> 'Positions':
        """Make the positions of a new memory frame; every object has values at all of them."""
        n, device = key.shape[0], key.device
        if owner is None:
            owner = torch.full((n,), BACKGROUND, dtype=torch.int16, device=device)
        valid = torch.ones(values.shape[:2], dtype=torch.bool, device=device)
        return cls(
            key,
            shrinkage,
            selection,
            values,
            valid,
            owner,
            torch.zeros(n, device=device),
            torch.full((n,), UNREAD, device=device),
        )

    def __len__(self) -> int:
        return self.key.shape[0]

    def to(self, device: torch.device | str) -> 'Positions':
        """Return the positions on another device."""
        return Positions(*(getattr(self, f.name).to(device) for f in fields(self)))

    def of_rows(self, wanted: list[int]) -> 'Positions':
        """Return the positions with the values of some objects; wanted: indices in `values`."""
        return replace(self, values=self.values[wanted], valid=self.valid[wanted])

    def select(self, kept: Tensor) -> 'Positions':
        """Return some of the positions; kept: offsets."""
        return Positions(
            self.key[kept],
            self.shrinkage[kept],
            self.selection[kept],
            self.values[:, kept],
            self.valid[:, kept],
            self.owner[kept],
            self.use[kept],
            self.life[kept],
        )


class Store:
    """Tensors of fixed capacity and the index operations on them.

    Arguments:
        capacities: positions of each arena.
        rows: largest number of objects.
    """

    def __init__(
        self,
        capacities: list[int],
        rows: int,
        key_dim: int,
        value_dim: int,
        device: torch.device,
        value_dtype: torch.dtype,
    ):
        starts = [sum(capacities[:i]) for i in range(len(capacities))]
        self.arenas = [Arena(start, capacity) for start, capacity in zip(starts, capacities, strict=True)]
        n = sum(capacities)
        self.key = torch.empty(n, key_dim, device=device)
        self.shrinkage = torch.empty(n, 1, device=device)
        self.selection = torch.empty(n, key_dim, device=device)
        self.augmented = torch.empty(n, 2 * key_dim + 1, device=device)
        self.owner = torch.full((n,), BACKGROUND, device=device, dtype=torch.int16)
        self.use = torch.empty(n, device=device)
        self.life = torch.empty(n, device=device)
        # Zeros, not empty: unwritten values are read with weight 0, and 0 · NaN is NaN.
        self.values = torch.zeros(rows, n, value_dim, device=device, dtype=value_dtype)
        self.valid = torch.zeros(rows, n, device=device, dtype=torch.bool)
        # buffers of `keep`, so that it allocates nothing and cannot fail half-way
        largest = max(capacities)
        self._scratch = {
            (t.shape[-1] if t.ndim > low else 1, t.dtype): torch.empty(
                largest, *t.shape[low:], device=device, dtype=t.dtype
            )
            for low, tensors in ((1, self._shared), (2, self._per_row))
            for t in tensors
        }

    @staticmethod
    def bytes_for(capacities: list[int], rows: int, key_dim: int, value_dim: int, value_dtype: torch.dtype) -> int:
        """Return the bytes of a store."""
        shared = 4 * (4 * key_dim + 4) + 2
        per_row = value_dim * value_dtype.itemsize + 1
        widths = {(key_dim, 4), (2 * key_dim + 1, 4), (1, 4), (1, 2), (1, 1), (value_dim, value_dtype.itemsize)}
        scratch = sum(width * size for width, size in widths)
        return sum(capacities) * (shared + rows * per_row) + max(capacities) * scratch

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return sum(t.nbytes for t in (*self._shared, *self._per_row, *self._scratch.values()))

    @property
    def _shared(self) -> tuple[Tensor, ...]:
        return self.key, self.shrinkage, self.selection, self.augmented, self.owner, self.use, self.life

    @property
    def _per_row(self) -> tuple[Tensor, ...]:
        return self.values, self.valid

    def append(self, arena: Arena, new: Positions, rows: list[int]) -> None:
        """Append n positions to an arena; rows: those of the objects in `new.values`."""
        n = len(new)
        if n > arena.free:
            raise ValueError(f'{n} positions do not fit: {arena.free} of {arena.capacity} are free; keep fewer first')
        where = slice(arena.start + arena.size, arena.start + arena.size + n)
        augmented = memory_rows(new.key, new.shrinkage)
        for tensor, source in zip(
            self._shared, (new.key, new.shrinkage, new.selection, augmented, new.owner, new.use, new.life), strict=True
        ):
            tensor[where].copy_(source)
        self.valid[:, where] = False
        for i, row in enumerate(rows):
            self.values[row, where].copy_(new.values[i])
            self.valid[row, where].copy_(new.valid[i])
        arena.size += n

    def take(self, where: slice | Tensor, rows: list[int], device: torch.device | str | None = None) -> Positions:
        """Copy positions with the values of some rows to a device; default: the store's.

        Rows are copied one by one, so that the store's device holds no second copy.
        """
        target = self.key.device if device is None else torch.device(device)

        def copy(tensor: Tensor) -> Tensor:
            return tensor[where].to(target, copy=True)

        return Positions(
            copy(self.key),
            copy(self.shrinkage),
            copy(self.selection),
            torch.stack([copy(self.values[row]) for row in rows]),
            torch.stack([copy(self.valid[row]) for row in rows]),
            copy(self.owner),
            copy(self.use),
            copy(self.life),
        )

    def keep(self, arena: Arena, kept: Tensor, rows: list[int]) -> None:
        """Keep only some of an arena's positions, in their order.

        kept: int64 offsets into the arena, ascending; rows: those of all objects.
        """
        source = kept + arena.start
        planes = [(tensor, tensor.shape[-1] if tensor.ndim > 1 else 1) for tensor in self._shared]
        planes += [
            (tensor[row], tensor.shape[-1] if tensor.ndim > 2 else 1) for tensor in self._per_row for row in rows
        ]
        for plane, width in planes:
            moved = self._scratch[width, plane.dtype][: kept.numel()].view(kept.numel(), *plane.shape[1:])
            torch.index_select(plane, 0, source, out=moved)
            plane[arena.start : arena.start + kept.numel()].copy_(moved)
        arena.size = kept.numel()

    def clear_row(self, row: int) -> None:
        """Remove an object's values and ownership, so that its row is free."""
        self.valid[row] = False
        self.owner[self.owner == row] = BACKGROUND
