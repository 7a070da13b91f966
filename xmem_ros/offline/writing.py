# SPDX-License-Identifier: MIT
"""Writing of stored results in all requested formats. No rclpy."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch

from xmem_ros.conversions.compressed_images import rgb_of
from xmem_ros.errors import BagError, Setting, naming
from xmem_ros.intensity import IntensityScale
from xmem_ros.offline.sinks.annotations import LABELME, MOTS, YOLO, LabelmeSink, MotsSink, YoloSink
from xmem_ros.offline.sinks.bag import BagSink
from xmem_ros.offline.sinks.coco import CocoSink
from xmem_ros.offline.sinks.pictures import YTVOS, OverlaySink, PngSink, YouTubeVosSink
from xmem_ros.progress import Bar
from xmem_ros.recordings.limits import LOST
from xmem_ros.recordings.recording import BagRecording, RecordedFrame, Recording

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy as np

    from xmem_ros.offline.job import Job, Report
    from xmem_ros.offline.run_folder import RunFolder
    from xmem_ros.offline.segments import StoredFrame
    from xmem_ros.offline.sinks.base import Sink
    from xmem_ros.parameters.table import Parameters

SUMMARY = 'track.json'
_FOR_TOOLS: dict[str, Callable[[Path], Sink]] = {YOLO: YoloSink, LABELME: LabelmeSink, MOTS: MotsSink}


def write_results(
    recording: Recording,
    work: RunFolder,
    frames: Iterator[StoredFrame],
    job: Job,
    report: Report,
    parameters: Parameters,
) -> None:
    """Write stored frames, one for each tracked image in order, in the job's formats."""
    folder = work.results()
    is_bag = isinstance(recording, BagRecording)
    video = (recording.path.stem if recording.path.is_file() else recording.path.resolve().name) or 'video'
    with ExitStack() as stack:
        sinks: list[Sink] = []
        if 'png' in job.formats:
            sinks.append(PngSink(folder, table=is_bag))
        if 'overlay' in job.formats:
            sinks.append(OverlaySink(folder, _rate(work, recording) if is_bag else None))
        if 'ytvos' in job.formats:
            sinks.append(YouTubeVosSink(folder, video))
        sinks += [make(folder) for name, make in _FOR_TOOLS.items() if name in job.formats]
        if 'coco' in job.formats:
            exported = f'{YTVOS}/JPEGImages/{video}' if 'ytvos' in job.formats else ''
            sinks.append(CocoSink(folder, _coco_names(folder, recording, exported)))
        if 'bag' in job.formats:
            originals = recording.bag.connections if isinstance(recording, BagRecording) and not job.only_ours else []
            bag = BagSink(folder, job.node, originals, recording.image_topic, compressed=job.compressed_labels)
            report.left_out, report.undefined = sorted(bag.left_out), sorted({*bag.undefined})
            sinks.append(bag)
        for sink in sinks:
            stack.enter_context(sink)
        stored = Bar(frames, total=report.tracked, unit='image', desc='writing')
        if isinstance(recording, BagRecording) and any(sink.needs_originals for sink in sinks):
            _write_among_originals(recording, stored, sinks)
        else:
            for frame, image in _with_images(recording, stored, wanted=any(sink.needs_image for sink in sinks)):
                for sink in sinks:
                    sink.write(frame, image)
    if is_bag:
        summary = _summary(recording, report, parameters)
        (folder / SUMMARY).write_text(json.dumps(summary, indent=1) + '\n', encoding='utf-8')


def _coco_names(folder: Path, recording: Recording, exported: str) -> Callable[[StoredFrame], str | None]:
    """Return a function from frame to COCO file name; it returns None for unexported images.

    exported: subfolder of images that are written before the annotations; '' if none are.
    """

    def name_of(frame: StoredFrame) -> str | None:
        if frame.name in recording.file_names:
            return recording.file_names[frame.name]
        if not exported:
            return f'{frame.name}.jpg'
        name = f'{exported}/{frame.name}.jpg'
        return name if (folder / name).is_file() else None

    return name_of


def _rate(work: RunFolder, recording: Recording) -> float:
    """Return the rate of the tracked images [1/s], since a bag can start long before them."""
    count, first_ns, last_ns = work.span()
    rate = (count - 1) * 1e9 / (last_ns - first_ns) if last_ns > first_ns else recording.rate
    return round(min(max(rate, 0.1), 1000.0), 3)


def _with_images(
    recording: Recording, stored: Iterator[StoredFrame], *, wanted: bool
) -> Iterator[tuple[StoredFrame, np.ndarray | None]]:
    if not wanted:
        yield from ((frame, None) for frame in stored)
        return
    frames, scale = recording.frames(), IntensityScale()
    for frame in stored:
        found = next((item for item in frames if item.index == frame.index), None)
        yield frame, _image(recording, frame, found, scale)


def _write_among_originals(recording: BagRecording, stored: Iterator[StoredFrame], sinks: Sequence[Sink]) -> None:
    """Write every message of the bag, and after each image its results."""
    needs_image = any(sink.needs_image for sink in sinks)
    index, scale = -1, IntensityScale()
    stored = iter(stored)
    due = next(stored, None)
    for connection, received_ns, raw in recording.raw([]):
        if raw is not LOST:
            for sink in sinks:
                sink.original(connection, received_ns, raw)
        if not recording.is_frame(connection):
            continue
        index += 1
        if due is not None and due.index == index:
            found = recording.frame_of(index, received_ns, raw) if needs_image else None
            image = _image(recording, due, found, scale) if needs_image else None
            for sink in sinks:
                sink.write(due, image)
            due = next(stored, None)
    if due is not None:
        raise _changed_error(recording, due)


def _image(recording: Recording, stored: StoredFrame, found: RecordedFrame | None, scale: IntensityScale) -> np.ndarray:
    if found is None or found.stamp_ns != stored.stamp_ns:
        raise _changed_error(recording, stored)
    return rgb_of(found.message, scale)


def _changed_error(recording: Recording, stored: StoredFrame) -> Exception:
    text = f'{recording.path}: image {stored.name} is missing or has changed; start over'
    return naming(Setting.RESTART, BagError(text))


def _summary(recording: Recording, report: Report, parameters: Parameters) -> dict[str, Any]:
    """Return the content of `track.json`; repeated runs give the same."""
    return {
        'recording': recording.path.name,
        'image_topic': recording.image_topic,
        'tracked': report.tracked,
        'left_out': [{'index': fault.index, 'reason': fault.reason} for fault in report.faults],
        'damage': report.damage.replace(f'{recording.path}', recording.path.name),
        'seeds_missed': [text.replace(f'{recording.path}', recording.path.name) for text in report.missed],
        'notes': report.notes,
        'topics_left_out': report.left_out,
        'weights': parameters.weights,
        'threads': torch.get_num_threads(),
    }
