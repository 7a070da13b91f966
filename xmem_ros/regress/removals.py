# SPDX-License-Identifier: MIT
"""Which objects ought to be there: what a plan removes, and what vanishes although it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xmem_ros.errors import quoted
from xmem_ros.recordings.plan_state import PlanState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from xmem_ros.objects import TrackedObject
    from xmem_ros.recordings.seed_plan import PlannedSeeds


class Removals:
    """What a plan itself takes away: objects that it removes, and all of them where the recorded node was reset.

    Arguments:
        places: index of the image → its seeds.
    """

    def __init__(self, places: Mapping[int, Sequence[PlannedSeeds]]) -> None:
        self._next = 0
        self._known: set[int] = set()
        self._plan = PlanState(places)
        self._begun: set[int] = set()  # on the image that `at` came to
        self._removed: set[int] = set()

    def at(self, index: int) -> frozenset[int]:
        """Ids that the plan has removed up to this image and begun on no earlier one since; indices only rise."""
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
        self._plan.began({key: key for key in entry.ids}, [entry])


class Vanished:
    """Notes objects that are no longer tracked although nothing removed them, each time once."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._there: dict[int, str] = {}  # id → name

    def see(self, frame: str, objects: Iterable[TrackedObject], removed: Iterable[int]) -> None:
        """Look at the objects of the next frame, and at what the plan has removed."""
        now = {item.id: item.name for item in objects}
        gone = sorted(set(self._there) - set(now) - set(removed))
        self.notes += [
            f'frame {frame}: object {key}{f", {quoted(self._there[key])}," if self._there[key] else ""} is no longer '
            'tracked, though the seeds do not remove it; its frames count as wrong from here on'
            for key in gone
        ]
        self._there = now
