# SPDX-License-Identifier: MIT
"""Offline runner: tracks a case in this process, with the node's code but without ROS."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from xmem_ros.offline.tracking import OfflineTracker
from xmem_ros.recordings.recording import open_recording
from xmem_ros.regress.case_inputs import FrameResult, parameters_of, plan_of
from xmem_ros.regress.removals import Removals
from xmem_ros.stream.setup import release_device

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xmem_ros.recordings.recording import Fault, Recording
    from xmem_ros.regress.figures import Figures
    from xmem_ros.regress.suite import Case

MB = 1e6


@contextmanager
def offline_run(case: Case) -> Iterator[OfflineRun]:
    """Open the recording of a case; raises `XMemError`."""
    with open_recording(case.input, case.image_topic) as recording:
        try:
            offline = OfflineTracker(recording, plan_of(case, recording), parameters_of(case))
            yield OfflineRun(case, recording, offline)
        finally:
            release_device()  # so that the next case has the memory


class OfflineRun:
    """Recording that is tracked image by image."""

    def __init__(self, case: Case, recording: Recording, offline: OfflineTracker) -> None:
        self._case, self._recording, self._offline = case, recording, offline
        self._removals = Removals(offline.places)
        self._ended = False  # at the end of the recording
        self._memory = 0  # bytes, peak
        self.length = min(filter(None, (recording.length, case.frames)), default=None)

    def frames(self) -> Iterator[FrameResult]:
        """Track, frame by frame; raises `XMemError`."""
        for frame in self._recording.frames():
            if self._case.frames and frame.index >= self._case.frames:
                break
            tracked = self._offline.step(frame)
            self._memory = max(self._memory, self._offline.tracker.memory_bytes)
            if tracked is not None:
                yield FrameResult(
                    index=frame.index,
                    name=frame.name,
                    stamp_ns=frame.stamp_ns,
                    image=functools.partial(np.asarray, tracked.image),
                    labels=tracked.labels,
                    objects=tracked.objects,
                    removed=self._removals.at(frame.index),
                )
        else:
            self._ended = True

    def figures(self) -> Figures:
        """Return frames without a result, and memory."""
        return {'missing_frames': len(self._faults()), 'memory_mb': self._memory / MB}

    def notes(self) -> list[str]:
        """Return unusable images and seeds, and the node's log messages."""
        found = [f'image {fault.index} has no result: {fault.reason}' for fault in self._faults()[:5]]
        found += self._offline.missed[:5]
        if self._ended:
            found += self._offline.unreached()[:5]
        found += self._offline.notes[:5]
        return found

    def damage(self) -> str:
        """Return why the recording could not be read completely; '' if it could."""
        return self._recording.damage

    def _faults(self) -> list[Fault]:
        """Return images without a result, in order, up to the limit of the case."""
        faults = sorted([*self._recording.faults, *self._offline.dropped], key=lambda fault: fault.index)
        return [fault for fault in faults if not self._case.frames or fault.index < self._case.frames]
