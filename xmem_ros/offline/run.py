# SPDX-License-Identifier: MIT
"""A whole run over a recording: tracked in segments, so that it can be interrupted, and then written out. No rclpy."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from xmem_ros.errors import (
    BagError,
    FrameError,
    OutputError,
    ParameterError,
    RunError,
    SeedError,
    UnknownObjectError,
    XMemError,
    told,
)
from xmem_ros.objects import MOST_OBJECTS
from xmem_ros.offline.destination import check_out
from xmem_ros.offline.job import Job, Report, identity_of
from xmem_ros.offline.segments import StoredFrame, Work, lookup_of
from xmem_ros.offline.sinks.coco import require_pycocotools
from xmem_ros.offline.tracking import Offline
from xmem_ros.offline.writing import write_results
from xmem_ros.progress import Bar
from xmem_ros.recordings import typestore
from xmem_ros.recordings.recording import Fault, Recording
from xmem_ros.recordings.rosbags_version import require_rosbags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xmem_ros.offline.tracking import TrackedFrame
    from xmem_ros.parameters.table import Parameters
    from xmem_ros.recordings.seed_plan import PlannedSeeds


_UNUSABLE = (BagError, FrameError, SeedError, UnknownObjectError)  # input or seeds: going on would end alike


def run(recording: Recording, plan: Sequence[PlannedSeeds], parameters: Parameters, job: Job) -> Report:
    """Track a recording and write what the job asks for.

    A run that broke off, for want of room or by whatever error, goes on when the same is asked for again. So does
    one whose seeds of a later image were unusable, once they are put right. Where the input is, nothing is left.

    Raises:
        OutputError: no room, or no right to write.
        RunError: something else that is not of the input, as an error of the device or of a library.
        XMemError: of the recording, the seeds, the parameters, the weights, the destination.
    """
    check_out(job.out)
    if 'coco' in job.formats:
        require_pycocotools()
    if 'bag' in job.formats:
        require_rosbags('--format bag')
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # read when CUDA is first used
    offline = _ready(recording, plan, parameters)
    if offline.tracker.device.type == 'cuda':
        torch.use_deterministic_algorithms(True, warn_only=True)
    work = Work(job.out, identity_of(recording, parameters, job, offline), restart=job.restart)
    tracked = False
    try:
        report = _track(recording, plan, offline, work, job)
        tracked = True
        write_results(recording, work, job, report, parameters)
        work.deliver()
    except BaseException as error:
        # seeds of an image that was not tracked yet, after others that were followed
        to_mend = isinstance(error, SeedError | UnknownObjectError) and offline.seeded
        kept = bool(work.segments) and (tracked or to_mend or not isinstance(error, _UNUSABLE))
        if not kept:
            work.discard()
        if kept and to_mend:
            text = f'{error}; what was tracked before is kept: put the seeds of this image right and run it again'
            raise type(error)(text) from error
        if isinstance(error, (ParameterError, *_UNUSABLE)) or not isinstance(error, Exception):
            raise
        at = f'{work.folder}: ' if isinstance(error, OSError) and not isinstance(error, OutputError) else ''
        text = at + told(error) + ('; what was tracked is kept: the same command goes on there' if kept else '')
        raise (OutputError if isinstance(error, OSError) else RunError)(text) from error
    finally:
        work.close()
    return report


def _ready(recording: Recording, plan: Sequence[PlannedSeeds], parameters: Parameters) -> Offline:
    try:
        return Offline(recording, plan, parameters)
    except (XMemError, OSError):
        raise
    except Exception as error:  # of a device that is not free, or broken
        raise RunError(f'the tracker cannot be made ready on {parameters.device} ({told(error)})') from error


def _track(recording: Recording, plan: Sequence[PlannedSeeds], offline: Offline, work: Work, job: Job) -> Report:
    """Track what is not tracked yet, segment by segment."""
    wanted = {i: value for entry in plan for i, value in zip(entry.ids, entry.values, strict=False)}
    values = _Values(wanted)
    report = Report()
    latest = work.latest(offline.tracker.fingerprint)
    faults: list[Fault] = []
    if latest is not None:
        checkpoint, state = latest
        offline.restore(checkpoint)
        values.given = {int(i): int(value) for i, value in state['values']}
        faults = [Fault(int(index), str(reason)) for index, reason in state['faults']]
        report.tracked = report.resumed = int(state['tracked'])
        report.damage = str(state['damage'])
    if latest is None or not latest[1]['done']:
        _track_rest(recording, offline, work, job, report, values, faults)
    report.faults = sorted([*faults, *offline.dropped], key=lambda fault: fault.index)
    report.missed = [*offline.missed, *offline.unreached()]
    report.notes = list(offline.notes)
    if report.missed and not offline.seeded:
        raise SeedError(f'nothing was followed: {report.missed[0]}')
    if not report.tracked:
        told = f'; the first: {report.faults[0].reason}' if report.faults else ''
        raise BagError(f'{recording.path}: no image of {recording.image_topic or "it"} can be used{told}')
    return report


def _track_rest(
    recording: Recording,
    offline: Offline,
    work: Work,
    job: Job,
    report: Report,
    values: _Values,
    faults: list[Fault],
) -> None:
    start, length = offline.index, job.segment
    before = list(faults)
    end = start + length - start % length
    writer = work.segment()

    def keep(index: int, *, done: bool = False) -> None:
        faults[:] = [*before, *(fault for fault in recording.faults if fault.index < index)]
        offline.skip_to(index)
        more = {
            'values': sorted(values.given.items()),
            'faults': [[fault.index, fault.reason] for fault in faults],
            'tracked': report.tracked,
            'damage': report.damage,
            'done': done,
        }
        offline.restore(work.finish_segment(writer, offline.checkpoint(), more))

    try:
        with Bar(total=recording.length, initial=start, unit='image', desc='tracking') as bar:
            for frame in recording.frames(start):
                while frame.index >= end:
                    keep(end)
                    writer, end = work.segment(), end + length
                tracked = offline.step(frame)
                if tracked is not None:
                    writer.add(_stored(tracked, values, with_seeds='bag' in job.formats))
                    report.tracked += 1
                bar.update(frame.index + 1 - bar.n)
        report.damage = recording.damage
        keep(max([offline.index, *(fault.index + 1 for fault in recording.faults)]), done=True)
    except BaseException:
        writer.abandon()
        raise


class _Values:
    """Pixel values of objects in mask files: those that were asked for, as far as nobody has them."""

    def __init__(self, wanted: dict[int, int]) -> None:
        self._wanted = wanted
        self.given: dict[int, int] = {}

    def of(self, tracked: TrackedFrame) -> dict[int, int]:
        """Id → value, of the objects of an image."""
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
        now = {self.given.get(item.id) for item in tracked.objects}
        return next(value for value in range(1, MOST_OBJECTS + 1) if value not in now)


def _stored(tracked: TrackedFrame, values: _Values, *, with_seeds: bool) -> StoredFrame:
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
    )
