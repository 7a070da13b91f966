# SPDX-License-Identifier: MIT
"""Anchors: permanent memory frames of each object's first seed and latest corrections.

An anchor that no object needs any more is demoted: it becomes an ordinary working frame.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from xmem_ros.memory.store import Arena, Positions, Store


@dataclass(eq=False)
class Anchor:
    """Memory frame with one or more seeds; the arena holds its positions."""

    positions: int  # number of its positions
    near: Tensor  # n bool, positions in and around the seeded objects
    rows: list[int] = field(default_factory=list)  # objects that need this frame: seeded in it
    first: set[int] = field(default_factory=set)  # those of them whose first seed this is


class Anchors:
    """The anchors of all objects.

    Arguments:
        store, arena: memory of their positions.
        per_object: maximum number of anchors of an object (first seed and latest corrections).
    """

    def __init__(self, store: Store, arena: Arena, per_object: int):
        self.store, self.arena, self.per_object = store, arena, per_object
        self.frames: list[Anchor] = []

    def add(self, frame: Positions, seeded: dict[int, Tensor], rows: list[int]) -> list[Positions]:
        """Add a frame in which objects were seeded; returns the frames of demoted anchors.

        seeded: row → n bool, positions in and around that object; rows: all objects, in the order
        of `frame.values`. If the arena is too small for the frame itself, it is returned, too.
        """
        known = {row for entry in self.frames for row in entry.rows}
        near = torch.stack(list(seeded.values())).any(0)
        entry = Anchor(len(frame), near, list(seeded), {row for row in seeded if row not in known})
        demoted = self._release_old_corrections(list(seeded), rows)
        demoted += self._make_room(entry.positions, rows)
        if entry.positions > self.arena.free:
            kept = thinned(near, self._share())
            frame, entry.positions, entry.near = frame.select(kept), kept.numel(), near[kept]
            demoted += self._make_room(entry.positions, rows)
        if entry.positions > self.arena.free:  # only with tiny frames: more anchors than positions
            return [*demoted, frame]
        self.store.append(self.arena, frame, rows)
        self.frames.append(entry)
        return demoted

    def leave(self, row: int, rows: list[int]) -> None:
        """Remove an object and the anchors that only it used; rows: the other objects."""
        for entry in self.frames:
            if row in entry.rows:
                entry.rows.remove(row)
            entry.first.discard(row)
        for entry in [f for f in self.frames if not f.rows]:
            begin = self.arena.start + self._offset(entry)
            if not self.store.valid[rows, begin : begin + entry.positions].any():
                self._remove(entry, rows)

    def clear(self) -> None:
        """Remove all anchors."""
        self.frames, self.arena.size = [], 0

    def export_state(self, rows: list[int], device: torch.device | str) -> list[tuple[Anchor, Positions]]:
        """Copy all anchors, with the values of `rows`, to a device."""
        out, begin = [], self.arena.start
        for entry in self.frames:
            positions = self.store.take(slice(begin, begin + entry.positions), rows, device)
            out.append((Anchor(entry.positions, entry.near.to(device), list(entry.rows), set(entry.first)), positions))
            begin += entry.positions
        return out

    def import_state(self, frames: list[tuple[Anchor, Positions]], rows: list[int]) -> None:
        """Restore saved anchors; if they do not fit, keep fewer positions of each."""
        share = max(self.arena.capacity // max(len(frames), 1), 1)
        if sum(len(positions) for _, positions in frames) <= self.arena.capacity:
            share = self.arena.capacity
        for entry, positions in frames:
            near = entry.near.to(positions.key.device)
            kept = thinned(near, share)
            if kept.numel() > self.arena.free:
                continue
            self.store.append(self.arena, positions.select(kept), rows)
            self.frames.append(Anchor(kept.numel(), near[kept], list(entry.rows), set(entry.first)))

    def _share(self) -> int:
        """Return how many positions each anchor may keep once whole frames no longer fit."""
        return max(self.arena.capacity // (len(self.frames) + 1), 1)

    def _release_old_corrections(self, seeded: list[int], rows: list[int]) -> list[Positions]:
        """Release the oldest corrections to make room for a new one; returns demoted frames."""
        for row in seeded:
            corrections = [f for f in self.frames if row in f.rows and row not in f.first]
            for entry in corrections[: max(len(corrections) - self.per_object + 2, 0)]:
                entry.rows.remove(row)
        return [self._demote(entry, rows) for entry in [f for f in self.frames if not f.rows]]

    def _demote(self, entry: Anchor, rows: list[int]) -> Positions:
        """Remove an anchor and return its positions."""
        begin = self.arena.start + self._offset(entry)
        frame = self.store.take(slice(begin, begin + entry.positions), rows)
        self._remove(entry, rows)
        return frame

    def _offset(self, entry: Anchor) -> int:
        return sum(f.positions for f in self.frames[: self.frames.index(entry)])

    def _remove(self, entry: Anchor, rows: list[int]) -> None:
        self._keep_of(entry, torch.empty(0, dtype=torch.int64), rows)
        self.frames.remove(entry)

    def _make_room(self, positions: int, rows: list[int]) -> list[Positions]:
        """Demote anchors without objects, then thin others, oldest first, until there is room.

        positions: number of positions needed. Returns the demoted frames.
        """
        demoted = []
        for entry in sorted(self.frames, key=lambda f: bool(f.rows)):
            if self.arena.free >= positions:
                break
            if not entry.rows:  # its objects were removed, but others have values in it
                demoted.append(self._demote(entry, rows))
                continue
            kept = thinned(entry.near, self._share())
            self._keep_of(entry, kept, rows)
            entry.near, entry.positions = entry.near[kept], kept.numel()
        return demoted

    def _keep_of(self, entry: Anchor, kept: Tensor, rows: list[int]) -> None:
        """Keep only some positions of an anchor; kept: ascending offsets into it."""
        begin = self._offset(entry)
        offsets = torch.arange(self.arena.size, device=self.store.key.device)
        before, after = offsets[:begin], offsets[begin + entry.positions :]
        self.store.keep(self.arena, torch.cat([before, kept.to(offsets.device) + begin, after]), rows)


def thinned(near: Tensor, count: int) -> Tensor:
    """Choose at most `count` positions of a frame; returns ascending offsets.

    Up to half of them lie in and around the frame's objects (near: n bool). The rest are spread
    over the background; without it, everything would resemble the object.
    """
    if near.numel() <= count:
        return torch.arange(near.numel(), device=near.device)
    inside, outside = near.nonzero().flatten(), (~near).nonzero().flatten()
    others = min(outside.numel(), max(count - inside.numel(), count // 2))
    return torch.cat([spread(inside, count - others), spread(outside, others)]).sort().values


def spread(offsets: Tensor, count: int) -> Tensor:
    """Choose at most `count` offsets, evenly spread."""
    if offsets.numel() <= count:
        return offsets
    return offsets[torch.linspace(0, offsets.numel() - 1, count, device=offsets.device).long()]
