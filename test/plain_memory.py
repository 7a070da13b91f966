# SPDX-License-Identifier: MIT
"""Slow reference memory without indexes, to compare the real one with.

It implements the memory of docs/design.md, one position and one query at a time. Each position is a
Python object with its own values, so keys and values cannot be misaligned. Anchor frames are never
reduced; use it only in tests where they fit.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from xmem_ros.memory.config import MemoryConfig
from xmem_ros.memory.store import Positions


@dataclass(eq=False)
class Item:
    """Memory position."""

    key: Tensor
    shrinkage: float
    selection: Tensor
    values: dict[int, Tensor]  # row → value, only of rows that have one
    owner: int
    use: float = 0.0
    life: float = 1e-7

    @property
    def worth(self) -> float:
        return self.use / self.life


@dataclass(eq=False)
class PlainFrame:
    """Memory frame; an anchor while it has anchored rows."""

    items: list[Item]
    rows: list[int] = field(default_factory=list)
    first: set[int] = field(default_factory=set)


class PlainMemory:
    """Reference memory; objects are rows, as in the real one."""

    def __init__(self, config: MemoryConfig):
        self.config = config
        self.objects: list[tuple[int, int]] = []  # row and number of the call that seeded it
        self.anchors: list[PlainFrame] = []
        self.ring: list[PlainFrame] = []
        self.long_term: list[Item] = []

    @property
    def rows(self) -> list[int]:
        return [row for row, _ in self.objects]

    @property
    def items(self) -> list[Item]:
        frames = [item for frame in self.anchors + self.ring for item in frame.items]
        return frames + self.long_term

    def join(self, rows: list[int]) -> None:
        call = max([call for _, call in self.objects], default=0) + 1
        self.objects += [(row, call) for row in rows]

    def similarity(self, item: Item, key: Tensor, selection: Tensor) -> float:
        """Compute the similarity of a position and a query (XMem, eq. 3)."""
        lists = selection.tolist(), item.key.tolist(), key.tolist()
        distance = sum(e * (k - q) ** 2 for e, k, q in zip(*lists, strict=True))
        return -item.shrinkage * distance / math.sqrt(len(key))

    def _affinity(self, row: int, key: Tensor, selection: Tensor) -> list[tuple[float, Item]]:
        """Return the weights and positions that a query reads for an object."""
        scored = [(self.similarity(item, key, selection), item) for item in self.items if row in item.values]
        best = sorted(scored, key=lambda pair: -pair[0])[: self.config.top_k]
        if not best:
            return []
        total = sum(math.exp(score - best[0][0]) for score, _ in best)
        return [(math.exp(score - best[0][0]) / total, item) for score, item in best]

    def read(self, keys: Tensor, selections: Tensor, value_dim: int) -> Tensor:
        """Read O×Q×CV, objects in the order in which they were added."""
        out = torch.zeros(len(self.rows), len(keys), value_dim)
        for o, row in enumerate(self.rows):
            for q in range(len(keys)):
                for weight, item in self._affinity(row, keys[q], selections[q]):
                    out[o, q] += weight * item.values[row]
        return out

    def count(self, keys: Tensor, selections: Tensor, presence: Tensor) -> None:
        """Update usage; objects of one call read the same positions, so each call counts once."""
        calls = self._calls()
        one_of_each = {call: row for row, call in reversed(calls.items())}
        own = self.config.usage == 'own'
        added = {id(item): 0.0 for item in self.items}
        for call, row in one_of_each.items():
            for q in range(len(keys)):
                for weight, item in self._affinity(row, keys[q], selections[q]):
                    if not own:
                        added[id(item)] += weight
                    elif item.owner < 0:
                        outside = max(0.0, 1 - float(presence[:, q].sum()))
                        added[id(item)] += weight * outside / len(one_of_each)
                    elif calls[item.owner] == call:
                        added[id(item)] += weight * float(presence[self.rows.index(item.owner), q])
        for item in self.items:
            item.use += added[id(item)]
            seen = item.owner < 0 or bool((presence[self.rows.index(item.owner)] > 0).any())
            item.life += 1 if seen or not own else 0

    def _calls(self) -> dict[int, object]:
        """Return row → a key that is equal for objects of one call with the same positions."""
        return {row: (call, tuple(id(item) for item in self.items if row in item.values)) for row, call in self.objects}

    def add(self, frame: Positions, seeded: list[int], *, alone: bool = False) -> None:
        items = [
            Item(
                frame.key[n],
                float(frame.shrinkage[n]),
                frame.selection[n],
                {row: frame.values[o, n] for o, row in enumerate(self.rows) if row in seeded or not alone},
                int(frame.owner[n]),
            )
            for n in range(len(frame))
        ]
        if not seeded:
            self._add_working(PlainFrame(items))
            return
        known = {row for anchor in self.anchors for row in anchor.rows}
        for row in seeded:
            corrections = [a for a in self.anchors if row in a.rows and row not in a.first]
            while len(corrections) > self.config.anchors_per_object - 2:
                corrections.pop(0).rows.remove(row)
        for anchor in [a for a in self.anchors if not a.rows]:
            self._demote(anchor)
        nobodys = [a for a in self.anchors if not a.rows]
        while len(self.anchors) >= self.config.max_anchor_frames and nobodys:
            self._demote(nobodys.pop(0))
        self.anchors.append(PlainFrame(items, list(seeded), {row for row in seeded if row not in known}))
        assert len(self.anchors) <= self.config.max_anchor_frames, 'more anchors than this memory is made for'

    def _demote(self, anchor: PlainFrame) -> None:
        self.anchors.remove(anchor)
        self._add_working(PlainFrame(anchor.items))

    def _add_working(self, frame: PlainFrame) -> None:
        if len(self.ring) >= self.config.ring_frames:
            self.ring.pop(0)
        self.ring.append(frame)

    def consolidate(self) -> None:
        if not self.config.long_term or len(self.ring) < self.config.ring_frames:
            return
        leaving = len(self.ring) - (self.config.min_working_frames - 1)
        candidates = [item for frame in self.ring[:leaving] for item in frame.items]
        made = [self._prototype(item, candidates) for item in self._best(candidates, self.config.prototypes)]
        room = self.config.long_term_elements - len(made)
        kept = self._best(self.long_term, room)
        self.long_term = [item for item in self.long_term if item in kept] + made
        self.ring = self.ring[leaving:]

    def _prototype(self, chosen: Item, candidates: list[Item]) -> Item:
        def average(pool: list[Item], quantity) -> Tensor:
            weights = torch.softmax(
                torch.tensor([self.similarity(item, chosen.key, chosen.selection) for item in pool]), 0
            )
            return sum(weight * quantity(item) for weight, item in zip(weights, pool, strict=True))

        values = {
            row: average([item for item in candidates if row in item.values], lambda item, row=row: item.values[row])
            for row in chosen.values
        }
        shrinkage = float(average(candidates, lambda item: torch.tensor(item.shrinkage)))
        made = Item(chosen.key, shrinkage, chosen.selection, values, chosen.owner)
        if self.config.usage == 'own':
            made.use, made.life = chosen.use, chosen.life
        return made

    def _best(self, items: list[Item], count: int) -> list[Item]:
        """Select the most used positions.

        With quotas, the background gets as many as all objects together.
        """
        ranked = sorted(items, key=lambda item: -item.worth)
        if not self.config.quotas:
            return ranked[:count]
        waiting: dict[int, list[Item]] = {}
        for item in ranked:
            waiting.setdefault(item.owner, []).append(item)
        turn = []
        for owner, mine in waiting.items():
            weight = len(self.objects) if owner < 0 else 1
            turn += [((place + 1) / weight, ranked.index(item), item) for place, item in enumerate(mine)]
        return [item for _, _, item in sorted(turn, key=lambda entry: entry[:2])[:count]]

    def leave(self, row: int) -> None:
        self.objects = [(other, call) for other, call in self.objects if other != row]
        for item in self.items:
            item.values.pop(row, None)
            if item.owner == row:
                item.owner = -1
        for anchor in self.anchors:
            anchor.rows = [other for other in anchor.rows if other != row]
            anchor.first.discard(row)
        # an anchor with readers stays complete; other frames lose positions without readers
        self.anchors = [a for a in self.anchors if a.rows or any(item.values for item in a.items)]
        for frame in self.ring:
            frame.items = [item for item in frame.items if item.values]
        self.ring = [frame for frame in self.ring if frame.items]
        self.long_term = [item for item in self.long_term if item.values]
