# SPDX-License-Identifier: MIT
"""Offline run: track a recording in resumable segments, then write results. No rclpy."""

from __future__ import annotations

import dataclasses
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
from xmem_ros.offline.backwards import ReversedRecording, reversed_plan
from xmem_ros.offline.destination import check_destination
from xmem_ros.offline.job import Job, Report, identity_of
from xmem_ros.offline.joining import Join
from xmem_ros.offline.passes import MaskValues, track_pass
from xmem_ros.offline.run_folder import RunFolder
from xmem_ros.offline.sinks.coco import require_pycocotools
from xmem_ros.offline.tracking import UNTRACKED, OfflineTracker
from xmem_ros.offline.writing import write_results
from xmem_ros.recordings.rosbags_version import require_rosbags
from xmem_ros.recordings.seed_plan import new_objects
from xmem_ros.stream.setup import release_device
from xmem_ros.tracker.engine import Engines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xmem_ros.parameters.table import Parameters
    from xmem_ros.recordings.recording import Recording
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
    if job.both_ways and (count := new_objects(plan)) > MOST_OBJECTS:
        raise SeedError(
            f'the seeds have {count} objects; tracked both ways, all can be in one image, and the maximum is '
            f'{MOST_OBJECTS}: remove some, or track forwards only'
        )
    if {'coco', 'mots'} & set(job.formats):
        require_pycocotools()
    if 'bag' in job.formats:
        require_rosbags('results as a bag')
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # read at the first use of CUDA
    engines = Engines()
    offline = _prepare_tracker(recording, plan, parameters, engines)
    if offline.tracker.device.type == 'cuda':
        torch.use_deterministic_algorithms(True, warn_only=True)
    values = MaskValues({i: value for entry in plan for i, value in zip(entry.ids, entry.values, strict=False)})
    work = RunFolder(job.out, identity_of(recording, parameters, job, offline), restart=job.restart)
    tracked = False
    try:
        report = _track(recording, offline, work, values, job)
        tracked = True
        stored = work.frames()
        if job.both_ways and (turned := _turn_round(recording, offline, parameters, work, engines, report)) is not None:
            backwards, offline = turned
            release_device()  # the memory of the forward pass
            stored = _track_backwards(backwards, offline, parameters, work, values, job, report).frames()
        write_results(recording, work, stored, job, report, parameters)
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


def _prepare_tracker(
    recording: Recording, plan: Sequence[PlannedSeeds], parameters: Parameters, engines: Engines
) -> OfflineTracker:
    try:
        return OfflineTracker(recording, plan, parameters, engines=engines)
    except (XMemError, OSError):
        raise
    except Exception as error:  # the device is busy or broken
        raise RunError(
            f'the tracker cannot be set up on {parameters.device} ({summary_of(error)}); check the device'
        ) from error


def _track(recording: Recording, offline: OfflineTracker, work: RunFolder, values: MaskValues, job: Job) -> Report:
    """Track forwards; return the outcome."""
    report = track_pass(recording, offline, work, values, job, 'tracking')
    report.faults = sorted([*report.faults, *offline.dropped], key=lambda fault: fault.index)
    report.missed = [*offline.missed, *offline.unreached()]
    report.notes = list(offline.notes)
    if report.missed and not offline.seeded:
        raise SeedError(f'no seed could be applied: {report.missed[0]}')
    if not report.tracked:
        first = f'; the first: {report.faults[0].reason}' if report.faults else ''
        topic = f' of {recording.image_topic}' if recording.image_topic else ''
        raise BagError(f'{recording.path}: no image{topic} can be used{first}')
    return report


def _turn_round(
    recording: Recording,
    offline: OfflineTracker,
    parameters: Parameters,
    work: RunFolder,
    engines: Engines,
    report: Report,
) -> tuple[ReversedRecording, OfflineTracker] | None:
    """Prepare to track backwards from the last seed; None if no image precedes it.

    offline: tracker of the forward pass, which is over.
    """
    report.notes = [note for note in report.notes if not note.endswith(UNTRACKED)]
    images = list(work.seeded())
    last = max((index for index, ids in images if ids), default=0)
    if not images or last <= images[0][0]:
        report.notes.append('no image precedes the seeds, so tracking both ways is tracking forwards')
        return None
    backwards = ReversedRecording(recording, last, work.spool())
    plan = reversed_plan(offline.places, images, last)
    # backwards, the removal of an object makes no room for another one
    count = max(parameters.max_objects, new_objects(plan))
    parameters = dataclasses.replace(parameters, max_objects=count)
    return backwards, _prepare_tracker(backwards, plan, parameters, engines)


def _track_backwards(
    backwards: ReversedRecording,
    offline: OfflineTracker,
    parameters: Parameters,
    work: RunFolder,
    values: MaskValues,
    job: Job,
    report: Report,
) -> Join:
    """Track backwards; return the join of both passes.

    offline: tracker of the backward pass; report: of the forward pass, gets notes.
    """
    job = dataclasses.replace(job, formats=())  # without seeds, which the forward pass has
    track_pass(backwards, offline, work.backward, values, job, 'tracking backwards')
    report.notes += [f'backwards: {note}' for note in offline.notes]
    report.missed += [f'backwards: {text}' for text in offline.missed]
    return Join(work, work.backward, backwards.last, min_part_share=parameters.min_part_share, count=report.tracked)
