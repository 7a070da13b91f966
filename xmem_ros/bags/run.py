# SPDX-License-Identifier: MIT
"""A whole run over a recording: tracked in segments, so that it can be interrupted, and then written out. No rclpy."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xmem_ros.bags import messages
from xmem_ros.bags.offline import Offline
from xmem_ros.bags.plan import seconds
from xmem_ros.bags.recording import BagRecording, Fault, RecordedFrame, Recording
from xmem_ros.bags.segments import StoredFrame, Work, lookup_of
from xmem_ros.bags.sinks.bag import BagSink
from xmem_ros.bags.sinks.coco import CocoSink, require_pycocotools
from xmem_ros.bags.sinks.pictures import YTVOS, OverlaySink, PngSink, YouTubeVosSink
from xmem_ros.errors import BagError, ParameterError, SeedError
from xmem_ros.node.compressed import rgb_of
from xmem_ros.objects import MOST_OBJECTS
from xmem_ros.progress import Bar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xmem_ros.bags.offline import TrackedFrame
    from xmem_ros.bags.plan import PlannedSeeds
    from xmem_ros.bags.sinks.base import Sink
    from xmem_ros.node.parameters import Parameters

FORMATS = ('bag', 'png', 'coco', 'ytvos', 'overlay')
SEGMENT = 300  # images between two points at which an interrupted run can go on
SUMMARY = 'track.json'
VERSION = 1  # of what a part folder holds


@dataclass(frozen=True)
class Job:
    """What is to be done, beside recording, seeds and parameters."""

    out: Path  # folder, new or empty; it appears once it is whole
    formats: tuple[str, ...] = ('bag',)  # of FORMATS
    node: str = '/xmem'  # full name of the node whose topics a bag gets
    only_ours: bool = False  # leave the topics of the recording out of the bag
    compressed_labels: bool = False  # label images of the bag as PNG
    segment: int = SEGMENT
    restart: bool = False  # forget what an interrupted run has done


@dataclass
class Report:
    """What came of it."""

    tracked: int = 0  # images
    resumed: int = 0  # of them, by a run before this one
    faults: list[Fault] = field(default_factory=list)  # images that were left out
    damage: str = ''  # why not all of the recording could be read
    missed: list[str] = field(default_factory=list)  # recorded seeds that could not be applied
    left_out: list[str] = field(default_factory=list)  # topics that were not copied, the node's own are written anew
    undefined: list[str] = field(default_factory=list)  # types that were copied without their definition


def check_out(out: Path) -> None:
    """Raise `ParameterError` where results would cover something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ParameterError(f'{out}: is there already and not an empty folder; choose another --out or remove it')


def run(recording: Recording, plan: Sequence[PlannedSeeds], parameters: Parameters, job: Job) -> Report:
    """Track a recording and write what the job asks for.

    A run that was interrupted goes on when the same is asked for again. Where the input turns out to be unusable,
    nothing is left.

    Raises:
        XMemError: of the recording, the seeds, the parameters, the weights, the destination.
    """
    check_out(job.out)
    if 'coco' in job.formats:
        require_pycocotools()
    if 'bag' in job.formats:
        messages.require_rosbags('--format bag')
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # read when CUDA is first used
    offline = Offline(recording, plan, parameters)
    if offline.tracker.device.type == 'cuda':
        torch.use_deterministic_algorithms(True, warn_only=True)
    work = Work(job.out, _identity(recording, plan, parameters, job, offline), restart=job.restart)
    try:
        report = _track(recording, plan, offline, work, job)
        _write(recording, work, job, report, parameters)
        work.deliver()
    except BaseException as error:
        # interrupted, or for want of room: the same command goes on later
        if not work.segments or not isinstance(error, OSError | KeyboardInterrupt):
            work.discard()
        raise
    finally:
        work.close()
    return report


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
        offline.index = index
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
        messages.accepted_seeds(header, item.seeds, item.ids, item.labels)
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
        [messages.serialize(message) for message in accepted],
    )


def _write(recording: Recording, work: Work, job: Job, report: Report, parameters: Parameters) -> None:
    """Write everything that was tracked, in all formats."""
    folder = work.results()
    of_bag = isinstance(recording, BagRecording)
    video = (recording.path.stem if recording.path.is_file() else recording.path.resolve().name) or 'video'
    with ExitStack() as stack:
        sinks: list[Sink] = []
        if 'png' in job.formats:
            sinks.append(PngSink(folder, table=of_bag))
        if 'overlay' in job.formats:
            sinks.append(OverlaySink(folder, _rate(work, recording) if of_bag else recording.rate))
        if 'ytvos' in job.formats:
            sinks.append(YouTubeVosSink(folder, video))
        if 'coco' in job.formats:
            exported = f'{YTVOS}/JPEGImages/{video}/' if 'ytvos' in job.formats else ''
            sinks.append(CocoSink(folder, lambda frame: f'{exported}{frame.name}.jpg'))
        if 'bag' in job.formats:
            originals = recording.bag.connections if isinstance(recording, BagRecording) and not job.only_ours else []
            bag = BagSink(folder, job.node, originals, compressed=job.compressed_labels)
            report.left_out, report.undefined = sorted(bag.left_out), sorted({*bag.undefined})
            sinks.append(bag)
        for sink in sinks:
            stack.enter_context(sink)
        stored = Bar(work.frames(), total=report.tracked, unit='image', desc='writing')
        if isinstance(recording, BagRecording) and any(sink.needs_originals for sink in sinks):
            _write_among(recording, stored, sinks)
        else:
            for frame, image in _with_images(recording, stored, wanted=any(sink.needs_image for sink in sinks)):
                for sink in sinks:
                    sink.write(frame, image)
    if of_bag:
        summary = _summary(recording, report, parameters)
        (folder / SUMMARY).write_text(json.dumps(summary, indent=1) + '\n', encoding='utf-8')


def _rate(work: Work, recording: Recording) -> float:
    """Images a second of what was tracked; a bag may have begun long before its images."""
    count, first_ns, last_ns = work.span()
    rate = (count - 1) * 1e9 / (last_ns - first_ns) if last_ns > first_ns else recording.rate
    return round(min(max(rate, 0.1), 1000.0), 3)


def _with_images(
    recording: Recording, stored: Iterator[StoredFrame], *, wanted: bool
) -> Iterator[tuple[StoredFrame, np.ndarray | None]]:
    if not wanted:
        yield from ((frame, None) for frame in stored)
        return
    frames = recording.frames()
    for frame in stored:
        found = next((item for item in frames if item.index == frame.index), None)
        yield frame, _image(recording, frame, found)


def _write_among(recording: BagRecording, stored: Iterator[StoredFrame], sinks: Sequence[Sink]) -> None:
    """Every message of the bag, and after each image what was tracked in it."""
    needs_image = any(sink.needs_image for sink in sinks)
    index = -1
    stored = iter(stored)
    due = next(stored, None)
    for connection, received_ns, raw in recording.raw([]):
        for sink in sinks:
            sink.original(connection, received_ns, raw)
        if not recording.is_frame(connection):
            continue
        index += 1
        if due is not None and due.index == index:
            image = _image(recording, due, recording.frame_of(index, received_ns, raw)) if needs_image else None
            for sink in sinks:
                sink.write(due, image)
            due = next(stored, None)
    if due is not None:
        raise _changed(recording, due)


def _image(recording: Recording, stored: StoredFrame, found: RecordedFrame | None) -> np.ndarray:
    if found is None or found.stamp_ns != stored.stamp_ns:
        raise _changed(recording, stored)
    return rgb_of(found.message)


def _changed(recording: Recording, stored: StoredFrame) -> BagError:
    return BagError(f'{recording.path}: image {stored.name} is not there any more; begin anew with --restart')


def _summary(recording: Recording, report: Report, parameters: Parameters) -> dict[str, Any]:
    """What `track.json` says; nothing that differs between two runs."""
    return {
        'recording': recording.path.name,
        'image_topic': recording.image_topic,
        'tracked': report.tracked,
        'left_out': [{'index': fault.index, 'reason': fault.reason} for fault in report.faults],
        'damage': report.damage.replace(f'{recording.path}', recording.path.name),
        'seeds_missed': [text.replace(f'{recording.path}', recording.path.name) for text in report.missed],
        'topics_left_out': report.left_out,
        'weights': parameters.weights,
        'threads': torch.get_num_threads(),
    }


def _identity(
    recording: Recording, plan: Sequence[PlannedSeeds], parameters: Parameters, job: Job, offline: Offline
) -> dict[str, str]:
    """What the results depend on, in words that a refusal can show."""
    known = {
        'format of the part folder': VERSION,
        'input': recording.path.resolve(),
        'size of the input': f'{_size(recording.path)} bytes',
        'image topic': recording.image_topic,
        'seeds': _digest(plan),
        'weights': offline.tracker.fingerprint[:16],
        'device': offline.tracker.device,
        'threads': torch.get_num_threads(),
        'torch': torch.__version__,
        'formats': ', '.join(job.formats),
        'node': job.node,
        'only ours': job.only_ours,
        'compressed labels': job.compressed_labels,
        'segment': job.segment,
    }
    known |= {f'parameter {name}': value for name, value in _flat(dataclasses.asdict(parameters), '')}
    return {name: str(value) for name, value in known.items()}


def _flat(values: dict[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f'{above}{name}.')
        else:
            yield f'{above}{name}', value


def _size(path: Path) -> int:
    files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def _hash(found: Any, value: Any) -> None:
    """Everything in a message, whoever made it."""
    if isinstance(value, np.ndarray):
        found.update(value.tobytes())
    elif isinstance(value, list | tuple):
        for item in value:
            _hash(found, item)
    elif hasattr(value, '__dict__'):
        _hash(found, [item for pair in sorted(vars(value).items()) for item in pair])
    else:
        found.update(f'{value!r};'.encode())


def _digest(plan: Sequence[PlannedSeeds]) -> str:
    found = hashlib.sha256()
    for entry in plan:
        place = f'{entry.index} {seconds(entry.stamp_ns or 0)} {entry.ids} {entry.removed} {entry.values}'
        found.update(place.encode())
        _hash(found, entry.seeds)
    return f'{len(plan)} entries, {found.hexdigest()[:16]}'
