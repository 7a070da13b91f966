# SPDX-License-Identifier: MIT
"""A recording played backwards, and its seeds. No rclpy.

Recordings can be read forwards only. The images are therefore read in blocks, which wait on disk,
as many as fit into `SPOOL_BYTES`.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from xmem_ros.recordings.limits import MAX_TIME_NS
from xmem_ros.recordings.plan_state import PlanState
from xmem_ros.recordings.recording import RecordedFrame, Recording
from xmem_ros.recordings.seed_plan import PlannedSeeds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

SPOOL_BYTES = 2**31  # of images on disk; does not affect results


class ReversedRecording(Recording):
    """The images of a recording from one down to the first.

    The index of that image is 0, and stamps increase as they decrease in the recording.

    Arguments:
        recording: an open one; must not be read meanwhile.
        last: index of the image that comes first here.
        spool: empty folder.
    """

    def __init__(self, recording: Recording, last: int, spool: Path) -> None:
        self._recording, self.last, self._spool = recording, last, spool
        self._bytes = 0  # mean size of an image
        self.path, self.image_topic, self.topics = recording.path, recording.image_topic, recording.topics
        self.length, self.exact, self.rate = last + 1, True, recording.rate
        self.damage, self.file_names, self.faults, self.notes = '', {}, [], []

    def frames(self, start: int = 0) -> Iterator[RecordedFrame]:
        """As `Recording.frames`; images that cannot be read are left out."""
        end = self.last + 1 - start
        while end > 0:
            kept, end = self._read_before(end)
            while kept:
                frame = self._take(kept.pop())
                stamp_ns = max(MAX_TIME_NS - frame.stamp_ns, 1) if frame.stamp_ns else 0
                yield dataclasses.replace(frame, index=self.last - frame.index, stamp_ns=stamp_ns)

    def close(self) -> None:
        """Do nothing: no file is open between calls of `frames`."""

    def _read_before(self, end: int) -> tuple[deque[RecordedFrame], int]:
        """Spool the images just before an index; return them, and the index where they begin."""
        if not self._bytes:
            frame = next(self._recording.frames(), None)
            self._bytes = max(frame.message.data.nbytes, 1) if frame is not None else 1
        first = max(end - max(SPOOL_BYTES // self._bytes, 1), 0)
        kept: deque[RecordedFrame] = deque()
        sizes: deque[int] = deque()
        total = 0
        for frame in self._recording.frames(first):
            if frame.index >= end:
                break
            sizes.append(frame.message.data.nbytes)
            kept.append(self._put(frame))
            total += sizes[-1]
            while total > SPOOL_BYTES and len(kept) > 1:
                first = self._take(kept.popleft()).index + 1
                total -= sizes.popleft()
        if sizes:
            self._bytes = max(total // len(sizes), 1)
        return kept, first

    def _put(self, frame: RecordedFrame) -> RecordedFrame:
        """Write the pixels of an image to disk; return the rest."""
        (self._spool / f'{frame.index}').write_bytes(frame.message.data)
        message = copy.copy(frame.message)
        message.data = None
        return dataclasses.replace(frame, message=message)

    def _take(self, frame: RecordedFrame) -> RecordedFrame:
        """Return a spooled image with its pixels, and remove these from disk."""
        path = self._spool / f'{frame.index}'
        frame.message.data = np.fromfile(path, np.uint8)
        path.unlink()
        return frame


def reversed_plan(
    places: Mapping[int, Sequence[PlannedSeeds]], seeded: Iterable[tuple[int, frozenset[int]]], last: int
) -> list[PlannedSeeds]:
    """Return the plan for the recording from an image down to the first.

    Every seed that the forward pass has applied begins or corrects its objects. Removals have no
    effect, because the seeds of an object precede its removal. All objects are forgotten before the
    image that precedes a reset, because ids mean other objects there.

    Arguments:
        places: index of an image → its entries.
        seeded: index of each tracked image and the ids seeded there by the forward pass, in order.
        last: index of the image where the backward pass begins.
    """
    resets: list[PlannedSeeds] = []
    plan: list[PlannedSeeds] = []
    state, before = PlanState({}), -1
    for index, ids in seeded:
        kept: list[PlannedSeeds] = []
        for entry in places.get(index, ()) if ids else ():
            if not entry.ids or not ids.issuperset(entry.ids):
                continue
            if state.is_reset(entry):
                state.forget()
                kept.clear()
                if before >= 0:
                    resets.append(PlannedSeeds((), (), last - before, recorded=True, reset=True))
            state.record_applied({}, [entry])
            # recorded: the forward pass could use it, so a failure here is only worth a warning
            kept.append(
                PlannedSeeds(entry.seeds, entry.ids, last - index, source=entry.source, recorded=True, reset=False)
            )
        plan += kept
        before = index
    return resets + plan
