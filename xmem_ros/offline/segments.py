# SPDX-License-Identifier: MIT
"""Segments of a pass over a recording, and the checkpoint to resume from. No rclpy.

A segment is one file, renamed when it is complete, with the tracker's memory at its end beside
it. A killed run keeps its complete segments and repeats the next one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from xmem_ros import atomic
from xmem_ros.errors import MemoryFileError, OutputError, ParameterError, Setting, XMemError, naming, summary_of
from xmem_ros.objects import ObjectState, TrackedObject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeVar

    from xmem_ros.offline.tracking import Checkpoint

    T = TypeVar('T')

_FRAMES = 'frames.jsonl'
_STATE = 'state.json'
# of a segment that was damaged, or not written by a run
_DAMAGE = (
    KeyError,
    IndexError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    OSError,
    OverflowError,
    cv2.error,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
)


@dataclass(frozen=True)
class StoredFrame:
    """Stored results of an image, from which every output format is written."""

    index: int
    stamp_ns: int
    received_ns: int
    frame_id: str
    name: str
    labels: np.ndarray  # H×W uint8, as the node publishes them
    values: np.ndarray  # H×W uint8, for mask files: with the exact seeds and the user's values
    objects: list[TrackedObject]
    value_of: dict[int, int]  # id → value in `values`
    seeds: list[bytes]  # serialized xmem_ros/AcceptedSeeds of this image
    seeded: tuple[int, ...] = ()  # ids of the objects seeded in this image


class SegmentWriter:
    """Writer of one segment, frame by frame."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, atomic.Replacement(path)
        self._zip = zipfile.ZipFile(self._file.path, 'w')
        self._lines: list[str] = []

    def add(self, frame: StoredFrame) -> None:
        """Append a frame."""
        self._put_png(f'{frame.index}.labels.png', frame.labels)
        lookup = lookup_of(frame.objects, frame.value_of)
        exact = bool((lookup[frame.labels] != frame.values).any())
        if exact:
            self._put_png(f'{frame.index}.values.png', frame.values)
        for number, raw in enumerate(frame.seeds):
            self._put(f'{frame.index}.seeds.{number}', raw)
        line = {
            'index': frame.index,
            'stamp_ns': frame.stamp_ns,
            'received_ns': frame.received_ns,
            'frame_id': frame.frame_id,
            'name': frame.name,
            'objects': [_object_to_json(item) for item in frame.objects],
            'value_of': sorted(frame.value_of.items()),
            'seeds': len(frame.seeds),
            'seeded': frame.seeded,
            'exact': exact,
        }
        self._lines.append(json.dumps(line))

    def finish(self, state: dict[str, Any]) -> None:
        """Complete the file; state: of the run at its end, in JSON types."""
        self._put(_FRAMES, '\n'.join(self._lines).encode())
        self._put(_STATE, json.dumps(state).encode())
        self._zip.close()
        self._file.commit()

    def abandon(self) -> None:
        """Close and discard the file."""
        with contextlib.suppress(OSError, ValueError):  # the disk may be full
            self._zip.close()
        self._file.discard()

    def _put_png(self, name: str, pixels: np.ndarray) -> None:
        done, data = cv2.imencode('.png', pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        if not done:
            raise OutputError(f'{self._path}: a label image {pixels.shape} cannot be written as PNG')
        self._put(name, data.tobytes())

    def _put(self, name: str, data: bytes) -> None:
        self._zip.writestr(name, data)


def lookup_of(objects: list[TrackedObject], value_of: Mapping[int, int]) -> np.ndarray:
    """Return the table label → value in mask files, 256 uint8."""
    lookup = np.zeros(256, np.uint8)
    for item in objects:
        lookup[item.label] = value_of[item.id]
    return lookup


class Segments:
    """The complete segments of a pass.

    Arguments:
        folder: work folder of the run.
        prefix: of the names of the pass's files.
    """

    def __init__(self, folder: Path, prefix: str = '') -> None:
        self.folder, self._prefix = folder, prefix

    @property
    def segments(self) -> list[Path]:
        """The complete segments, in order."""
        return sorted(self.folder.glob(f'{self._prefix}segment_*.zip'))

    def latest(self, weights: str) -> tuple[Checkpoint, dict[str, Any]] | None:
        """Return the newest checkpoint and its state; None without segments.

        weights: fingerprint of the weights.
        """
        segments = self.segments
        if not segments:
            return None
        from xmem_ros.offline.tracking import Checkpoint
        from xmem_ros.tracker import snapshot

        try:
            with _open_segment(segments[-1]) as file:
                state = json.loads(file.read(_STATE))
            saved = snapshot.read(self._memory(len(segments)), weights)
            return Checkpoint(int(state['index']), saved, state['notes']), state
        except (XMemError, *_DAMAGE) as error:
            raise self.damaged(error) from error

    def damaged(self, error: Exception) -> Exception:
        """Make the error for unusable work of an interrupted run."""
        text = f'{self.folder}: the work of an interrupted run is damaged ({summary_of(error)}); start over'
        return naming(Setting.RESTART, ParameterError(text))

    def segment(self) -> SegmentWriter:
        """Begin the next segment."""
        return SegmentWriter(self.folder / f'{self._prefix}segment_{len(self.segments):06d}.zip')

    def finish_segment(self, writer: SegmentWriter, checkpoint: Checkpoint, more: dict[str, Any]) -> Checkpoint:
        """Complete a segment and store the checkpoint after it.

        Returns the checkpoint as read back from the file, so that interrupted and uninterrupted
        runs have equal results. Raises `OutputError`; earlier segments and their checkpoint stay
        unchanged.
        """
        from xmem_ros.offline.tracking import Checkpoint
        from xmem_ros.tracker import snapshot

        number = len(self.segments) + 1
        path = self._memory(number)
        try:
            snapshot.write(checkpoint.snapshot, path)
        except MemoryFileError as error:
            raise OutputError(f'{path}: cannot be written ({error.__cause__})') from error
        writer.finish({'index': checkpoint.index, 'notes': checkpoint.notes, **more})
        self._memory(number - 1).unlink(missing_ok=True)
        return Checkpoint(checkpoint.index, snapshot.read(path, checkpoint.snapshot.weights), checkpoint.notes)

    def frames(self, *, newest_first: bool = False) -> Iterator[StoredFrame]:
        """Yield all stored frames in order; raises `ParameterError` for a damaged segment."""
        return self._read(_read_frame, newest_first=newest_first)

    def seeded(self) -> Iterator[tuple[int, frozenset[int]]]:
        """Yield the index of each stored frame and the ids seeded there; errors as `frames`."""
        return self._read(lambda _, line: (int(line['index']), frozenset(map(int, line['seeded']))))

    def span(self) -> tuple[int, int, int]:
        """Return the number of tracked images and the recording times of first and last [ns]."""
        count, times = 0, []
        for path in self.segments:
            try:
                with _open_segment(path) as file:
                    lines = file.read(_FRAMES).splitlines()
                count += len(lines)
                times += [int(json.loads(line)['received_ns']) for line in lines[:1] + lines[-1:]]
            except _DAMAGE as error:
                raise _damaged_segment(path, error) from error
        return count, min(times, default=0), max(times, default=0)

    def next_index(self) -> int:
        """Return the index of the image after the segments; 0 if unreadable (`latest` raises)."""
        try:
            with _open_segment(self.segments[-1]) as file:
                return int(json.loads(file.read(_STATE))['index'])
        except _DAMAGE:
            return 0

    def _read(self, read: Callable[[zipfile.ZipFile, dict[str, Any]], T], *, newest_first: bool = False) -> Iterator[T]:
        for path in self.segments[:: -1 if newest_first else 1]:
            try:
                with _open_segment(path) as file:
                    for line in file.read(_FRAMES).splitlines()[:: -1 if newest_first else 1]:
                        yield read(file, json.loads(line))
            except _DAMAGE as error:
                raise _damaged_segment(path, error) from error

    def _memory(self, number: int) -> Path:
        return self.folder / f'{self._prefix}memory_{number:06d}.safetensors'


def _damaged_segment(path: Path, error: Exception) -> Exception:
    return naming(Setting.RESTART, ParameterError(f'{path}: damaged ({summary_of(error)}); start over'))


def _open_segment(path: Path) -> zipfile.ZipFile:
    """Open a segment, whose entries are stored: a compressed one could unpack to any size."""
    file = zipfile.ZipFile(path)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in file.infolist()):
        file.close()
        raise ValueError('its entries are compressed')
    return file


def _object_to_json(item: TrackedObject) -> dict[str, Any]:
    values = dataclasses.asdict(item)
    if item.box is None:
        values['centroid'] = None  # NaN is not JSON
    return values


def _read_frame(file: zipfile.ZipFile, line: dict[str, Any]) -> StoredFrame:
    index = line['index']
    labels = _read_png(file, f'{index}.labels.png')
    objects = []
    for values in line['objects']:
        values['state'] = ObjectState(values['state'])
        values['box'] = tuple(values['box']) if values['box'] else None
        values['centroid'] = tuple(values['centroid']) if values['centroid'] else (math.nan, math.nan)
        objects.append(TrackedObject(**values))
    value_of = dict(line['value_of'])
    exact = _read_png(file, f'{index}.values.png') if line['exact'] else lookup_of(objects, value_of)[labels]
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
        tuple(line['seeded']),
    )


def _read_png(file: zipfile.ZipFile, name: str) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(file.read(name), np.uint8), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise ValueError(f'{name} cannot be decoded')
    return pixels
