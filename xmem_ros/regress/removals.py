# SPDX-License-Identifier: MIT
"""Removed objects: by the seed plan, and unexpectedly by the tracker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xmem_ros.errors import quoted
from xmem_ros.recordings.plan_state import PlanState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from xmem_ros.objects import TrackedObject
    from xmem_ros.recordings.seed_plan import PlannedSeeds


class Removals:
    """Ids that a seed plan has removed, by request or by a reset of the recorded node.

    Arguments:
        places: index of the image → its seeds.
    """

    def __init__(self, places: Mapping[int, Sequence[PlannedSeeds]]) -> None:
        self._next = 0
        self._known: set[int] = set()
        self._plan = PlanState(places)
        self._begun: set[int] = set()  # seeded on the current image
        self._removed: set[int] = set()

    def at(self, index: int) -> frozenset[int]:
        """Return the ids removed up to an image and not seeded again; indices only increase."""
        for place in range(self._next, index + 1):
            self._removed -= self._begun
            self._begun = set()
            for entry in self._plan.places.get(place, ()):
                self._apply(entry)
        self._next = index + 1
        return frozenset(self._removed)

    def _apply(self, entry: PlannedSeeds) -> None:
        if self._plan.is_reset(entry):
            self._removed |= self._known
            self._known, self._begun = set(), set()
            self._plan.forget()
        self._removed.update(entry.removed)
        self._begun.difference_update(entry.removed)
        self._known.update(entry.ids)
        self._begun.update(entry.ids)
        self._plan.record_applied({key: key for key in entry.ids}, [entry])


class UnexpectedRemovals:
    """Notes on objects that the tracker dropped although the plan does not remove them."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._names: dict[int, str] = {}  # id → name, of the previous frame

    def add(self, frame: str, objects: Iterable[TrackedObject], removed: Iterable[int]) -> None:
        """Add the objects of the next frame, and the ids that the plan has removed."""
        names = {item.id: item.name for item in objects}
        self.notes += [
            f'frame {frame}: object {key}{f", {quoted(self._names[key])}," if self._names[key] else ""} is no longer '
            'tracked, although the seed plan does not remove it; from here on its frames count as wrong'
            for key in sorted(set(self._names) - set(names) - set(removed))
        ]
        self._names = names
