# SPDX-License-Identifier: MIT
"""Offline run: track a recording in resumable segments, then write results. No rclpy."""

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
    summary_of,
)
from xmem_ros.objects import MOST_OBJECTS
from xmem_ros.offline.destination import check_destination
from xmem_ros.offline.job import Job, Report, identity_of
from xmem_ros.offline.segments import RunFolder, StoredFrame, lookup_of
from xmem_ros.offline.sinks.coco import require_pycocotools
from xmem_ros.offline.tracking import OfflineTracker
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


_UNUSABLE = (BagError, FrameError, SeedError, UnknownObjectError)  # faults of the input: a rerun would fail too


def run(recording: Recording, plan: Sequence[PlannedSeeds], parameters: Parameters, job: Job) -> Report:
    """Track a recording and write the job's formats.

    A run that was interrupted, for example by a full disk, resumes with the same arguments. If
    the seeds of a later image are unusable, the work is kept, and the run resumes once the user has
    corrected them. After other faults of the input the work folder is removed.

    Raises:
        OutputError: no room, or no permission to write.
        RunError: an error of the device or a library, not of the input.
        XMemError: the recording, seeds, parameters, weights or destination are unusable.
    """
    check_destination(job.out)
    if {'coco', 'mots'} & set(job.formats):
        require_pycocotools()
    if 'bag' in job.formats:
        require_rosbags('results as a bag')
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # read at the first use of CUDA
    offline = _prepare_tracker(recording, plan, parameters)
    if offline.tracker.device.type == 'cuda':
        torch.use_deterministic_algorithms(True, warn_only=True)
    work = RunFolder(job.out, identity_of(recording, parameters, job, offline), restart=job.restart)
    tracked = False
    try:
        report = _track(recording, plan, offline, work, job)
        tracked = True
        write_results(recording, work, job, report, parameters)
        work.deliver()
    except BaseException as error:
        # unusable seeds on a later image, after objects were tracked
        correctable = isinstance(error, SeedError | UnknownObjectError) and offline.seeded
        kept = bool(work.segments) and (tracked or correctable or not isinstance(error, _UNUSABLE))
        if not kept:
            work.discard()
        if kept and correctable:
            text = f'{error}; the work so far is kept: correct the seeds of this image and run the command again'
            raise type(error)(text) from error
        if isinstance(error, (ParameterError, *_UNUSABLE)) or not isinstance(error, Exception):
            raise
        prefix = f'{work.folder}: ' if isinstance(error, OSError) and not isinstance(error, OutputError) else ''
        text = (
            prefix
            + summary_of(error)
            + ('; the work so far is kept: run the same command again to resume' if kept else '')
        )
        raise (OutputError if isinstance(error, OSError) else RunError)(text) from error
    finally:
        work.close()
    return report


def _prepare_tracker(recording: Recording, plan: Sequence[PlannedSeeds], parameters: Parameters) -> OfflineTracker:
    try:
        return OfflineTracker(recording, plan, parameters)
    except (XMemError, OSError):
        raise
    except Exception as error:  # the device is busy or broken
        raise RunError(
            f'the tracker cannot be set up on {parameters.device} ({summary_of(error)}); check the device'
        ) from error


def _track(
    recording: Recording, plan: Sequence[PlannedSeeds], offline: OfflineTracker, work: RunFolder, job: Job
) -> Report:
    """Track the remaining images, segment by segment."""
    wanted = {i: value for entry in plan for i, value in zip(entry.ids, entry.values, strict=False)}
    values = _MaskValues(wanted)
    report = Report()
    latest = work.latest(offline.tracker.fingerprint)
    faults: list[Fault] = []
    done = False
    if latest is not None:
        checkpoint, state = latest
        try:
            offline.restore(checkpoint)
            values.given = {int(i): int(value) for i, value in state['values']}
            faults = [Fault(int(index), str(reason)) for index, reason in state['faults']]
            report.tracked = report.resumed = int(state['tracked'])
            report.damage = str(state['damage'])
            done = bool(state['done'])
        except XMemError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise work.damaged(error) from error
    if not done:
        _track_remaining(recording, offline, work, job, report, values, faults)
    report.faults = sorted([*faults, *offline.dropped], key=lambda fault: fault.index)
    report.missed = [*offline.missed, *offline.unreached()]
    report.notes = list(offline.notes)
    if report.missed and not offline.seeded:
        raise SeedError(f'no seed could be applied: {report.missed[0]}')
    if not report.tracked:
        first = f'; the first: {report.faults[0].reason}' if report.faults else ''
        topic = f' of {recording.image_topic}' if recording.image_topic else ''
        raise BagError(f'{recording.path}: no image{topic} can be used{first}')
    return report


def _track_remaining(
    recording: Recording,
    offline: OfflineTracker,
    work: RunFolder,
    job: Job,
    report: Report,
    values: _MaskValues,
    faults: list[Fault],
) -> None:
    start, length = offline.index, job.segment
    before = list(faults)
    end = start + length - start % length
    writer = work.segment()

    def save_checkpoint(index: int, *, done: bool = False) -> None:
        faults[:] = [*before, *(fault for fault in recording.faults if fault.index < index)]
        offline.skip_to(index)
        state = {
            'values': sorted(values.given.items()),
            'faults': [[fault.index, fault.reason] for fault in faults],
            'tracked': report.tracked,
            'damage': report.damage,
            'done': done,
        }
        offline.restore(work.finish_segment(writer, offline.checkpoint(), state))

    try:
        with Bar(total=recording.length, initial=start, unit='image', desc='tracking') as bar:
            for frame in recording.frames(start):
                while frame.index >= end:
                    save_checkpoint(end)
                    writer, end = work.segment(), end + length
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


class _MaskValues:
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


def _to_stored(tracked: TrackedFrame, values: _MaskValues, *, with_seeds: bool) -> StoredFrame:
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
