# SPDX-License-Identifier: MIT
"""Anchors: frames that stay, each object's first seed and its latest corrections."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from xmem_ros.memory.store import Arena, Positions, Store


@dataclass(eq=False)
class AnchorFrame:
    """An anchor's place in its arena."""

    positions: int
    near: Tensor  # n bool, positions in and around the objects whose seed this frame is
    rows: list[int] = field(default_factory=list)  # those objects
    first: set[int] = field(default_factory=set)  # those of them for which it is the first seed


class Anchors:
    """The arena of anchors and which frame is whose.

    Arguments:
        store, arena: where they are kept.
        per_object: an object's first seed and its latest corrections, at most.
    """

    def __init__(self, store: Store, arena: Arena, per_object: int):
        self.store, self.arena, self.per_object = store, arena, per_object
        self.frames: list[AnchorFrame] = []

    def add(self, frame: Positions, seeded: dict[int, Tensor], rows: list[int]) -> list[Positions]:
        """Keep a frame in which objects were seeded; returns the frames that are nobody's anchor any more.

        seeded: row → n bool, positions in and around that object; rows: all objects, in the order of `frame.values`.
        """
        known = {row for entry in self.frames for row in entry.rows}
        near = torch.stack(list(seeded.values())).any(0)
        entry = AnchorFrame(len(frame), near, list(seeded), {row for row in seeded if row not in known})
        demoted = self._release_old_corrections(list(seeded), rows)
        demoted += self._make_room(entry.positions, rows)
        if entry.positions > self.arena.free:
            kept = thinned(near, self._share())
            frame, entry.positions, entry.near = frame.select(kept), kept.numel(), near[kept]
            demoted += self._make_room(entry.positions, rows)
        if entry.positions > self.arena.free:  # more anchors than positions: frames of a few pixels
            return [*demoted, frame]
        self.store.append(self.arena, frame, rows)
        self.frames.append(entry)
        return demoted

    def leave(self, row: int, rows: list[int]) -> None:
        """An object is gone; `rows` are the others. What only it had values for goes."""
        for entry in self.frames:
            if row in entry.rows:
                entry.rows.remove(row)
            entry.first.discard(row)
        for entry in [f for f in self.frames if not f.rows]:
            begin = self.arena.start + self._offset(entry)
            if not self.store.valid[rows, begin : begin + entry.positions].any():
                self._remove(entry, rows)

    def clear(self) -> None:
        """Forget everything."""
        self.frames, self.arena.size = [], 0

    def export_state(self, rows: list[int], device: torch.device | str) -> list[tuple[AnchorFrame, Positions]]:
        """Copies of every frame, with the values of `rows`, on a device."""
        out, begin = [], self.arena.start
        for entry in self.frames:
            positions = self.store.take(slice(begin, begin + entry.positions), rows, device)
            out.append(
                (AnchorFrame(entry.positions, entry.near.to(device), list(entry.rows), set(entry.first)), positions)
            )
            begin += entry.positions
        return out

    def import_state(self, frames: list[tuple[AnchorFrame, Positions]], rows: list[int]) -> None:
        """Take frames of another memory, thinned where they do not fit."""
        share = max(self.arena.capacity // max(len(frames), 1), 1)
        if sum(len(positions) for _, positions in frames) <= self.arena.capacity:
            share = self.arena.capacity
        for entry, positions in frames:
            near = entry.near.to(positions.key.device)
            kept = thinned(near, share)
            if kept.numel() > self.arena.free:
                continue
            self.store.append(self.arena, positions.select(kept), rows)
            self.frames.append(AnchorFrame(kept.numel(), near[kept], list(entry.rows), set(entry.first)))

    def _share(self) -> int:
        """Positions that one anchor may keep when they no longer fit as whole frames."""
        return max(self.arena.capacity // (len(self.frames) + 1), 1)

    def _release_old_corrections(self, seeded: list[int], rows: list[int]) -> list[Positions]:
        """Before a new correction: an object's oldest corrections past its limit become ordinary working frames."""
        for row in seeded:
            corrections = [f for f in self.frames if row in f.rows and row not in f.first]
            for entry in corrections[: max(len(corrections) - self.per_object + 2, 0)]:
                entry.rows.remove(row)
        return [self._demote(entry, rows) for entry in [f for f in self.frames if not f.rows]]

    def _demote(self, entry: AnchorFrame, rows: list[int]) -> Positions:
        begin = self.arena.start + self._offset(entry)
        frame = self.store.take(slice(begin, begin + entry.positions), rows)
        self._remove(entry, rows)
        return frame

    def _offset(self, entry: AnchorFrame) -> int:
        return sum(f.positions for f in self.frames[: self.frames.index(entry)])

    def _remove(self, entry: AnchorFrame, rows: list[int]) -> None:
        self._keep_of(entry, torch.empty(0, dtype=torch.int64), rows)
        self.frames.remove(entry)

    def _make_room(self, positions: int, rows: list[int]) -> list[Positions]:
        """Until there is room, demote frames that are nobody's anchor any more, then thin the oldest."""
        demoted = []
        for entry in sorted(self.frames, key=lambda f: bool(f.rows)):
            if self.arena.free >= positions:
                break
            if not entry.rows:  # kept for the others when its object was removed
                demoted.append(self._demote(entry, rows))
                continue
            kept = thinned(entry.near, self._share())
            self._keep_of(entry, kept, rows)
            entry.near, entry.positions = entry.near[kept], kept.numel()
        return demoted

    def _keep_of(self, entry: AnchorFrame, kept: Tensor, rows: list[int]) -> None:
        begin = self._offset(entry)
        offsets = torch.arange(self.arena.size, device=self.store.key.device)
        before, after = offsets[:begin], offsets[begin + entry.positions :]
        self.store.keep(self.arena, torch.cat([before, kept.to(offsets.device) + begin, after]), rows)


def thinned(near: Tensor, count: int) -> Tensor:
    """Offsets of at most `count` positions of a frame, ascending: half of them in and around its objects, where there
    are as many, the rest spread over what is not: without it, everything would look like the object.

    near: n bool.
    """
    if near.numel() <= count:
        return torch.arange(near.numel(), device=near.device)
    inside, outside = near.nonzero().flatten(), (~near).nonzero().flatten()
    others = min(outside.numel(), max(count - inside.numel(), count // 2))
    return torch.cat([spread(inside, count - others), spread(outside, others)]).sort().values


def spread(offsets: Tensor, count: int) -> Tensor:
    """At most `count` of some offsets, evenly spread over them."""
    if offsets.numel() <= count:
        return offsets
    return offsets[torch.linspace(0, offsets.numel() - 1, count, device=offsets.device).long()]
