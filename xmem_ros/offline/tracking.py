# SPDX-License-Identifier: MIT
"""Offline tracking of a recording's images in order, with the node's code. No rclpy.

with open_recording(path) as recording:
    for tracked in track(recording, recorded_seeds(recording), Parameters()):
        tracked.labels, tracked.objects
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xmem_ros import atomic
from xmem_ros.conversions.seeds import ObjectSeed, read_seeds
from xmem_ros.errors import (
    BagError,
    FrameError,
    MemoryFileMismatchError,
    RunError,
    SeedError,
    UnknownObjectError,
    XMemError,
    summary_of,
)
from xmem_ros.recordings.limits import MAX_FAULTS
from xmem_ros.recordings.plan_state import PlanState, check_count
from xmem_ros.recordings.recording import Fault
from xmem_ros.recordings.seed_plan import describe_choices, resolve
from xmem_ros.stream.frame import Frame
from xmem_ros.stream.history import History
from xmem_ros.stream.memory_files import memory_file
from xmem_ros.stream.session import TrackingSession
from xmem_ros.stream.setup import make_tracker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from xmem_ros.parameters.table import Parameters
    from xmem_ros.recordings.recording import RecordedFrame, Recording
    from xmem_ros.recordings.seed_plan import LoadedFile, PlannedSeeds
    from xmem_ros.tracker import StepResult, TrackedObject, Tracker
    from xmem_ros.tracker.engine import Engines
    from xmem_ros.tracker.snapshot import Snapshot

UNTRACKED = 'so no object is tracked there'  # ends the note on images before the first seed


@dataclass(frozen=True)
class AppliedSeeds:
    """Seeds applied to an image."""

    seeds: tuple[Any, ...]  # xmem_ros/Seed messages, as given
    ids: tuple[int, ...]
    labels: tuple[int, ...]  # labels of these objects


@dataclass(frozen=True)
class TrackedFrame:
    """Tracking results of an image."""

    frame: RecordedFrame
    image: np.ndarray  # H×W×3 uint8 RGB
    labels: np.ndarray  # H×W uint8 of TrackedObject.label; 0 is background
    objects: list[TrackedObject]  # in order of id, with the plan's ids
    result: StepResult  # of the tracker, with the tracker's ids
    applied: list[AppliedSeeds] = field(default_factory=list)  # seeds of this image
    masks: dict[int, np.ndarray] = field(default_factory=dict)  # id → H×W bool, the seeds' masks


@dataclass(frozen=True)
class Checkpoint:
    """State to resume from at the image `index`."""

    index: int
    snapshot: Snapshot
    notes: dict[str, Any]  # JSON types


def track(
    recording: Recording,
    plan: Sequence[PlannedSeeds],
    parameters: Parameters,
    *,
    start: Checkpoint | None = None,
    engines: Engines | None = None,
) -> Iterator[TrackedFrame]:
    """Track every image of a recording; undecodable images are skipped, as by the node.

    Other faults of an image, such as a device error, raise an error; the node drops the image.

    Arguments:
        recording: an open one.
        plan: seeds, by index or stamp of their images.
        parameters: of the node; those of topics, queue and history are ignored.
        start: checkpoint to resume from; None: the beginning.
        engines: cache of loaded weights.

    Raises:
        SeedError, UnknownObjectError: seeds given by the user are unusable, or have no image.
        OutOfMemoryError, EngineError, RunError: a readable image could not be tracked.
        WeightsError, DeviceError, ParameterError, BagError, FrameError: unusable input.
    """
    offline = OfflineTracker(recording, plan, parameters, engines=engines)
    if start is not None:
        offline.restore(start)
    for frame in recording.frames(offline.index):
        tracked = offline.step(frame)
        if tracked is not None:
            yield tracked


class OfflineTracker:
    """Resumable tracker of a recording, image by image; arguments and errors as `track`."""

    def __init__(
        self,
        recording: Recording,
        plan: Sequence[PlannedSeeds],
        parameters: Parameters,
        *,
        engines: Engines | None = None,
    ) -> None:
        self._recording = recording
        self.places, missed = resolve(plan, recording)  # places: image index → its seeds
        self._plan = PlanState(self.places, (SeedError,))
        self._plan.missed = missed
        self.tracker = make_tracker(parameters, engines)
        self._captured = _CapturedOutput()
        self._tracking = TrackingSession(
            self.tracker, lambda: parameters, History(1), self._captured, self._captured, strict=True
        )
        self._memory_folder = parameters.memory_folder
        self.index = 0  # of the next image
        self.dropped: list[Fault] = []  # images that could not be tracked
        # on the input and the seeds, and warnings that the node would log
        self.notes: list[str] = [*recording.notes, *describe_choices(self.places)]
        self.seeded = False  # whether any seed was applied
        given = [index for index, entries in self.places.items() if not entries[0].recorded]
        if given and (first := min(self.places)) > 0:
            which = f'images 0 to {first - 1} precede' if first > 1 else 'image 0 precedes'
            self.notes.append(f'{which} the first seed, {UNTRACKED}')

    @property
    def missed(self) -> list[str]:
        """Unusable recorded seeds, and why."""
        return self._plan.missed

    def step(self, frame: RecordedFrame) -> TrackedFrame | None:
        """Track the next image; None, with an entry in `dropped`, if it is unusable."""
        self.skip_to(frame.index)
        entries = self.places.get(frame.index, [])
        self.index = frame.index + 1
        self._captured.clear()
        work = Frame(frame.message, frame.stamp_ns)
        applied: list[AppliedSeeds] = []
        masks: dict[int, np.ndarray] = {}
        try:
            if entries:
                applied, masks = self._seed(frame, work)
            else:
                self._tracking.track(work)
        except FrameError as error:
            if any(not entry.recorded for entry in entries):
                raise FrameError(f'{entries[0].source}: image {frame.name} cannot be used: {error}') from error
            self._captured.warnings.append(str(error))
        except XMemError:
            raise
        except Exception as error:
            text = f'{self._recording.path}: image {frame.name} cannot be tracked ({summary_of(error)})'
            raise RunError(text) from error
        captured = self._captured
        if captured.result is None or captured.image is None:
            reason = '; '.join(captured.warnings) or 'not tracked'
            if len(self.dropped) >= MAX_FAULTS:
                raise BagError(
                    f'{self._recording.path}: more than {MAX_FAULTS} images cannot be used; the last: {reason}'
                )
            self.dropped.append(Fault(frame.index, reason))
            self.missed.extend(
                f'{entry.source}: its image {frame.name} cannot be used' for entry in entries if not entry.after
            )
            changes = [entry for entry in entries if entry.after]  # take place before the next image
            if changes:
                self.places[frame.index + 1] = changes + self.places.get(frame.index + 1, [])
            return None
        alive = {item.id for item in captured.result.objects}
        self._plan.keep(alive)
        self.notes += [f'image {frame.name}: {text}' for text in captured.warnings]
        id_of = self._plan.plan_ids
        objects = [dataclasses.replace(item, id=id_of[item.id]) for item in captured.result.objects]
        objects.sort(key=lambda item: item.id)
        return TrackedFrame(frame, captured.image, captured.result.labels, objects, captured.result, applied, masks)

    def skip_to(self, index: int) -> None:
        """Skip unreadable images before `index`; `FrameError` if the user gave one a seed."""
        for skipped in range(self.index, index):
            for entry in self.places.get(skipped, []):
                reason = next((fault.reason for fault in self._recording.faults if fault.index == skipped), 'missing')
                text = f'{entry.source}: image {skipped} of {self._recording.path} cannot be used: {reason}'
                if not entry.recorded:
                    raise FrameError(text)
                self.missed.append(text)
        self.index = max(self.index, index)

    def unreached(self) -> list[str]:
        """Describe the seeds for images beyond the last tracked one."""
        return self._plan.unreached(self.index)

    def checkpoint(self) -> Checkpoint:
        """Return the state to resume from."""
        notes = {
            'plan': self._plan.export_state(),
            'seeded': self.seeded,
            'clock': self._tracking.clock,
            'intensity': self._tracking.scale.state,
            'dropped': [[fault.index, fault.reason] for fault in self.dropped],
            'notes': self.notes,
        }
        return Checkpoint(self.index, self.tracker.export_state(), notes)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Resume from a checkpoint of the same recording, plan and parameters.

        Raises:
            MemoryFileError: the snapshot is unusable.
        """
        self._tracking.import_state(checkpoint.snapshot)
        notes = checkpoint.notes
        self.index = checkpoint.index
        self._plan.import_state(notes['plan'])
        self.seeded = bool(notes['seeded'])
        self._tracking.clock = (int(notes['clock'][0]), int(notes['clock'][1]))
        kind, low, high = notes['intensity']
        self._tracking.scale.state = (str(kind), float(low), float(high))
        self.dropped = [Fault(int(index), str(reason)) for index, reason in notes['dropped']]
        self.notes = [str(text) for text in notes['notes']]

    def _seed(self, frame: RecordedFrame, work: Frame) -> tuple[list[AppliedSeeds], dict[int, np.ndarray]]:
        """Apply an image's seeds and track it."""
        host = _TrackerHost(self.tracker, self._tracking, work, self.notes, self._plan.ids, self._memory_folder)
        wanted, used = self._plan.gather(frame.index, frame.name, host)
        self.seeded |= any(entry.loaded for entry in used)
        if not wanted:
            self._tracking.track(work)
            return [AppliedSeeds(entry.seeds, (), ()) for entry in used if entry.seeds], {}
        ids = self._plan.ids
        seeds = [dataclasses.replace(seed, id=ids.get(plan_id, 0)) for plan_id, seed in wanted.items()]
        try:
            given, labels = self._tracking.seed(work, seeds)
        except (SeedError, UnknownObjectError) as error:
            for entry in used:
                self._plan.refuse(entry, frame.name, error)
            return [], {}
        self.seeded = True
        self._plan.record_applied(dict(zip(wanted, given, strict=True)), used)
        label_of = dict(zip(wanted, labels, strict=True))
        applied = []
        for entry in used:
            known = [object_id for object_id in entry.ids if object_id in label_of]
            if known:
                applied.append(
                    AppliedSeeds(entry.seeds, tuple(known), tuple(label_of[object_id] for object_id in known))
                )
        return applied, {object_id: seed.mask for object_id, seed in wanted.items()}


class _TrackerHost:
    """`SeedHost` by the tracker in this process, for the seeds of one image."""

    def __init__(
        self,
        tracker: Tracker,
        tracking: TrackingSession,
        frame: Frame,
        notes: list[str],
        ids: Mapping[int, int],
        memory_folder: str,
    ) -> None:
        self._tracker, self._tracking, self._frame, self._notes = tracker, tracking, frame, notes
        self._ids, self._folder = ids, memory_folder  # plan id → tracker's id; as the parameter
        self._image = tracking.image_of(frame.message)

    def read(self, entry: PlannedSeeds) -> dict[int, ObjectSeed]:
        """As `SeedHost.read`."""
        if not entry.seeds:
            return {}
        most, notes = self._tracker.config.max_objects, self._notes
        found = read_seeds(
            entry.seeds,
            self._image,
            most,
            lambda: self._tracking.seeder,
            say=notes.append,
            field=entry.recorded,
            mask_of=lambda object_id: self._tracking.mask_of(self._frame, self._ids.get(object_id, 0)),
        )
        check_count(entry, len(found))
        return dict(zip(entry.ids, found, strict=True))

    def reset(self) -> None:
        """As `SeedHost.reset`."""
        self._tracking.reset()

    def remove(self, ids: list[int]) -> None:
        """As `SeedHost.remove`."""
        self._tracking.remove(ids)

    def load(self, file: LoadedFile) -> list[int]:
        """As `SeedHost.load`."""
        from xmem_ros.tracker import snapshot

        path = memory_file(self._folder, file.name)
        saved = snapshot.read(path, self._tracker.fingerprint)
        if atomic.sha256_of(path) != file.sha256:
            raise MemoryFileMismatchError(f'{path} is not the file that was loaded; give that one (memory_folder)')
        ids, _ = self._tracking.import_state(saved)
        if tuple(ids) != file.ids:
            self._tracking.reset()
            raise MemoryFileMismatchError(f'{path} has the objects {ids}, and the recording names {list(file.ids)}')
        return ids

    def named(self, seed: ObjectSeed, name: str) -> ObjectSeed:
        """As `SeedHost.named`."""
        return dataclasses.replace(seed, name=name)


class _CapturedOutput:
    """Output and logger for `TrackingSession` that store one image's results and warnings."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget the previous image."""
        self.image: np.ndarray | None = None
        self.result: StepResult | None = None
        self.warnings: list[str] = []

    def publish(self, header: Any, image: np.ndarray, result: StepResult, begun: float) -> None:  # noqa: ARG002
        """As `Outputs.publish`."""
        self.image, self.result = image, result

    def set_objects(self, objects: Sequence[TrackedObject]) -> None:
        """Ignore the objects; the result of the next image contains them."""

    def warning(self, text: str, **_: Any) -> None:
        """Keep a log message."""
        self.warnings.append(text)

    error = info = warning
