# SPDX-License-Identifier: MIT
"""Tracked objects: the only place that maps between ids, tensor rows and pixel labels.

An object's row is its index in the tracker's tensors; its label is its pixel value in label images.
"""

import dataclasses
import enum
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from xmem_ros.checks import check_whole
from xmem_ros.errors import ParameterError, TooManyObjectsError, UnknownObjectError, listed, quoted
from xmem_ros.snapshot_schema import ObjectEntry, ShownState, TableState

MOST_OBJECTS = 254  # a label is a pixel value 1…254; 0 is background and 255 is never used


class ObjectState(enum.IntEnum):
    """State of an object; the values of `xmem_ros/TrackedObject`."""

    NEW = 0  # first seeded in this frame, or not observed yet
    TRACKED = 1  # visible
    OCCLUDED = 2  # mask too small or score too low
    LOST = 3  # not visible for at least `lost_after`


@dataclass(frozen=True)
class TrackedObject:
    """Observation of one object in one frame."""

    id: int  # unique until a reset
    label: int  # pixel value in the label image, 1…254
    name: str
    state: ObjectState
    score: float  # 0…1, mean probability in the mask × confidence from its appearance
    box: tuple[int, int, int, int] | None  # x, y, width, height in px; None: no pixels
    area: int  # px
    centroid: tuple[float, float]  # x, y in px; NaN: no pixels
    frames_since_seed: int  # since the first seed
    frames_since_seen: int  # 0: visible in this frame
    time_since_seed: float  # s
    time_since_seen: float  # s


@dataclass
class _Entry:
    id: int
    row: int
    name: str
    seeded_at: int  # frame number
    seen_at: int
    seeded_time: float | None  # s; None: seeded before the first frame and not yet observed
    seen_time: float | None  # s; None: the same
    shown: TrackedObject | None = None


def label_of(row: int) -> int:
    """Return the pixel label of a tensor row."""
    return row + 1


class ObjectTable:
    """Table of tracked objects; rows and labels are fixed, and reused after a removal.

    Raises `ParameterError` for `max_objects` outside 1…254.
    """

    def __init__(self, max_objects: int):
        check_whole('max_objects', max_objects, 1, MOST_OBJECTS)
        self.max_objects = max_objects
        self._entries: dict[int, _Entry] = {}
        self._next_id = 1

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[int]:
        return iter(self._entries)

    def __contains__(self, object_id: int) -> bool:
        return object_id in self._entries

    @property
    def rows(self) -> list[int]:
        """Tensor rows, in order of id."""
        return [entry.row for entry in self._entries.values()]

    @property
    def labels(self) -> list[int]:
        """Pixel labels, in order of id."""
        return [label_of(entry.row) for entry in self._entries.values()]

    def row(self, object_id: int) -> int:
        """Return the tensor row of an id."""
        return self._entries[object_id].row

    def rows_of(self, ids: Iterable[int]) -> list[int]:
        """Return the tensor rows of some ids, in their order."""
        return [self._entries[object_id].row for object_id in ids]

    def check_room(self, count: int) -> None:
        """Raise `TooManyObjectsError` unless `count` more objects fit."""
        if len(self) + count > self.max_objects:
            raise TooManyObjectsError(
                f'{count} new object(s) requested, but {len(self)} of at most {self.max_objects} are tracked; '
                'remove some first or raise max_objects'
            )

    def check_known(self, ids: Iterable[int], remedy: str = '') -> None:
        """Raise `UnknownObjectError` if any id is not tracked.

        remedy: what else the caller allows, for the error, as in 'give 0 for a new object'.
        """
        if unknown := [i for i in ids if i not in self._entries]:
            named = [f'{i} {quoted(entry.name)}' if entry.name else str(i) for i, entry in list(self._entries.items())]
            known = listed(named, 20) or 'none'
            raise UnknownObjectError(
                f'no object has the id {listed(unknown)}; tracked: {known}{f"; {remedy}" if remedy else ""}'
            )

    def add(self, name: str, frame: int, time: float | None) -> int:
        """Add an object with the lowest free row; returns its id.

        frame, time: number and time [s] of the seed's frame; time is None before the first frame.
        """
        taken = {entry.row for entry in self._entries.values()}
        row = next(row for row in range(self.max_objects) if row not in taken)
        object_id, self._next_id = self._next_id, self._next_id + 1
        self._entries[object_id] = _Entry(object_id, row, name, frame, frame, time, time)
        return object_id

    def rename(self, object_id: int, name: str) -> None:
        """Rename an object; an empty name changes nothing."""
        if name:
            self._entries[object_id].name = name

    def remove(self, object_id: int) -> int:
        """Remove an object; returns its row."""
        return self._entries.pop(object_id).row

    def withdraw(self, newest: list[int]) -> list[int]:
        """Undo the last additions, so that their ids can be assigned again; returns the rows."""
        rows = [self.remove(object_id) for object_id in newest]
        self._next_id = min([self._next_id, *newest])
        return rows

    def clear(self) -> None:
        """Remove all objects; ids start again at 1."""
        self._entries.clear()
        self._next_id = 1

    def export_state(self) -> TableState:
        """Return a copy of the state."""
        return TableState(self._next_id, [_exported(entry) for entry in self._entries.values()])

    @classmethod
    def import_state(cls, state: TableState, max_objects: int) -> 'ObjectTable':
        """Make a table from a state; raises `ParameterError` for a label above `max_objects`."""
        table = cls(max_objects)
        for entry in state.entries:
            if entry.row >= max_objects:
                raise ParameterError(
                    f'object {entry.id} has the label {label_of(entry.row)}, but max_objects is {max_objects}: '
                    f'raise it to {label_of(entry.row)} or more'
                )
            table._entries[entry.id] = _imported(entry)
        table._next_id = state.next_id
        return table

    def mark_seen(self, object_id: int, frame: int, time: float | None) -> None:
        """Mark an object as visible in a frame by a seed; time: as for `add`."""
        entry = self._entries[object_id]
        entry.seen_at, entry.seen_time = frame, time

    def observe(
        self,
        object_id: int,
        frame: int,
        time: float,
        *,
        visible: bool,
        lost_after: float,
        score: float,
        area: int,
        box: tuple[int, int, int, int] | None,
        centroid: tuple[float, float],
    ) -> TrackedObject:
        """Update an object's state after a frame.

        time, lost_after: s; score, area, box, centroid: as in `TrackedObject`.
        """
        entry = self._entries[object_id]
        # the clock may jump back, for example when a bag is restarted
        entry.seeded_time = time if entry.seeded_time is None else min(entry.seeded_time, time)
        entry.seen_time = time if entry.seen_time is None else min(entry.seen_time, time)
        if visible:
            entry.seen_at, entry.seen_time = frame, time
            state = ObjectState.NEW if frame == entry.seeded_at else ObjectState.TRACKED
        else:
            state = ObjectState.LOST if time - entry.seen_time >= lost_after else ObjectState.OCCLUDED
        entry.shown = TrackedObject(
            entry.id,
            label_of(entry.row),
            entry.name,
            state,
            score,
            box,
            area,
            centroid,
            frame - entry.seeded_at,
            frame - entry.seen_at,
            time - entry.seeded_time,
            time - entry.seen_time,
        )
        return entry.shown

    @property
    def shown(self) -> list[TrackedObject]:
        """Every object as last observed, in order of id; NEW and without a box before that."""
        return [
            entry.shown
            or TrackedObject(
                entry.id,
                label_of(entry.row),
                entry.name,
                ObjectState.NEW,
                0.0,
                None,
                0,
                (math.nan, math.nan),
                0,
                0,
                0.0,
                0.0,
            )
            for entry in self._entries.values()
        ]


def _exported(entry: _Entry) -> ObjectEntry:
    shown = None
    if entry.shown is not None:
        values = dataclasses.asdict(entry.shown)
        if entry.shown.box is None:
            values['centroid'] = None  # NaN is not JSON
        shown = ShownState(**{**values, 'state': int(entry.shown.state)})
    return ObjectEntry(
        entry.id, entry.row, entry.name, entry.seeded_at, entry.seen_at, entry.seeded_time, entry.seen_time, shown
    )


def _imported(entry: ObjectEntry) -> _Entry:
    shown = None
    if entry.shown is not None:
        values = msgspec.structs.asdict(entry.shown)
        centroid = entry.shown.centroid or (math.nan, math.nan)
        shown = TrackedObject(**{**values, 'state': ObjectState(entry.shown.state), 'centroid': centroid})
    return _Entry(
        entry.id, entry.row, entry.name, entry.seeded_at, entry.seen_at, entry.seeded_time, entry.seen_time, shown
    )
