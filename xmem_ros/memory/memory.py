# SPDX-License-Identifier: MIT
"""Working and long-term memory of a tracker: what is kept, for how long, and how it is read.

Anchors are frames that stay: each object's first seed and its latest corrections. Behind them come the working frames,
oldest first, and long-term prototypes made of those that left. See docs/design.md.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from xmem_ros.memory.config import MemoryConfig
from xmem_ros.memory.consolidation import consolidate, least_used
from xmem_ros.memory.matching import query_rows, readout, topk_affinity
from xmem_ros.memory.store import Positions, Store

SIMILARITY_BUFFER_BYTES = 64 << 20


@dataclass(eq=False)
class Frame:
    """A memory frame's place in its arena."""

    positions: int
    anchors: list[int] = field(default_factory=list)  # rows whose seed this frame is
    first: set[int] = field(default_factory=set)  # those of them for which it is the first seed
    near: Tensor | None = None  # n bool, positions in and around those objects


class Memory:
    """Keys shared by all objects, values per row; see `Store`."""

    def __init__(
        self,
        config: MemoryConfig,
        frame_positions: int,
        rows: int,
        key_dim: int,
        value_dim: int,
        device: torch.device,
        value_dtype: torch.dtype,
    ):
        self.config = config
        long_term = config.long_term_elements if config.long_term else 0
        capacities = [config.max_anchor_frames * frame_positions, config.ring_frames * frame_positions, long_term]
        self.store = Store(capacities, rows, key_dim, value_dim, device, value_dtype)
        self.anchors, self.ring, self.long_term = self.store.arenas
        self.anchor_frames: list[Frame] = []
        self.ring_frames: list[Frame] = []
        self.cohorts: dict[int, int] = {}  # row → cohort: objects seeded together have values for the same positions
        self.partial: set[int] = set()  # cohorts that lack values somewhere
        self._similarity = torch.empty(self.similarity_elements(config, frame_positions), device=device)
        self._chunk = self._similarity.numel() // sum(capacities)

    @staticmethod
    def similarity_elements(config: MemoryConfig, frame_positions: int) -> int:
        """Numbers in the buffer that a read works in: as many whole queries as fit."""
        width = config.capacity(frame_positions)
        return max(1, min(frame_positions, SIMILARITY_BUFFER_BYTES // (4 * width))) * width

    @property
    def rows(self) -> list[int]:
        """Rows of the objects that are alive, in the order in which they came."""
        return list(self.cohorts)

    @property
    def elements(self) -> dict[str, int]:
        """Positions in use: `working` (anchors among them) and `long_term`."""
        return {'working': self.anchors.size + self.ring.size, 'long_term': self.long_term.size}

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return self.store.nbytes + self._similarity.nbytes

    # --- reading

    def read(self, query: Tensor, selection: Tensor, rows: list[int], *, count_usage: bool = True) -> Tensor:
        """Read every row's values for every query position.

        query, selection: Q×CK, float32. Returns O×Q×CV in the order of `rows`, zeros where an object has no memory.
        """
        store = self.store
        spans = [arena.used for arena in store.arenas if arena.size]
        total = sum(arena.size for arena in store.arenas)
        out = store.values.new_zeros(len(rows), query.shape[0], store.values.shape[2])
        if not total:
            return out
        groups: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            groups.setdefault(self.cohorts[row], []).append(i)
        to_store = self._columns_to_positions(spans)
        queries = query_rows(query, selection)
        used = {cohort: torch.zeros(total, device=query.device) for cohort in groups}
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
                used[cohort].index_add_(0, columns.flatten(), weights.flatten())
                positions = to_store[columns]
                for i in members:
                    out[i, part] = readout(store.values[rows[i]], weights, positions)
        if not count_usage:
            return out
        for cohort, members in groups.items():
            column = 0
            for span in spans:
                width = span.stop - span.start
                for i in members:
                    store.use[rows[i], span] += used[cohort][column : column + width]
                column += width
        for span in spans:
            store.life[span] += 1
        return out

    def _columns_to_positions(self, spans: list[slice]) -> Tensor:
        device = self.store.key.device
        return torch.cat([torch.arange(span.start, span.stop, device=device) for span in spans])

    # --- writing

    def join(self, rows: list[int]) -> None:
        """New objects, seeded together: they get their first values with the next `add`."""
        cohort = max(self.cohorts.values(), default=0) + 1
        if any(arena.size for arena in self.store.arenas):
            self.partial.add(cohort)
        for row in rows:
            self.cohorts[row] = cohort

    def add(self, frame: Positions, rows: list[int], seeded: dict[int, Tensor] | None = None) -> None:
        """Add a memory frame.

        frame: its positions, values in the order of `rows`; seeded: row → h×w bool mask at stride 16 (in and around
        the object) of the objects whose seed this frame is: then it becomes an anchor.
        """
        self.partial |= {cohort for row, cohort in self.cohorts.items() if row not in rows}
        if not seeded:
            self._add_working(frame, rows, Frame(frame.key.shape[0]))
            return
        known = {row for entry in self.anchor_frames for row in entry.anchors}
        near = torch.stack([mask.flatten() for mask in seeded.values()]).any(0)
        entry = Frame(frame.key.shape[0], list(seeded), {row for row in seeded if row not in known}, near)
        self._release_old_corrections(list(seeded))
        self._make_room_for_anchor(entry.positions)
        if entry.positions > self.anchors.free:
            kept = _spread(near.nonzero().flatten(), self._anchor_share())
            frame = _select(frame, kept)
            entry.positions, entry.near = kept.numel(), near[kept]
            self._make_room_for_anchor(entry.positions)
        if entry.positions > self.anchors.free:  # more anchors than positions: frames of a few pixels
            self._add_working(frame, rows, Frame(entry.positions))
            return
        self.store.append(self.anchors, frame, rows)
        self.anchor_frames.append(entry)

    def _add_working(self, frame: Positions, rows: list[int], entry: Frame) -> None:
        if entry.positions > self.ring.capacity:  # an anchor of a larger size of frame
            return
        while self.ring_frames and (
            entry.positions > self.ring.free or len(self.ring_frames) >= self.config.ring_frames
        ):
            self._drop_ring(1)
        self.store.append(self.ring, frame, rows)
        self.ring_frames.append(entry)
        if self.config.long_term and len(self.ring_frames) >= self.config.ring_frames:
            leaving = len(self.ring_frames) - (self.config.min_working_frames - 1)
            self._consolidate(leaving)

    def _consolidate(self, leaving: int) -> None:
        """Turn the oldest working frames into prototypes, evicting from long-term memory to make room."""
        rows, count = self.rows, sum(f.positions for f in self.ring_frames[:leaving])
        where = slice(self.ring.start, self.ring.start + count)
        prototypes = consolidate(self.store.take(where, rows), self.usage(where), self.config.prototypes)
        excess = prototypes.key.shape[0] - self.long_term.free
        if excess > 0:
            kept = least_used(self.usage(self.long_term.used), excess)
            self.store.keep(self.long_term, kept, rows)
        self.store.append(self.long_term, prototypes, rows)
        self._drop_ring(leaving)

    def usage(self, where: slice) -> Tensor:
        """use / life of some positions, summed over cohorts (they share one affinity each): n."""
        one_row_each = list({cohort: row for row, cohort in reversed(self.cohorts.items())}.values())
        return self.store.use[one_row_each, where].sum(0) / self.store.life[where]

    def _drop_ring(self, frames: int) -> None:
        gone = sum(f.positions for f in self.ring_frames[:frames])
        kept = torch.arange(gone, self.ring.size, device=self.store.key.device)
        self.store.keep(self.ring, kept, self.rows)
        del self.ring_frames[:frames]

    # --- anchors

    def _anchor_share(self) -> int:
        """Positions that one anchor may keep when they no longer fit as whole frames."""
        return max(self.anchors.capacity // (len(self.anchor_frames) + 1), 1)

    def _release_old_corrections(self, rows: list[int]) -> None:
        """Before a new correction: an object's oldest corrections past its limit become ordinary working frames."""
        for row in rows:
            corrections = [f for f in self.anchor_frames if row in f.anchors and row not in f.first]
            for entry in corrections[: max(len(corrections) - self.config.anchors_per_object + 2, 0)]:
                entry.anchors.remove(row)
        for entry in [f for f in self.anchor_frames if not f.anchors]:
            self._demote(entry)

    def _demote(self, entry: Frame) -> None:
        rows = self.rows
        begin = self.anchors.start + self._offset(entry)
        frame = self.store.take(slice(begin, begin + entry.positions), rows)
        self._remove_anchor(entry)
        self._add_working(frame, rows, Frame(entry.positions))

    def _offset(self, entry: Frame) -> int:
        """Where an anchor frame begins in its arena."""
        return sum(f.positions for f in self.anchor_frames[: self.anchor_frames.index(entry)])

    def _remove_anchor(self, entry: Frame) -> None:
        begin = self._offset(entry)
        offsets = torch.arange(self.anchors.size, device=self.store.key.device)
        kept = offsets[(offsets < begin) | (offsets >= begin + entry.positions)]
        self.store.keep(self.anchors, kept, self.rows)
        self.anchor_frames.remove(entry)

    def _make_room_for_anchor(self, positions: int) -> None:
        """Until there is room, demote frames that are nobody's anchor any more, then thin the oldest."""
        for entry in sorted(self.anchor_frames, key=lambda f: bool(f.anchors)):
            if self.anchors.free >= positions:
                return
            if not entry.anchors:  # kept for the others when its object was removed
                self._demote(entry)
                continue
            share = self._anchor_share()
            kept = entry.near.nonzero().flatten() if entry.near is not None else torch.arange(entry.positions)
            self._thin(entry, _spread(kept, share))

    def _thin(self, entry: Frame, kept: Tensor) -> None:
        begin = self._offset(entry)
        offsets = torch.arange(self.anchors.size, device=self.store.key.device)
        before, after = offsets[:begin], offsets[begin + entry.positions :]
        self.store.keep(self.anchors, torch.cat([before, kept.to(offsets.device) + begin, after]), self.rows)
        entry.near = entry.near[kept] if entry.near is not None else None
        entry.positions = kept.numel()

    # --- forgetting

    def leave(self, row: int) -> None:
        """Remove an object. What only it had values for goes; nothing of the others changes."""
        cohort = self.cohorts.pop(row)
        if cohort not in self.cohorts.values():
            self.partial.discard(cohort)
        for entry in self.anchor_frames:
            if row in entry.anchors:
                entry.anchors.remove(row)
            entry.first.discard(row)
        self.store.clear_row(row)
        if not self.cohorts:
            self.clear()
            return
        for entry in [f for f in self.anchor_frames if not f.anchors]:
            begin = self.anchors.start + self._offset(entry)
            if not self.store.valid[self.rows, begin : begin + entry.positions].any():
                self._remove_anchor(entry)
        for arena, frames in ((self.ring, self.ring_frames), (self.long_term, [])):
            has_values = self.store.valid[self.rows, arena.used].any(0)
            kept = has_values.nonzero().flatten()
            if kept.numel() < arena.size:
                begin = 0
                for entry in frames:
                    entry.positions, begin = (
                        int(has_values[begin : begin + entry.positions].sum()),
                        begin + entry.positions,
                    )
                self.store.keep(arena, kept, self.rows)
        self.ring_frames = [f for f in self.ring_frames if f.positions]

    def clear(self) -> None:
        """Forget everything; nothing is freed."""
        for arena in self.store.arenas:
            arena.size = 0
        self.store.valid[:] = False
        self.anchor_frames, self.ring_frames = [], []
        self.cohorts, self.partial = {}, set()

    def take_over(self, other: 'Memory') -> None:
        """Carry another memory's objects over, for a new frame size; old working frames go where room is short."""
        rows = other.rows
        self.cohorts, self.partial = dict(other.cohorts), set(other.partial)
        if not rows:
            return
        self._copy_long_term(other, rows)
        begin = other.anchors.start
        for entry in other.anchor_frames:
            positions = other.store.take(slice(begin, begin + entry.positions), rows)
            begin += entry.positions
            share = self.anchors.capacity // max(len(other.anchor_frames), 1)
            near = entry.near if entry.near is not None else positions.valid.any(0)
            wanted = near.nonzero().flatten() if entry.positions > share else torch.arange(entry.positions)
            kept = _spread(wanted, max(share, 1)).to(near.device)
            self.store.append(self.anchors, _select(positions, kept), rows)
            self.anchor_frames.append(Frame(kept.numel(), list(entry.anchors), set(entry.first), near[kept]))
        begin = other.ring.start
        for entry in other.ring_frames:
            positions = other.store.take(slice(begin, begin + entry.positions), rows)
            begin += entry.positions
            if entry.positions <= self.ring.capacity:
                self._add_working(positions, rows, Frame(entry.positions))

    def _copy_long_term(self, other: 'Memory', rows: list[int]) -> None:
        count = min(other.long_term.size, self.long_term.capacity)
        if not count:
            return
        kept = least_used(other.usage(other.long_term.used), other.long_term.size - count) + other.long_term.start
        self.store.append(self.long_term, other.store.take(kept, rows), rows)
        self.store.life[self.long_term.used] = other.store.life[kept]
        for row in rows:
            self.store.use[row, self.long_term.used] = other.store.use[row, kept]


def _spread(offsets: Tensor, count: int) -> Tensor:
    """At most `count` of some offsets, evenly spread over them."""
    if offsets.numel() <= count:
        return offsets
    return offsets[torch.linspace(0, offsets.numel() - 1, count, device=offsets.device).long()]


def _select(positions: Positions, kept: Tensor) -> Positions:
    return Positions(
        positions.key[kept],
        positions.shrinkage[kept],
        positions.selection[kept],
        positions.values[:, kept],
        positions.valid[:, kept],
    )


def near_mask(mask: Tensor, stride: int) -> Tensor:
    """H×W mask → h×w bool: positions in the object or next to it."""
    pooled = F.max_pool2d(mask[None, None].float(), stride)
    return F.max_pool2d(pooled, 3, 1, 1)[0, 0] > 0
