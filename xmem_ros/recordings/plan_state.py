# SPDX-License-Identifier: MIT
"""State of a seed plan during a run: the objects begun so far and their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from xmem_ros.errors import MemoryFileError, SeedError, UnknownObjectError, XMemError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from xmem_ros.recordings.seed_plan import LoadedFile, PlannedSeeds


class NamedSeed(Protocol):
    """A seed of one object: an xmem_ros/Seed message, or a mask with a name."""

    @property
    def id(self) -> int:
        """Id of the object to correct; 0 begins a new one."""

    @property
    def name(self) -> str:
        """Name of the object; empty: unchanged."""


Seed = TypeVar('Seed', bound=NamedSeed)


class SeedHost(Protocol[Seed]):
    """Owner of the objects: a tracker in this process, or a live node."""

    def read(self, entry: PlannedSeeds) -> dict[int, Seed]:
        """Return plan id → seed; raises `SeedError`."""

    def reset(self) -> None:
        """Remove all objects."""

    def remove(self, ids: list[int]) -> None:
        """Remove objects, by the host's ids."""

    def load(self, file: LoadedFile) -> list[int]:
        """Replace all objects by those of a memory file; return the host's ids.

        Raises:
            MemoryFileError: it is missing, damaged or another one.
        """

    def named(self, seed: Seed, name: str) -> Seed:
        """Rename a seed; return it or a copy."""


class PlanState:
    """Objects that a plan has begun. The host has its own ids; results use the plan's.

    Arguments:
        places: index of an image → its entries of the plan.
        refused: error types of `SeedHost.read` that concern the seed, not the image.
    """

    def __init__(self, places: Mapping[int, Sequence[PlannedSeeds]], refused: tuple[type[XMemError], ...] = ()) -> None:
        self.places = places
        self.ids: dict[int, int] = {}  # plan id → host's id
        self.missed: list[str] = []  # unusable recorded seeds, and why
        self._used: set[int] = set()  # recorded ids since the last reset
        self._refused: tuple[type[XMemError], ...] = (*refused, UnknownObjectError, MemoryFileError)

    @property
    def plan_ids(self) -> dict[int, int]:
        """Host's id → plan id."""
        return {host_id: plan_id for plan_id, host_id in self.ids.items()}

    def keep(self, alive: Collection[int]) -> None:
        """Drop objects that the host no longer has, for example after an `on_time_jump` reset."""
        self.ids = {plan_id: host_id for plan_id, host_id in self.ids.items() if host_id in alive}

    def is_reset(self, entry: PlannedSeeds) -> bool:
        """Return whether the recorded node was reset or restarted before an entry.

        A node uses ids again only after a reset or restart.
        """
        if entry.reset is not None:
            return entry.reset
        corrected = {int(seed.id) for seed in entry.seeds}
        return entry.recorded and any(key in self._used and key not in corrected for key in entry.ids)

    def forget(self) -> None:
        """Clear the state after a reset."""
        self.ids, self._used = {}, set()

    def gather(self, index: int, image: str, host: SeedHost[Seed]) -> tuple[dict[int, Seed], list[PlannedSeeds]]:
        """Apply the plan's resets and removals before an image; return its seeds.

        Args:
            index: index of the image.
            image: name of the image, for errors.
            host: owner of the objects.

        Returns:
            Plan id → seed, and the entries with these seeds.

        Raises:
            SeedError, UnknownObjectError: an entry of the user cannot be used.
        """
        wanted: dict[int, Seed] = {}
        used: list[PlannedSeeds] = []
        for entry in self.places.get(index, ()):
            try:
                found = host.read(entry)
                if self.is_reset(entry):
                    host.reset()
                    self.forget()
                    wanted, used = {}, []
                if entry.loaded is not None:
                    self.ids = dict(zip(entry.loaded.ids, host.load(entry.loaded), strict=True))
                self._remove(entry, host)
            except self._refused as error:
                self.refuse(entry, image, error)
                continue
            for plan_id in entry.removed:
                wanted.pop(plan_id, None)
            for plan_id, seed in found.items():
                if seed.id and not entry.recorded and plan_id not in {*self.ids, *wanted}:
                    known = ', '.join(map(str, self.ids)) or 'none'
                    text = f'no object has the id {plan_id} here, so it cannot be corrected; known ids: {known}'
                    self.refuse(entry, image, UnknownObjectError(text))
                earlier = wanted.pop(plan_id, None)
                wanted[plan_id] = host.named(seed, seed.name or (earlier.name if earlier is not None else ''))
            used.append(entry)
        return wanted, used

    def record_applied(self, given: Mapping[int, int], entries: Sequence[PlannedSeeds]) -> None:
        """Record the objects that the host has begun or corrected.

        Args:
            given: plan id → host's id.
            entries: entries that were applied.
        """
        # after an on_time_jump reset the host's ids begin again
        reused = set(given.values())
        self.ids = {plan_id: host_id for plan_id, host_id in self.ids.items() if host_id not in reused}
        self.ids.update(given)
        for entry in entries:
            if entry.recorded:
                self._used.update(entry.ids)

    def refuse(self, entry: PlannedSeeds, image: str, error: XMemError) -> None:
        """Add a recorded entry to `missed`; for any other entry raise the error."""
        text = f'{entry.source}: image {image}: {error}'
        if not entry.recorded:
            raise type(error)(text) from error
        self.missed.append(text)

    def unreached(self, images: int) -> list[str]:
        """Describe the entries whose image is missing in a recording of `images` images."""
        return [
            f'{entry.source}: the recording ends before image {index}'
            for index, entries in sorted(self.places.items())
            if index >= images
            for entry in entries
        ]

    def export_state(self) -> dict[str, Any]:
        """Return the state as JSON types."""
        return {'ids': sorted(self.ids.items()), 'used': sorted(self._used), 'missed': self.missed}

    def import_state(self, state: Mapping[str, Any]) -> None:
        """Restore the state of `export_state`."""
        self.ids = {int(plan_id): int(host_id) for plan_id, host_id in state['ids']}
        self._used = {int(plan_id) for plan_id in state['used']}
        self.missed = [str(text) for text in state['missed']]

    def _remove(self, entry: PlannedSeeds, host: SeedHost[Seed]) -> None:
        unknown = [plan_id for plan_id in entry.removed if plan_id not in self.ids]
        if unknown:
            raise UnknownObjectError(f'no object has the id {unknown[0]}, so it cannot be removed')
        if entry.removed:
            host.remove([self.ids.pop(plan_id) for plan_id in entry.removed])


def check_count(entry: PlannedSeeds, objects: int) -> None:
    """Raise `SeedError` if an entry's seeds show more or fewer objects than it has ids."""
    if objects != len(entry.ids):
        raise SeedError(f'its seeds show {objects} objects, but it names {len(entry.ids)} ids')
