# SPDX-License-Identifier: MIT
"""Memory compared with a slow, plain implementation while objects join, are corrected and leave.

The published implementation fails in these cases. Values must stay with their keys through
consolidation and eviction, also for late objects. Eviction must work with objects of different
ages, drop exactly the excess in spite of ties, and never read an empty store. Objects can
be removed.
"""

import random

import pytest
import torch
from plain_memory import PlainMemory

from xmem_ros.memory.config import MemoryConfig
from xmem_ros.memory.memory import Memory
from xmem_ros.memory.store import Positions

CK, CV, ROWS = 4, 3, 4
POLICIES = [('all', False), ('all', True), ('own', False), ('own', True)]


class Both:
    """A real and a plain memory with the same input."""

    def __init__(self, config: MemoryConfig, frame_positions: int, seed: int):
        self.plain = PlainMemory(config)
        self.real = Memory(config, frame_positions, ROWS, CK, CV, torch.device('cpu'), torch.float32)
        self.positions = frame_positions
        self.random, self.numbers = random.Random(seed), torch.Generator().manual_seed(seed)

    def frame(self, owners: list[int]) -> Positions:
        n, g = self.positions, self.numbers
        values = torch.randn(len(self.plain.rows), n, CV, generator=g)
        owner = torch.tensor([self.random.choice([-1, *owners]) for _ in range(n)], dtype=torch.int16)
        key, selection = torch.randn(n, CK, generator=g), torch.rand(n, CK, generator=g)
        return Positions.fresh(key, 1 + torch.rand(n, 1, generator=g), selection, values, owner)

    def seed(self, rows: list[int], *, alone: bool = False) -> None:
        new = [row for row in rows if row not in self.plain.rows]
        self.plain.join(new)
        self.real.join(new)
        frame = self.frame(rows if alone else self.plain.rows)
        self.plain.add(frame, rows, alone=alone)
        self.plain.consolidate()
        self.real.add(frame, {row: torch.ones(self.positions, dtype=torch.bool) for row in rows}, seeded_only=alone)
        self.real.consolidate()

    def remember(self) -> None:
        frame = self.frame(self.plain.rows)
        self.plain.add(frame, [])
        self.plain.consolidate()
        self.real.add(frame)
        self.real.consolidate()

    def remove(self, row: int) -> None:
        self.plain.leave(row)
        self.real.leave(row)

    def step(self, queries: int = 3) -> None:
        """Read both memories, compare, and update usage."""
        g, rows = self.numbers, self.plain.rows
        key, selection = torch.randn(queries, CK, generator=g), torch.rand(queries, CK, generator=g)
        expected = self.plain.read(key, selection, CV)
        out, readings = self.real.read(key, selection, rows)
        assert torch.allclose(out, expected, atol=1e-5), (out - expected).abs().max()
        presence = torch.rand(len(rows), queries, generator=g) / max(len(rows), 1)
        presence[[i for i in range(len(rows)) if self.random.random() < 0.3]] = 0  # out of sight
        self.plain.count(key, selection, presence)
        self.real.count(readings, rows, presence)

    def agree(self) -> None:
        """Assert that both memories have equal positions, values, owners and usage."""
        items, store = self.plain.items, self.real.store
        where = torch.cat([torch.arange(a.start, a.start + a.size) for a in store.arenas])
        assert len(where) == len(items)
        assert self.real.elements['long_term'] == len(self.plain.long_term)
        assert self.real.rows == self.plain.rows
        assert torch.equal(store.key[where], torch.stack([item.key for item in items]))
        assert store.owner[where].tolist() == [item.owner for item in items]
        assert near(store.shrinkage[where], [item.shrinkage for item in items], 1e-4, 0)
        assert near(store.life[where], [item.life for item in items], 1e-6, 0)
        assert near(store.use[where], [item.use for item in items], 1e-3, 1e-5)
        for row in self.plain.rows:
            assert store.valid[row, where].tolist() == [row in item.values for item in items]
            have = [(n, item.values[row]) for n, item in zip(where.tolist(), items, strict=True) if row in item.values]
            if have:
                found = store.values[row, [n for n, _ in have]]
                assert torch.allclose(found, torch.stack([value for _, value in have]), atol=1e-4)


def near(found: torch.Tensor, expected: list[float], relative: float, absolute: float) -> bool:
    """Return whether all differ by at most a share of the value; at least `absolute` is allowed."""
    wanted = torch.tensor(expected, dtype=torch.float64)
    return bool(((found.double().flatten() - wanted).abs() <= (relative * wanted.abs()).clamp_min(absolute)).all())


def config(usage: str, *, quotas: bool, **settings: int) -> MemoryConfig:
    sizes = {'max_working_frames': 5, 'min_working_frames': 3, 'long_term_elements': 14, 'prototypes': 4, 'top_k': 5}
    return MemoryConfig(**{**sizes, 'max_anchor_frames': 12, **settings}, usage=usage, quotas=quotas)


@pytest.mark.parametrize(('usage', 'quotas'), POLICIES)
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_both_memories_agree_while_objects_join_and_leave(usage: str, quotas: bool, seed: int) -> None:
    both = Both(config(usage, quotas=quotas), 4, seed)
    both.seed([0])
    evicted = False
    for _ in range(70):
        both.step()
        event, rows = both.random.random(), both.plain.rows
        free = [row for row in range(ROWS) if row not in rows]
        if event < 0.08 and free:
            both.seed(free[:1] if both.random.random() < 0.7 else free[:2], alone=both.random.random() < 0.7)
        elif event < 0.14:
            both.seed([both.random.choice(rows)], alone=both.random.random() < 0.7)
        elif event < 0.20 and len(rows) > 1:
            both.remove(both.random.choice(rows))
        else:
            both.remember()
        evicted |= len(both.plain.long_term) > 10
        both.agree()
    assert evicted


@pytest.mark.parametrize(('usage', 'quotas'), POLICIES)
def test_both_memories_agree_on_an_object_that_joins_during_eviction(usage: str, quotas: bool) -> None:
    """The published implementation raises here."""
    both = Both(config(usage, quotas=quotas), 4, 7)
    both.seed([0])
    for number in range(60):
        both.step()
        if number == 30:
            assert len(both.plain.long_term) == 14
            both.seed([2])
        else:
            both.remember()
    both.agree()
    assert any(2 in item.values for item in both.plain.long_term)


@pytest.mark.parametrize('positions', [1, 2, 3])
def test_both_memories_agree_on_frames_smaller_than_top_k(positions: int) -> None:
    """The published implementation fails below 30 positions in memory and 128 candidates."""
    both = Both(config('own', quotas=True, prototypes=50, long_term_elements=60, top_k=30), positions, 3)
    both.seed([0])
    for _ in range(30):
        both.step()
        both.remember()
    both.agree()


def test_equal_usage_evicts_exactly_the_excess() -> None:
    """The published implementation drops all tied positions, and may keep none."""
    both = Both(config('all', quotas=False), 4, 5)
    both.seed([0])
    for _ in range(40):  # never read: every usage is zero
        both.remember()
    assert both.real.elements['long_term'] == 14


def test_a_removed_object_leaves_nothing_in_memory() -> None:
    both = Both(config('own', quotas=True), 4, 11)
    both.seed([0])
    for row in (1, 2, 3):
        both.seed([row])
        for _ in range(8):
            both.step()
            both.remember()
        both.remove(row)
        both.agree()
    assert not both.real.store.valid[1:].any()
    assert (both.real.store.owner <= 0).all()


def test_another_object_does_not_change_the_readout() -> None:
    """Readout of A with and without B: the same weights for the same values, to 1e-6."""
    alone, together = Both(config('own', quotas=True), 4, 1), Both(config('own', quotas=True), 4, 1)
    alone.seed([0])
    g = torch.Generator().manual_seed(99)
    together.real.join([0])
    together.real.import_state(alone.real.export_state('cpu'))
    together.real.join([1])
    for _ in range(3):
        frame = alone.frame([0])
        alone.real.add(frame)
        both = Positions.fresh(
            frame.key,
            frame.shrinkage,
            frame.selection,
            torch.cat([frame.values, torch.randn(1, 4, CV, generator=g)]),
            frame.owner,
        )
        together.real.add(both)
    key, selection = torch.randn(5, CK, generator=g), torch.rand(5, CK, generator=g)
    a, _ = alone.real.read(key, selection, [0])
    b, _ = together.real.read(key, selection, [0, 1])
    assert torch.allclose(a[0], b[0], atol=1e-6)
