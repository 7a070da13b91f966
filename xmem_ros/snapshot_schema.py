# SPDX-License-Identifier: MIT
"""What a memory file says in JSON: the type and range of every value that is not a tensor."""

from typing import Annotated

from msgspec import Meta, Struct

from xmem_ros.checks import LARGEST_NAME, LARGEST_SIDE

MOST_ROWS = 254
MOST_FRAMES = 10_000  # in working memory, or kept as anchors
LARGEST_COUNT = 2**31  # of frames and ids: both go on from here, and messages hold 32 bits

Row = Annotated[int, Meta(ge=0, lt=MOST_ROWS)]
Count = Annotated[int, Meta(ge=0, le=LARGEST_COUNT)]
Positive = Annotated[int, Meta(ge=1, le=LARGEST_COUNT)]
Side = Annotated[int, Meta(ge=1, le=LARGEST_SIDE)]
Pixel = Annotated[int, Meta(ge=0, le=LARGEST_SIDE)]
Coordinate = Annotated[float, Meta(ge=-1, le=LARGEST_SIDE)]
Name = Annotated[str, Meta(max_length=LARGEST_NAME, pattern=r'^[^\x00]*$')]
Rows = Annotated[list[Row], Meta(max_length=MOST_ROWS)]


class ShownState(Struct, frozen=True, forbid_unknown_fields=True):
    """A `TrackedObject`, as an object was last seen."""

    id: Positive
    label: Annotated[int, Meta(ge=1, le=MOST_ROWS)]
    name: Name
    state: Annotated[int, Meta(ge=0, le=3)]
    score: Annotated[float, Meta(ge=0, le=1.001)]  # a mean of float32 may exceed 1 by rounding
    box: tuple[Pixel, Pixel, Side, Side] | None
    area: Count
    centroid: tuple[Coordinate, Coordinate] | None
    frames_since_seed: Count
    frames_since_seen: Count
    time_since_seed: Annotated[float, Meta(ge=0, le=1e12)]
    time_since_seen: Annotated[float, Meta(ge=0, le=1e12)]


class ObjectEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """One object of the table."""

    id: Positive
    row: Row
    name: Name
    seeded_at: Count
    seen_at: Count
    seeded_time: float | None
    seen_time: float | None
    shown: ShownState | None


class TableState(Struct, frozen=True, forbid_unknown_fields=True):
    """An `ObjectTable`; entries in order of id."""

    next_id: Positive
    entries: Annotated[list[ObjectEntry], Meta(max_length=MOST_ROWS)]


class ClockState(Struct, frozen=True, forbid_unknown_fields=True):
    """How far a tracker has come; time in s."""

    frame: Count
    last_memory_frame: Count
    time: float


class AnchorHeader(Struct, frozen=True, forbid_unknown_fields=True):
    """Whose anchor a frame is."""

    rows: Rows
    first: Rows


class MemoryHeader(Struct, frozen=True, forbid_unknown_fields=True):
    """A `MemoryState` without its tensors."""

    cohorts: Annotated[list[tuple[Row, Positive]], Meta(max_length=MOST_ROWS)]
    partial: Annotated[list[Count], Meta(max_length=MOST_FRAMES)]
    ring: Annotated[int, Meta(ge=0, le=MOST_FRAMES)]
    anchors: Annotated[list[AnchorHeader], Meta(max_length=MOST_FRAMES)]
    long_term: bool


class GeometryHeader(Struct, frozen=True, forbid_unknown_fields=True):
    """A `FrameGeometry`."""

    image_size: tuple[Side, Side]
    working_size: tuple[Side, Side]
    padding: tuple[Pixel, Pixel, Pixel, Pixel]


class SnapshotHeader(Struct, frozen=True, forbid_unknown_fields=True):
    """All of the JSON; without objects, memory, geometry and seeds are absent."""

    table: TableState
    clock: ClockState
    memory: MemoryHeader | None
    geometry: GeometryHeader | None = None
    seeds: Annotated[list[Count], Meta(max_length=MOST_ROWS)] | None = None
