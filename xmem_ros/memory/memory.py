# SPDX-License-Identifier: MIT
"""Memory of a tracker: anchors, working frames and long-term prototypes.

A memory frame with a seed is an anchor and stays (see `anchors`). Other memory frames form a ring,
the working memory; the oldest ones become long-term prototypes. See docs/design.md.

All objects share the keys of a position. Each object has values of its own, in a row of the store.
Objects of a cohort have values at the same positions, so one affinity serves them all.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from xmem_ros.memory.anchors import Anchor, Anchors
from xmem_ros.memory.config import MemoryConfig
from xmem_ros.memory.consolidation import consolidate
from xmem_ros.memory.matching import query_rows, readout, topk_affinity
from xmem_ros.memory.store import Positions, Store
from xmem_ros.memory.usage import BACKGROUND, most_worth, own_shares

SIMILARITY_BUFFER_BYTES = 64 << 20


@dataclass(frozen=True)
class Reading:
    """Affinities with which one cohort was read: weights and positions, both Q×k."""

    weights: Tensor
    positions: Tensor


@dataclass
class MemoryState:
    """Copy of a memory's state, to restore it at another frame size or save it to a file."""

    cohorts: dict[int, int]  # row → cohort; rows in the order of the objects in `Positions.values`
    partial: set[int]
    anchors: list[tuple[Anchor, Positions]]
    ring: list[Positions]
    long_term: Positions | None

    def without(self, row: int) -> 'MemoryState':
        """Return the state without one object and without the positions that only it used."""
        kept = [i for i, other in enumerate(self.cohorts) if other != row]

        def remaining(frame: Positions) -> Positions:
            frame = frame.of_rows(kept)
            owner = torch.where(frame.owner == row, torch.full_like(frame.owner, BACKGROUND), frame.owner)
            return replace(frame, owner=owner).select(frame.valid.any(0).nonzero().flatten())

        anchors = []
        for entry, frame in self.anchors:
            rest = remaining(frame)
            near = entry.near.to(frame.valid.device)[frame.of_rows(kept).valid.any(0)]
            if len(rest):
                others = [r for r in entry.rows if r != row]
                anchors.append((Anchor(len(rest), near, others, entry.first - {row}), rest))
        return MemoryState(
            {other: cohort for other, cohort in self.cohorts.items() if other != row},
            self.partial,
            anchors,
            [rest for frame in self.ring if len(rest := remaining(frame))],
            None if self.long_term is None else remaining(self.long_term),
        )


class Memory:
    """Working and long-term memory of up to `rows` objects; see `Store`.

    Arguments:
        config: sizes and policy.
        frame_positions: number of positions in a frame, h·w at stride 16.
        rows: maximum number of objects.
        key_dim, value_dim: channels CK and CV.
        similarity_bytes: maximum size of the buffer for similarities.
    """

    def __init__(
        self,
        config: MemoryConfig,
        frame_positions: int,
        rows: int,
        key_dim: int,
        value_dim: int,
        device: torch.device,
        value_dtype: torch.dtype,
        similarity_bytes: int = SIMILARITY_BUFFER_BYTES,
    ):
        self.config = config
        self.store = Store(config.capacities(frame_positions), rows, key_dim, value_dim, device, value_dtype)
        anchors, self.ring, self.long_term = self.store.arenas
        self.anchors = Anchors(self.store, anchors, config.anchors_per_object)
        self.ring_frames: list[int] = []  # number of positions of each frame, oldest first
        self.cohorts: dict[int, int] = {}  # row → cohort
        self.partial: set[int] = set()  # cohorts without values at some positions
        elements = self.similarity_elements(config, frame_positions, similarity_bytes)
        self._similarity = torch.empty(elements, device=device)
        self._chunk = elements // config.capacity(frame_positions)

    @staticmethod
    def similarity_elements(
        config: MemoryConfig, frame_positions: int, limit_bytes: int = SIMILARITY_BUFFER_BYTES
    ) -> int:
        """Return the size of the similarity buffer, for a whole number of queries (≥ 1)."""
        width = config.capacity(frame_positions)
        return max(1, min(frame_positions, limit_bytes // (4 * width))) * width

    @property
    def rows(self) -> list[int]:
        """Rows of the objects, in the order in which they joined."""
        return list(self.cohorts)

    @property
    def elements(self) -> dict[str, int]:
        """Positions in use: `working`, with anchors, and `long_term`."""
        return {'working': self.anchors.arena.size + self.ring.size, 'long_term': self.long_term.size}

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return self.store.nbytes + self._similarity.nbytes

    @staticmethod
    def bytes_for(
        config: MemoryConfig, frame_positions: int, rows: int, key_dim: int, value_dim: int, value_dtype: torch.dtype
    ) -> int:
        """Return the bytes of a memory."""
        capacities = config.capacities(frame_positions)
        buffer = 4 * Memory.similarity_elements(config, frame_positions)
        return Store.bytes_for(capacities, rows, key_dim, value_dim, value_dtype) + buffer

    # --- reading

    @property
    def similarity_bytes(self) -> int:
        """Bytes of the similarity buffer."""
        return self._similarity.nbytes

    def read(self, query: Tensor, selection: Tensor, rows: list[int]) -> tuple[Tensor, dict[int, Reading]]:
        """Read the values of some objects for every query position.

        query, selection: Q×CK, float32. Returns readouts O×Q×CV in the order of `rows`, zeros for
        an object without memory; and each cohort's reading, which `count` takes.
        """
        store = self.store
        spans = [arena.used for arena in store.arenas if arena.size]
        total = sum(arena.size for arena in store.arenas)
        out = store.values.new_zeros(len(rows), query.shape[0], store.values.shape[2])
        if not total:
            return out, {}
        groups: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            groups.setdefault(self.cohorts[row], []).append(i)
        to_store = self._columns_to_positions(spans)
        queries = query_rows(query, selection)
        parts: dict[int, list[tuple[Tensor, Tensor]]] = {cohort: [] for cohort in groups}
        blocked = {
            cohort: ~torch.cat([store.valid[rows[members[0]], span] for span in spans])
            for cohort, members in groups.items()
            if cohort in self.partial
        }
        for begin in range(0, query.shape[0], self._chunk):
            part = slice(begin, min(begin + self._chunk, query.shape[0]))
            similarity = self._similarity[: (part.stop - begin) * total].view(-1, total)
            column = 0
            for span in spans:
                width = span.stop - span.start
                torch.mm(queries[part], store.augmented[span].T, out=similarity[:, column : column + width])
                column += width
            for cohort, members in groups.items():
                allowed = similarity.masked_fill(blocked[cohort], -torch.inf) if cohort in blocked else similarity
                weights, columns = topk_affinity(allowed, self.config.top_k)
                positions = to_store[columns]
                parts[cohort].append((weights, positions))
                for i in members:
                    out[i, part] = readout(store.values[rows[i]], weights, positions)
        readings = {
            cohort: Reading(torch.cat([w for w, _ in chunks]), torch.cat([p for _, p in chunks]))
            for cohort, chunks in parts.items()
        }
        return out, readings

    def count(self, readings: dict[int, Reading], rows: list[int], presence: Tensor) -> None:
        """Add a read to the usage of the positions, following `config.usage`.

        presence: O×Q, in the order of `rows`: the share of each query position that an object
        covers, zeros for an object that is not visible.
        """
        store = self.store
        if self.config.usage == 'own':
            shares, visible = own_shares(presence, rows, store.values.shape[0])
            queries = torch.arange(presence.shape[1], device=presence.device)[:, None]
            for cohort, reading in readings.items():
                # each cohort reads the background's positions; a read counts 1 / number of cohorts
                counted = torch.zeros(shares.shape[0], device=shares.device)
                counted[0] = 1 / len(readings)
                counted[[row + 1 for row in rows if self.cohorts[row] == cohort]] = 1
                owner = store.owner[reading.positions].long() + 1
                weights = reading.weights * shares[owner, queries] * counted[owner]
                store.use.index_add_(0, reading.positions.flatten(), weights.flatten())
        else:
            for reading in readings.values():
                store.use.index_add_(0, reading.positions.flatten(), reading.weights.flatten())
        for arena in store.arenas:
            where = arena.used
            store.life[where] += visible[store.owner[where].long() + 1] if self.config.usage == 'own' else 1

    def _columns_to_positions(self, spans: list[slice]) -> Tensor:
        device = self.store.key.device
        return torch.cat([torch.arange(span.start, span.stop, device=device) for span in spans])

    # --- writing

    def join(self, rows: list[int]) -> None:
        """Add a cohort of objects seeded together; the next `add` must have their values."""
        cohort = max(self.cohorts.values(), default=0) + 1
        if any(arena.size for arena in self.store.arenas):
            self.partial.add(cohort)
        for row in rows:
            self.cohorts[row] = cohort

    def add(self, frame: Positions, seeded: dict[int, Tensor] | None = None, *, seeded_only: bool = False) -> None:
        """Add a memory frame; a frame with seeds becomes an anchor.

        Arguments:
            frame: positions with the values of all objects, in the order of `rows`.
            seeded: row → h×w bool, positions in and around each object seeded in this frame.
            seeded_only: whether to store values of the seeded objects only.
        """
        if seeded and seeded_only:
            frame = self._restricted(frame, list(seeded))
        if seeded:
            near = {row: mask.flatten() for row, mask in seeded.items()}
            # Anchors that lost their place become working frames. This cannot fail half-way: the
            # ring makes room by dropping its oldest frames.
            for demoted in self.anchors.add(frame, near, self.rows):
                self._add_working(demoted)
        else:
            self._add_working(frame)

    def _restricted(self, frame: Positions, rows: list[int]) -> Positions:
        """Return the frame with the values of `rows` alone; these rows leave shared cohorts."""
        for cohort in {self.cohorts[row] for row in rows}:
            members = {row for row, other in self.cohorts.items() if other == cohort}
            if members <= set(rows):
                continue
            new = max(self.cohorts.values()) + 1
            for row in members & set(rows):
                self.cohorts[row] = new
            if cohort in self.partial:
                self.partial.add(new)
        self.partial |= {cohort for row, cohort in self.cohorts.items() if row not in rows}
        included = torch.tensor([row in rows for row in self.rows], device=frame.valid.device)
        return replace(frame, valid=frame.valid & included[:, None])

    def _add_working(self, frame: Positions) -> None:
        if len(frame) > self.ring.capacity:  # an anchor made when frames were larger
            return
        while self.ring_frames and (len(frame) > self.ring.free or len(self.ring_frames) >= self.config.ring_frames):
            self._drop_ring(1)
        self.store.append(self.ring, frame, self.rows)
        self.ring_frames.append(len(frame))

    def drop_oldest(self) -> None:
        """Drop the working frames that a consolidation would replace, if working memory is full."""
        if self._full:
            self._drop_ring(len(self.ring_frames) - (self.config.min_working_frames - 1))

    @property
    def _full(self) -> bool:
        return self.config.long_term and len(self.ring_frames) >= self.config.ring_frames

    def consolidate(self) -> None:
        """Turn the oldest working frames into prototypes, if working memory is full.

        If long-term memory is also full, its least used positions are evicted.
        """
        if not self._full:
            return
        leaving = len(self.ring_frames) - (self.config.min_working_frames - 1)
        rows, count = self.rows, sum(self.ring_frames[:leaving])
        where = slice(self.ring.start, self.ring.start + count)
        chosen = self._most_worth(where, self.config.prototypes)
        prototypes = consolidate(self.store.take(where, rows), chosen, inherit=self.config.usage == 'own')
        excess = len(prototypes) - self.long_term.free
        if excess > 0:
            kept = self._most_worth(self.long_term.used, self.long_term.size - excess)
            self.store.keep(self.long_term, kept.sort().values, rows)
        self.store.append(self.long_term, prototypes, rows)
        self._drop_ring(leaving)

    def _most_worth(self, where: slice, count: int) -> Tensor:
        owner = self.store.owner[where] if self.config.quotas else None
        return most_worth(self.usage(where), count, owner, len(self.cohorts))

    def usage(self, where: slice) -> Tensor:
        """Return the usage of n positions: use / life."""
        return self.store.use[where] / self.store.life[where]

    def _drop_ring(self, frames: int) -> None:
        gone = sum(self.ring_frames[:frames])
        kept = torch.arange(gone, self.ring.size, device=self.store.key.device)
        self.store.keep(self.ring, kept, self.rows)
        del self.ring_frames[:frames]

    # --- removing

    def leave(self, row: int) -> None:
        """Remove an object and the positions that only it used."""
        if row not in self.cohorts:  # never joined
            return
        cohort = self.cohorts.pop(row)
        if cohort not in self.cohorts.values():
            self.partial.discard(cohort)
        self.store.clear_row(row)
        if not self.cohorts:
            self.clear()
            return
        self.anchors.leave(row, self.rows)
        for arena in (self.ring, self.long_term):
            has_values = self.store.valid[self.rows, arena.used].any(0)
            kept = has_values.nonzero().flatten()
            if kept.numel() == arena.size:
                continue
            if arena is self.ring:
                parts = torch.split_with_sizes(has_values, self.ring_frames)
                self.ring_frames = [count for part in parts if (count := int(part.sum()))]
            self.store.keep(arena, kept, self.rows)

    def clear(self) -> None:
        """Remove all objects and positions; the tensors stay allocated."""
        for arena in self.store.arenas:
            arena.size = 0
        self.store.valid[:] = False
        self.anchors.clear()
        self.ring_frames = []
        self.cohorts, self.partial = {}, set()

    # --- state

    def export_state(self, device: torch.device | str) -> MemoryState:
        """Copy the state to a device."""
        rows = self.rows
        if not rows:
            return MemoryState({}, set(), [], [], None)
        ring, begin = [], self.ring.start
        for positions in self.ring_frames:
            ring.append(self.store.take(slice(begin, begin + positions), rows, device))
            begin += positions
        anchors = self.anchors.export_state(rows, device)
        long_term = self.store.take(self.long_term.used, rows, device)
        return MemoryState(dict(self.cohorts), set(self.partial), anchors, ring, long_term)

    def import_state(self, state: MemoryState) -> None:
        """Restore a state; if it does not fit, drop the least used prototypes and oldest frames."""
        device = self.store.key.device
        self.clear()
        self.cohorts, self.partial = dict(state.cohorts), set(state.partial)
        if not self.cohorts:
            return
        if state.long_term is not None:
            held = state.long_term.to(device)
            owner = held.owner if self.config.quotas else None
            kept = most_worth(held.use / held.life, self.long_term.capacity, owner, len(self.cohorts))
            self.store.append(self.long_term, held.select(kept.sort().values), self.rows)
        self.anchors.import_state([(entry, frame.to(device)) for entry, frame in state.anchors], self.rows)
        ring = [frame for frame in state.ring if len(frame) <= self.ring.capacity][-self.config.ring_frames :]
        while sum(len(frame) for frame in ring) > self.ring.capacity:
            ring.pop(0)
        for frame in ring:
            self.store.append(self.ring, frame.to(device), self.rows)
            self.ring_frames.append(len(frame))


def near_mask(mask: Tensor, stride: int) -> Tensor:
    """Return the positions in or next to an object: mask H×W → h×w bool."""
    pooled = F.max_pool2d(mask[None, None].float(), stride)
    return F.max_pool2d(pooled, 3, 1, 1)[0, 0] > 0
