# SPDX-License-Identifier: MIT
"""What has been tracked so far, in a folder beside the destination: whole segments, and where to go on. No rclpy.

A segment is one file, which takes its name once it is whole; the tracker's memory at its end lies beside it. A run that
was killed has all of its whole segments, and begins the next one again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from xmem_ros import atomic, work_folder
from xmem_ros.errors import MemoryFileError, OutputError, ParameterError, XMemError
from xmem_ros.objects import ObjectState, TrackedObject
from xmem_ros.offline import destination
from xmem_ros.offline.destination import check_name, check_out, part_of
from xmem_ros.offline.job import CONTENT, SEEDS
from xmem_ros.offline.tracking import Checkpoint
from xmem_ros.tracker import snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RESULTS = 'results'  # folder that becomes the destination
_FRAMES = 'frames.jsonl'
_STATE = 'state.json'
_IDENTITY = 'run.json'


@dataclass(frozen=True)
class StoredFrame:
    """What is kept of a tracked image, and what every output is made of."""

    index: int
    stamp_ns: int
    received_ns: int
    frame_id: str
    name: str
    labels: np.ndarray  # H×W uint8: as the node publishes them
    values: np.ndarray  # H×W uint8: as mask files have them: seeds shown exactly, the values of a given mask kept
    objects: list[TrackedObject]
    value_of: dict[int, int]  # id → value in `values`
    seeds: list[bytes]  # xmem_ros/AcceptedSeeds of this image, serialized


class SegmentWriter:
    """Writes one segment, frame by frame."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, atomic.Replacement(path)
        self._zip = zipfile.ZipFile(self._file.path, 'w')
        self._lines: list[str] = []

    def add(self, frame: StoredFrame) -> None:
        """Append a frame."""
        self._picture(f'{frame.index}.labels.png', frame.labels)
        lookup = lookup_of(frame.objects, frame.value_of)
        exact = bool((lookup[frame.labels] != frame.values).any())
        if exact:
            self._picture(f'{frame.index}.values.png', frame.values)
        for number, raw in enumerate(frame.seeds):
            self._put(f'{frame.index}.seeds.{number}', raw)
        line = {
            'index': frame.index,
            'stamp_ns': frame.stamp_ns,
            'received_ns': frame.received_ns,
            'frame_id': frame.frame_id,
            'name': frame.name,
            'objects': [_saved(item) for item in frame.objects],
            'value_of': sorted(frame.value_of.items()),
            'seeds': len(frame.seeds),
            'exact': exact,
        }
        self._lines.append(json.dumps(line))

    def finish(self, state: dict[str, Any]) -> None:
        """Give the file its name; state: what JSON holds, of where the next segment begins."""
        self._put(_FRAMES, '\n'.join(self._lines).encode())
        self._put(_STATE, json.dumps(state).encode())
        self._zip.close()
        self._file.commit()

    def abandon(self) -> None:
        """Close without giving the file its name."""
        with contextlib.suppress(OSError, ValueError):  # of a disk that is full
            self._zip.close()
        self._file.discard()

    def _picture(self, name: str, pixels: np.ndarray) -> None:
        done, data = cv2.imencode('.png', pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        if not done:
            raise OutputError(f'{self._path}: a label image {pixels.shape} cannot be written as PNG')
        self._put(name, data.tobytes())

    def _put(self, name: str, data: bytes) -> None:
        self._zip.writestr(name, data)


def lookup_of(objects: list[TrackedObject], value_of: Mapping[int, int]) -> np.ndarray:
    """256 uint8: label → value in mask files."""
    lookup = np.zeros(256, np.uint8)
    for item in objects:
        lookup[item.label] = value_of[item.id]
    return lookup


class Work:
    """The folder in which a run is made: `.NAME.part` beside the destination. Holds a lock while it is open.

    Arguments:
        out: the destination.
        identity: everything that the results depend on, in words; a run goes on only with the same.
        restart: begin anew whatever is there.

    Raises:
        ParameterError: another run is at it, or what is there was begun with other arguments.
        OutputError: the folder cannot be made.
    """

    def __init__(self, out: Path, identity: Mapping[str, str], *, restart: bool = False) -> None:
        self.out, self.folder = out, part_of(out)
        check_name(out)
        self._lock = work_folder.claim(self.folder, 'another run')
        try:
            check_out(out)  # again: another run may have delivered since
            self._begin(dict(identity), restart=restart)
        except BaseException as error:
            if not (self.folder / _IDENTITY).exists():
                self.discard()
            self._lock.close()
            if isinstance(error, OSError):
                raise OutputError(
                    f'{self.folder}: cannot be written ({error.strerror}); choose another --out'
                ) from error
            raise

    @property
    def segments(self) -> list[Path]:
        """The whole segments, in order."""
        return sorted(self.folder.glob('segment_*.zip'))

    def latest(self, weights: str) -> tuple[Checkpoint, dict[str, Any]] | None:
        """Where to go on, and the state that was stored with it; None at the beginning. weights: their fingerprint."""
        segments = self.segments
        if not segments:
            return None
        try:
            with zipfile.ZipFile(segments[-1]) as file:
                state = json.loads(file.read(_STATE))
            saved = snapshot.read(self._memory(len(segments)), weights)
        except (XMemError, OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ParameterError(
                f'{self.folder}: what an interrupted run left is damaged ({error}); begin anew with --restart'
            ) from error
        return Checkpoint(int(state['index']), saved, state['notes']), state

    def segment(self) -> SegmentWriter:
        """Begin the next segment."""
        return SegmentWriter(self.folder / f'segment_{len(self.segments):06d}.zip')

    def finish_segment(self, writer: SegmentWriter, checkpoint: Checkpoint, more: dict[str, Any]) -> Checkpoint:
        """Keep a segment and where the next one begins.

        Returns the checkpoint as it was written, to go on from: so a run that was interrupted and one that was not
        compute the same. Raises `OutputError`; the segments before it, and where they end, are as they were.
        """
        number = len(self.segments) + 1
        path = self._memory(number)
        try:
            snapshot.write(checkpoint.snapshot, path)
        except MemoryFileError as error:
            raise OutputError(f'{path}: cannot be written ({error.__cause__})') from error
        writer.finish({'index': checkpoint.index, 'notes': checkpoint.notes, **more})
        self._memory(number - 1).unlink(missing_ok=True)
        return Checkpoint(checkpoint.index, snapshot.read(path, checkpoint.snapshot.weights), checkpoint.notes)

    def frames(self) -> Iterator[StoredFrame]:
        """Yield all that was tracked, in order. Raises `ParameterError` where a segment is damaged."""
        for path in self.segments:
            try:
                with zipfile.ZipFile(path) as file:
                    for line in io.BytesIO(file.read(_FRAMES)):
                        yield _stored(file, json.loads(line))
            except (KeyError, ValueError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
                raise ParameterError(f'{path}: damaged ({error}); begin anew with --restart') from error

    def span(self) -> tuple[int, int, int]:
        """How many images were tracked, and when the first and the last of them were recorded [ns]."""
        count, times = 0, []
        for path in self.segments:
            with zipfile.ZipFile(path) as file:
                lines = file.read(_FRAMES).splitlines()
            count += len(lines)
            times += [json.loads(line)['received_ns'] for line in lines[:1] + lines[-1:]]
        return count, min(times, default=0), max(times, default=0)

    def results(self) -> Path:
        """An empty folder for the results."""
        folder = self.folder / RESULTS
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def deliver(self) -> None:
        """Rename the results into place, and forget the rest; raises `OutputError`."""
        destination.deliver(self.folder / RESULTS, self.out)
        self.discard()

    def discard(self) -> None:
        """Forget all that was done."""
        destination.discard(self.out)

    def close(self) -> None:
        """Let others at it."""
        self._lock.close()

    def _memory(self, number: int) -> Path:
        return self.folder / f'memory_{number:06d}.safetensors'

    def _begin(self, identity: dict[str, str], *, restart: bool) -> None:
        noted = self.folder / _IDENTITY
        if not restart and noted.is_file():
            try:
                before = json.loads(noted.read_text(encoding='utf-8'))
            except (ValueError, RecursionError):
                before = {}
            before = before if isinstance(before, dict) else {}
            reached = self._reached()
            changed = sorted(
                key
                for key in {*identity, *before}
                if identity.get(key) != before.get(key)
                # seeds of images that are still to come may be put right
                and not (key.startswith(SEEDS) and _index(key) >= reached)
            )
            told = '; '.join(f'{key}: {before.get(key)}, now {identity.get(key)}' for key in changed)
            if changed == [CONTENT]:
                raise ParameterError(
                    f'{self.folder}: an interrupted run was begun on an input that has changed since ({told}): put the '
                    'same files there again to go on, --restart to begin anew, or another --out'
                )
            if changed:
                raise ParameterError(
                    f'{self.folder}: an interrupted run was begun with other arguments ({told}): give the same to go '
                    'on, --restart to begin anew, or another --out'
                )
            for left in self.folder.glob(f'*{atomic.PART}'):
                left.unlink(missing_ok=True)
            if identity != before:
                _note(noted, identity)
            return
        work_folder.empty(self.folder)
        _note(noted, identity)

    def _reached(self) -> int:
        """Index of the first image after the whole segments; 0 where that cannot be read, which `latest` says."""
        try:
            with zipfile.ZipFile(self.segments[-1]) as file:
                return int(json.loads(file.read(_STATE))['index'])
        except (IndexError, OSError, KeyError, ValueError, zipfile.BadZipFile):
            return 0


def _index(key: str) -> int:
    """Of the image that an entry of an identity is about; −1 for an entry that no run wrote."""
    number = key.removeprefix(SEEDS)
    return int(number) if number.isdecimal() and len(number) < 10 else -1


def _note(noted: Path, identity: dict[str, str]) -> None:
    atomic.write_text(noted, json.dumps(identity, indent=1))


def _saved(item: TrackedObject) -> dict[str, Any]:
    values = dataclasses.asdict(item)
    if item.box is None:
        values['centroid'] = None  # NaN is not JSON
    return values


def _stored(file: zipfile.ZipFile, line: dict[str, Any]) -> StoredFrame:
    index = line['index']
    labels = _read(file, f'{index}.labels.png')
    objects = []
    for values in line['objects']:
        values['state'] = ObjectState(values['state'])
        values['box'] = tuple(values['box']) if values['box'] else None
        values['centroid'] = tuple(values['centroid']) if values['centroid'] else (math.nan, math.nan)
        objects.append(TrackedObject(**values))
    value_of = dict(line['value_of'])
    exact = _read(file, f'{index}.values.png') if line['exact'] else lookup_of(objects, value_of)[labels]
    seeds = [file.read(f'{index}.seeds.{number}') for number in range(line['seeds'])]
    return StoredFrame(
        index,
        line['stamp_ns'],
        line['received_ns'],
        line['frame_id'],
        line['name'],
        labels,
        exact,
        objects,
        value_of,
        seeds,
    )


def _read(file: zipfile.ZipFile, name: str) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(file.read(name), np.uint8), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise ValueError(f'{name} cannot be decoded')
    return pixels
