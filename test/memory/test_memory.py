# SPDX-License-Identifier: MIT
"""Memory: matching by plain formulas, bounded stores, objects that join and leave."""

import pytest
import torch

from xmem_ros.errors import ParameterError
from xmem_ros.memory.config import MemoryConfig
from xmem_ros.memory.consolidation import consolidate
from xmem_ros.memory.matching import memory_rows, query_rows, readout, topk_affinity
from xmem_ros.memory.memory import Memory
from xmem_ros.memory.store import Positions
from xmem_ros.memory.usage import most_worth

CK, CV, HW = 6, 5, 12


def frame(objects: int, seed: int, positions: int = HW) -> Positions:
    g = torch.Generator().manual_seed(seed)
    return Positions.fresh(
        torch.randn(positions, CK, generator=g),
        1 + torch.rand(positions, 1, generator=g),
        torch.rand(positions, CK, generator=g),
        torch.randn(objects, positions, CV, generator=g),
    )


def read(m: Memory, q: tuple[torch.Tensor, torch.Tensor], rows: list[int], *, count: bool = True) -> torch.Tensor:
    """Read, and update usage as if every object covered the whole query."""
    out, readings = m.read(*q, rows)
    if count:
        m.count(readings, rows, torch.ones(len(rows), len(q[0])))
    return out


def add(m: Memory, new: Positions, given: dict[int, torch.Tensor] | None = None) -> None:
    m.add(new, given)
    m.consolidate()


def query(seed: int, count: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1000 + seed)
    return torch.randn(count, CK, generator=g), torch.rand(count, CK, generator=g)


def memory(rows: int = 4, **settings: int | bool) -> Memory:
    defaults = {'max_working_frames': 4, 'min_working_frames': 2, 'long_term_elements': 20, 'prototypes': 5, 'top_k': 4}
    config = MemoryConfig(**{**defaults, **settings})
    return Memory(config, HW, rows, CK, CV, torch.device('cpu'), torch.float32)


def seeded(rows: list[int]) -> dict[int, torch.Tensor]:
    return {row: torch.ones(HW, dtype=torch.bool) for row in rows}


def test_the_augmented_product_equals_the_anisotropic_similarity() -> None:
    """Against XMem's eq. 3 written out: s·(−Σ e (k − q)²)/√C."""
    f, (q, e) = frame(1, 0), query(0)
    distance = (e[:, None] * (f.key[None] - q[:, None]) ** 2).sum(-1)
    expected = -distance * f.shrinkage[:, 0] / CK**0.5
    assert torch.allclose(query_rows(q, e) @ memory_rows(f.key, f.shrinkage).T, expected, atol=1e-5)


def test_topk_affinity_is_a_softmax_over_the_k_most_similar() -> None:
    similarity = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    weights, positions = topk_affinity(similarity, 4)
    for row in range(3):
        best = similarity[row].topk(4)
        dense = torch.zeros(10).index_put_((best.indices,), torch.softmax(best.values, 0))
        ours = torch.zeros(10).index_put_((positions[row],), weights[row])
        assert torch.allclose(ours, dense, atol=1e-6)


def test_topk_takes_all_of_fewer_positions_and_none_of_masked_ones() -> None:
    weights, _ = topk_affinity(torch.tensor([[0.0, 1.0], [-torch.inf, -torch.inf]]), 30)
    assert weights.shape == (2, 2)
    assert weights[0].sum().item() == pytest.approx(1)
    assert weights[1].sum().item() == 0


def test_gathered_readout_equals_the_dense_product() -> None:
    values = torch.randn(10, CV, generator=torch.Generator().manual_seed(1))
    weights, positions = topk_affinity(torch.randn(3, 10, generator=torch.Generator().manual_seed(2)), 4)
    dense = torch.zeros(3, 10).scatter_(1, positions, weights) @ values
    assert torch.allclose(readout(values, weights, positions), dense, atol=1e-6)


def test_a_read_returns_the_written_values() -> None:
    m = memory(top_k=1)
    m.join([0, 2])
    f = frame(2, 0)
    add(m, f, seeded([0, 2]))
    out = read(m, (f.key, torch.ones(HW, CK)), [0, 2])
    assert torch.allclose(out, f.values, atol=1e-6)


def test_memory_is_allocated_once_and_sizes_are_bounded() -> None:
    m = memory()
    m.join([0])
    add(m, frame(1, 0), seeded([0]))
    pointers = [t.data_ptr() for t in (*m.store._shared, *m.store._per_row)]
    seen = set()
    for i in range(1, 60):
        read(m, query(i), [0])
        add(m, frame(1, i))
        seen.add((m.elements['working'], m.elements['long_term']))
        assert m.elements['working'] <= 4 * HW
        assert m.elements['long_term'] <= 20
    assert [t.data_ptr() for t in (*m.store._shared, *m.store._per_row)] == pointers
    assert max(long_term for _, long_term in seen) == 20


def test_the_first_frame_is_kept() -> None:
    m = memory()
    m.join([0])
    first = frame(1, 0)
    add(m, first, seeded([0]))
    for i in range(1, 30):
        read(m, query(i), [0])
        add(m, frame(1, i))
    assert torch.equal(m.store.key[m.anchors.arena.used], first.key)
    assert torch.equal(m.store.values[0, m.anchors.arena.used], first.values[0])


def test_the_oldest_working_frame_is_replaced_without_long_term_memory() -> None:
    m = memory(long_term=False)
    m.join([0])
    add(m, frame(1, 0), seeded([0]))
    for i in range(1, 10):
        add(m, frame(1, i))
    assert m.elements == {'working': 4 * HW, 'long_term': 0}
    assert torch.equal(m.store.key[m.ring.used][-HW:], frame(1, 9).key)


def test_most_worth_selects_exactly_the_given_number_in_spite_of_ties() -> None:
    score = torch.tensor([1.0, 0.0, 0.0, 0.0, 2.0])
    assert most_worth(score, 3).numel() == 3
    assert {0, 4} <= set(most_worth(score, 3).tolist())
    assert sorted(most_worth(score, 9).tolist()) == [0, 1, 2, 3, 4]
    assert most_worth(score, 0).numel() == 0
    owner = torch.tensor([-1, 0, 0, -1, 3], dtype=torch.int16)
    for count in range(6):
        assert most_worth(score, count, owner, 2).numel() == count


def test_consolidation_averages_only_valid_positions_of_an_object() -> None:
    candidates = frame(2, 0)
    candidates.valid[1, : HW // 2] = False
    candidates.values[1, : HW // 2] = float('nan')  # never written, never to be read
    made = consolidate(candidates, torch.tensor([11, 10, 9, 8]))
    assert made.key.shape == (4, CK)
    assert torch.equal(made.key, candidates.key[[11, 10, 9, 8]])
    similarity = (
        query_rows(made.key, candidates.selection[[11, 10, 9, 8]]) @ memory_rows(candidates.key, candidates.shrinkage).T
    )
    expected = torch.softmax(similarity[:, HW // 2 :], 1) @ candidates.values[1, HW // 2 :]
    assert torch.allclose(made.values[1], expected, atol=1e-5)


def test_adding_an_object_only_appends_and_removing_it_leaves_the_others_identical() -> None:
    m = memory()
    m.join([0])
    add(m, frame(1, 0), seeded([0]))
    add(m, frame(1, 1))
    before = [t.clone() for t in (m.store.key, m.store.values[0], m.store.use)]
    used = [m.anchors.arena.used, m.ring.used]
    read(m, query(1), [0], count=False)
    m.join([1])
    add(m, frame(2, 2), seeded([1]))
    for span in used:
        for tensor, old in zip((m.store.key, m.store.values[0], m.store.use), before, strict=True):
            assert torch.equal(tensor[span], old[span])
    assert not m.store.valid[1, used[1]].any()
    read(m, query(2), [0, 1])
    arenas = m.store.arenas
    plain = [(t[a.used].clone()) for a in arenas for t in (m.store.key, m.store.values[0], m.store.use)]
    m.leave(1)
    now = [t[a.used] for a in arenas for t in (m.store.key, m.store.values[0], m.store.use)]
    assert all(torch.equal(a, b) for a, b in zip(now, plain, strict=True))
    assert m.rows == [0]
    assert not m.store.valid[1].any()


def test_a_late_object_is_read_only_at_positions_with_its_values() -> None:
    m = memory(top_k=30)
    m.join([0])
    add(m, frame(1, 0), seeded([0]))
    m.join([3])
    late = frame(2, 1)
    add(m, late, seeded([3]))
    q, e = query(0)
    weights = torch.softmax(query_rows(q, e) @ memory_rows(late.key, late.shrinkage).T, 1)
    assert torch.allclose(read(m, (q, e), [0, 3])[1], weights @ late.values[1], atol=1e-5)


def test_keys_and_values_stay_aligned_for_late_objects_through_consolidation_and_eviction() -> None:
    """Values are a function of their key, which reveals misaligned ones."""
    probe = torch.randn(CK, CV, generator=torch.Generator().manual_seed(9))

    def linked(objects: int, seed: int) -> Positions:
        f = frame(objects, seed)
        f.values = torch.stack([f.key @ probe * (i + 1) for i in range(objects)])
        return f

    m = memory(prototypes=5, long_term_elements=11)
    m.join([0])
    add(m, linked(1, 0), seeded([0]))
    for i in range(1, 40):
        if i == 7:
            m.join([1])
        rows = m.rows
        read(m, query(i), rows)
        add(m, linked(len(rows), i), seeded([1]) if i == 7 else None)
    for arena in (m.anchors.arena, m.ring):
        for row in (0, 1):
            valid = m.store.valid[row, arena.used]
            expected = m.store.key[arena.used] @ probe * (row + 1)
            assert valid.any()
            assert torch.allclose(m.store.values[row, arena.used][valid], expected[valid], atol=1e-5)
    ratio = m.store.values[1, m.long_term.used] / m.store.values[0, m.long_term.used]
    both = m.store.valid[:2, m.long_term.used].all(0)
    assert both.any()
    assert torch.allclose(ratio[both], torch.full_like(ratio[both], 2.0), atol=1e-3)


def test_anchors_beyond_the_limit_are_thinned_not_lost() -> None:
    m = memory(rows=8, max_anchor_frames=2)
    for row in range(8):
        m.join([row])
        near = torch.zeros(HW, dtype=torch.bool)
        near[row : row + 3] = True
        add(m, frame(row + 1, row), {row: near})
    assert m.anchors.arena.size <= 2 * HW
    assert len(m.anchors.frames) == 8
    assert all(f.positions > 0 for f in m.anchors.frames)
    assert all(m.store.valid[row, m.anchors.arena.used].any() for row in range(8))


def test_more_anchors_than_positions_are_accepted() -> None:
    config = MemoryConfig(
        max_working_frames=3, min_working_frames=2, long_term_elements=4, prototypes=2, max_anchor_frames=2
    )
    m = Memory(config, 1, 6, CK, CV, torch.device('cpu'), torch.float32)
    for row in range(6):
        m.join([row])
        add(m, frame(row + 1, row, positions=1), {row: torch.ones(1, dtype=torch.bool)})
    assert m.anchors.arena.size == 2
    assert read(m, query(0), m.rows).shape == (6, 7, CV)


def test_old_corrections_become_working_frames_and_the_first_seed_stays() -> None:
    m = memory(anchors_per_object=2, max_anchor_frames=4)
    m.join([0])
    for i in range(4):
        add(m, frame(1, i), seeded([0]))
    assert len(m.anchors.frames) == 2
    assert torch.equal(m.store.key[m.anchors.arena.used], torch.cat([frame(1, 0).key, frame(1, 3).key]))
    assert len(m.ring_frames) >= 1


def test_positions_of_only_a_removed_object_are_freed() -> None:
    m = memory()
    m.join([1])
    add(m, frame(1, 0), seeded([1]))
    m.join([0])
    add(m, frame(2, 1), seeded([0]))
    m.leave(1)
    assert m.elements['working'] == HW
    assert torch.equal(m.store.key[m.anchors.arena.used], frame(2, 1).key)


def test_invalid_limits_are_refused() -> None:
    with pytest.raises(ParameterError, match='min_working_frames'):
        MemoryConfig(max_working_frames=3, min_working_frames=3)
    with pytest.raises(ParameterError, match='at least 2'):
        MemoryConfig(anchors_per_object=1)
    with pytest.raises(ParameterError, match='top_k is 0'):
        MemoryConfig(top_k=0)


@pytest.mark.parametrize('positions', [3840, 4001])
def test_the_most_similar_positions_are_found_among_many(positions: int) -> None:
    similarity = torch.randn(7, positions, generator=torch.Generator().manual_seed(0))
    similarity[0, 5:] = -torch.inf  # fewer allowed than asked for
    similarity[1, -3:] = 50.0  # in what no group holds
    similarity[2, 64:94] = 50.0  # all in one or two groups
    weights, where = topk_affinity(similarity, 30)
    best = similarity.topk(30, dim=1)
    expected = torch.zeros_like(similarity).scatter_(1, best.indices, torch.softmax(best.values, 1))
    found = torch.zeros_like(similarity).scatter_add_(1, where, weights)
    assert torch.allclose(found, expected, atol=1e-6)
    assert where.shape == (7, 30)
