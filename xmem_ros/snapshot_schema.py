# SPDX-License-Identifier: MIT
"""JSON schema of memory files: type and range of every value that is not a tensor."""

from typing import Annotated

from msgspec import Meta, Struct

from xmem_ros.checks import LARGEST_NAME, LARGEST_SIDE

MOST_ROWS = 254
MOST_FRAMES = 10_000  # of working memory, and of anchors
LARGEST_COUNT = 2**31  # of frames and ids; half the range of messages, as both continue to grow

Row = Annotated[int, Meta(ge=0, lt=MOST_ROWS)]
Count = Annotated[int, Meta(ge=0, le=LARGEST_COUNT)]
Positive = Annotated[int, Meta(ge=1, le=LARGEST_COUNT)]
Side = Annotated[int, Meta(ge=1, le=LARGEST_SIDE)]
Pixel = Annotated[int, Meta(ge=0, le=LARGEST_SIDE)]
Coordinate = Annotated[float, Meta(ge=-1, le=LARGEST_SIDE)]
Name = Annotated[str, Meta(max_length=LARGEST_NAME, pattern=r'^[^\x00]*$')]
Rows = Annotated[list[Row], Meta(max_length=MOST_ROWS)]


class ShownState(Struct, frozen=True, forbid_unknown_fields=True):
    """`TrackedObject` as last observed."""

    id: Positive
    label: Annotated[int, Meta(ge=1, le=MOST_ROWS)]
    name: Name
    state: Annotated[int, Meta(ge=0, le=3)]
    score: Annotated[float, Meta(ge=0, le=1.001)]  # above 1 by rounding of float32
    box: tuple[Pixel, Pixel, Side, Side] | None
    area: Count
    centroid: tuple[Coordinate, Coordinate] | None
    frames_since_seed: Count
    frames_since_seen: Count
    time_since_seed: Annotated[float, Meta(ge=0, le=1e12)]
    time_since_seen: Annotated[float, Meta(ge=0, le=1e12)]


class ObjectEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """Object of the table."""

    id: Positive
    row: Row
    name: Name
    seeded_at: Count
    seen_at: Count
    seeded_time: float | None
    seen_time: float | None
    shown: ShownState | None


class TableState(Struct, frozen=True, forbid_unknown_fields=True):
    """State of an `ObjectTable`; entries in order of id."""

    next_id: Positive
    entries: Annotated[list[ObjectEntry], Meta(max_length=MOST_ROWS)]


class ClockState(Struct, frozen=True, forbid_unknown_fields=True):
    """Clock of a tracker; frames are counted from 1, time in s."""

    frame: Count
    last_memory_frame: Count
    time: float


class AnchorHeader(Struct, frozen=True, forbid_unknown_fields=True):
    """Rows of the objects seeded in an anchor, and of those whose first seed it holds."""

    rows: Rows
    first: Rows


class MemoryHeader(Struct, frozen=True, forbid_unknown_fields=True):
    """`MemoryState` without its tensors."""

    cohorts: Annotated[list[tuple[Row, Positive]], Meta(max_length=MOST_ROWS)]
    partial: Annotated[list[Count], Meta(max_length=MOST_FRAMES)]
    ring: Annotated[int, Meta(ge=0, le=MOST_FRAMES)]
    anchors: Annotated[list[AnchorHeader], Meta(max_length=MOST_FRAMES)]
    long_term: bool


class GeometryHeader(Struct, frozen=True, forbid_unknown_fields=True):
    """Fields of a `FrameGeometry`."""

    image_size: tuple[Side, Side]
    working_size: tuple[Side, Side]
    padding: tuple[Pixel, Pixel, Pixel, Pixel]


class SnapshotHeader(Struct, frozen=True, forbid_unknown_fields=True):
    """JSON document; memory, geometry and seeds are absent without objects."""

    table: TableState
    clock: ClockState
    memory: MemoryHeader | None
    geometry: GeometryHeader | None = None
    seeds: Annotated[list[Count], Meta(max_length=MOST_ROWS)] | None = None
