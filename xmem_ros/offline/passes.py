# SPDX-License-Identifier: MIT
"""A pass of the tracker over a recording, in resumable segments. No rclpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xmem_ros.errors import XMemError
from xmem_ros.objects import MOST_OBJECTS
from xmem_ros.offline.job import Report
from xmem_ros.offline.segments import StoredFrame, lookup_of
from xmem_ros.progress import Bar
from xmem_ros.recordings import typestore
from xmem_ros.recordings.recording import Fault

if TYPE_CHECKING:
    from xmem_ros.offline.job import Job
    from xmem_ros.offline.segments import Segments
    from xmem_ros.offline.tracking import OfflineTracker, TrackedFrame
    from xmem_ros.recordings.recording import Recording


class MaskValues:
    """Pixel values of objects in mask files: the wanted value if free, else another one."""

    def __init__(self, wanted: dict[int, int]) -> None:
        self._wanted = wanted
        self.given: dict[int, int] = {}

    def of(self, tracked: TrackedFrame) -> dict[int, int]:
        """Return id → value of the objects of an image."""
        for item in tracked.objects:
            if item.id not in self.given:
                self.given[item.id] = self._free(item.id, item.label, tracked)
        return {item.id: self.given[item.id] for item in tracked.objects}

    def _free(self, object_id: int, label: int, tracked: TrackedFrame) -> int:
        taken = set(self.given.values())
        reserved = {value for i, value in self._wanted.items() if i != object_id}
        for value in (self._wanted.get(object_id, 0), label, *range(1, MOST_OBJECTS + 1)):
            if value and value not in taken and (value not in reserved or value == self._wanted.get(object_id)):
                return value
        visible = {self.given.get(item.id) for item in tracked.objects}
        return next(value for value in range(1, MOST_OBJECTS + 1) if value not in visible)


def track_pass(
    recording: Recording, offline: OfflineTracker, segments: Segments, values: MaskValues, job: Job, title: str
) -> Report:
    """Track the images that the segments of earlier runs do not have.

    Arguments:
        recording: played in the direction of the pass.
        offline: tracker of this recording, at its beginning.
        segments: of this pass.
        values: pixel values in mask files, continued.
        job: options of the run.
        title: of the progress bar.

    Returns:
        Numbers of images, damage and unreadable images; seeds and notes are in `offline`.
    """
    report = Report()
    latest = segments.latest(offline.tracker.fingerprint)
    if latest is not None:
        checkpoint, state = latest
        try:
            offline.restore(checkpoint)
            values.given = {int(i): int(value) for i, value in state['values']}
            report.faults = [Fault(int(index), str(reason)) for index, reason in state['faults']]
            report.tracked = report.resumed = int(state['tracked'])
            report.damage = str(state['damage'])
            if state['done']:
                return report
        except XMemError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise segments.damaged(error) from error
    _track_remaining(recording, offline, segments, values, job, title, report)
    return report


def _track_remaining(
    recording: Recording,
    offline: OfflineTracker,
    segments: Segments,
    values: MaskValues,
    job: Job,
    title: str,
    report: Report,
) -> None:
    start, length = offline.index, job.segment
    before = list(report.faults)
    end = start + length - start % length
    writer = segments.segment()

    def save_checkpoint(index: int, *, done: bool = False) -> None:
        report.faults = [*before, *(fault for fault in recording.faults if fault.index < index)]
        offline.skip_to(index)
        state = {
            'values': sorted(values.given.items()),
            'faults': [[fault.index, fault.reason] for fault in report.faults],
            'tracked': report.tracked,
            'damage': report.damage,
            'done': done,
        }
        offline.restore(segments.finish_segment(writer, offline.checkpoint(), state))

    try:
        with Bar(total=recording.length, initial=start, unit='image', desc=title) as bar:
            for frame in recording.frames(start):
                while frame.index >= end:
                    save_checkpoint(end)
                    writer, end = segments.segment(), end + length
                tracked = offline.step(frame)
                if tracked is not None:
                    writer.add(_to_stored(tracked, values, with_seeds='bag' in job.formats))
                    report.tracked += 1
                bar.update(frame.index + 1 - bar.n)
        report.damage = recording.damage
        save_checkpoint(max([offline.index, *(fault.index + 1 for fault in recording.faults)]), done=True)
    except BaseException:
        writer.abandon()
        raise


def _to_stored(tracked: TrackedFrame, values: MaskValues, *, with_seeds: bool) -> StoredFrame:
    value_of = values.of(tracked)
    shown = lookup_of(tracked.objects, value_of)[tracked.labels]
    for object_id, mask in tracked.masks.items():
        shown[shown == value_of[object_id]] = 0
        shown[mask] = value_of[object_id]
    header = tracked.frame.message.header
    accepted = [
        typestore.accepted_seeds(header, item.seeds, item.ids, item.labels)
        for item in (tracked.applied if with_seeds else [])
    ]
    return StoredFrame(
        tracked.frame.index,
        tracked.frame.stamp_ns,
        tracked.frame.received_ns,
        header.frame_id,
        tracked.frame.name,
        tracked.labels,
        shown,
        tracked.objects,
        value_of,
        [typestore.serialize(message) for message in accepted],
        tuple(tracked.masks),
    )
