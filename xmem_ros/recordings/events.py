# SPDX-License-Identifier: MIT
"""Order of recorded changes: xmem_ros/TrackingEvent as entries of a seed plan. Imports no rclpy."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from xmem_ros.recordings.recording import Recording
    from xmem_ros.recordings.seed_plan import PlannedSeeds

START, SEED, REMOVE, RESET, LOAD = range(5)  # TrackingEvent.kind


def describe_gaps(numbers: Iterable[tuple[int, int]], topic: str) -> list[str]:
    """Describe missing events.

    Arguments:
        numbers: session and sequence of each recorded event, in order.
        topic: of the events.
    """
    notes, before = [], (0, -1)
    for session, sequence in numbers:
        if sequence and before != (session, sequence - 1):
            notes.append(
                f'{topic}: events before number {sequence} of session {session} are not in the bag, so objects may be '
                'missing: record from before the first seed'
            )
        before = session, sequence
    return notes


def without_idle_start(plan: Sequence[PlannedSeeds]) -> list[PlannedSeeds]:
    """Leave out the changes before the first object; they had no effect."""
    first = next((row for row, entry in enumerate(plan) if not entry.after or entry.loaded), len(plan))
    return list(plan[first:])


def index_after(entry: PlannedSeeds, stamps: Sequence[int], recording: Recording) -> int:
    """Return the index of the first readable image after a change; their number if there is none.

    Arguments:
        entry: with `after`.
        stamps: of all images [ns]; −1 for unreadable ones.
        recording: read again if the entry has no stamp.
    """
    newest = entry.stamp_ns or 0
    if newest:
        same = next((index for index, stamp in enumerate(stamps) if stamp == newest), None)
        following = min(((stamp, index) for index, stamp in enumerate(stamps) if stamp > newest), default=None)
        index = same + 1 if same is not None else following[1] if following else len(stamps)
    else:  # no image was tracked before, or images have no stamps
        received = sorted((frame.received_ns, frame.index) for frame in recording.frames())
        before = bisect.bisect(received, (entry.received_ns or 0, len(stamps)))
        index = received[before - 1][1] + 1 if before else 0
    return next((later for later in range(index, len(stamps)) if stamps[later] >= 0), len(stamps))


def in_effective_order(placed: Sequence[tuple[int, PlannedSeeds]]) -> list[tuple[int, PlannedSeeds]]:
    """Move changes to the images where they have the effect that they had in the node.

    A node may seed an old image after it has removed objects; a plan applies each entry at its
    image. Therefore

    - an object is removed after all its seeds,
    - objects are forgotten before the first image that is seeded afterwards, and earlier seeds of
      later images are left out.

    Arguments:
        placed: index of an image and its entry, in the order of the events.
    """
    if not any(entry.after for _, entry in placed):
        return list(placed)
    newest: dict[int, int] = {}  # id → newest image with its seeds
    moved = []
    for index, entry in placed:
        if entry.after and entry.reset:
            newest.clear()
        seeded = [newest[object_id] + 1 for object_id in entry.removed if object_id in newest]
        moved.append((max([index, *seeded]), entry))
        newest.update({object_id: max(index, newest.get(object_id, 0)) for object_id in entry.ids})
    result: list[tuple[int, PlannedSeeds]] = []
    first = end = max((index for index, _ in moved), default=0)  # image of the changes since; of the next reset
    for index, entry in reversed(moved):
        if entry.after and entry.reset:
            first = end = min(index, first)
            result.append((end, entry))
        elif index <= end:
            first = min(index, first)
            result.append((index, entry))
    return result[::-1]
