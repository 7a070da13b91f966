# SPDX-License-Identifier: MIT
"""Every image of a recording tracked in order, by the node's own code. No rclpy.

with open_recording(path) as recording:
    for tracked in track(recording, recorded_seeds(recording), Parameters()):
        tracked.labels, tracked.objects
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xmem_ros.conversions.compressed_images import MOST_PIXELS, rgb_of
from xmem_ros.conversions.seeds import ObjectSeed, read_seeds
from xmem_ros.errors import FrameError, RunError, SeedError, UnknownObjectError, XMemError, told
from xmem_ros.recordings.recording import Fault
from xmem_ros.recordings.seed_plan import begins_again, check_removed, guesses, resolve
from xmem_ros.stream.frame import Frame
from xmem_ros.stream.history import History
from xmem_ros.stream.session import Tracking, make_tracker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xmem_ros.parameters.table import Parameters
    from xmem_ros.recordings.recording import RecordedFrame, Recording
    from xmem_ros.recordings.seed_plan import PlannedSeeds
    from xmem_ros.tracker import StepResult, TrackedObject
    from xmem_ros.tracker.engine import Engines
    from xmem_ros.tracker.snapshot import Snapshot


@dataclass(frozen=True)
class Applied:
    """Seeds that were applied on an image."""

    seeds: tuple[Any, ...]  # xmem_ros/Seed messages, as they were given
    ids: tuple[int, ...]
    labels: tuple[int, ...]  # pixel values of these objects


@dataclass(frozen=True)
class TrackedFrame:
    """An image, and what was tracked in it."""

    frame: RecordedFrame
    image: np.ndarray  # H×W×3 uint8 RGB
    labels: np.ndarray  # H×W uint8: TrackedObject.label, 0 = background
    objects: list[TrackedObject]  # in order of id; ids are those of the plan
    result: StepResult  # as the tracker gave it, with ids of its own
    applied: list[Applied] = field(default_factory=list)  # seeds of this image
    masks: dict[int, np.ndarray] = field(default_factory=dict)  # id → H×W bool, what the seeds show


@dataclass(frozen=True)
class Checkpoint:
    """All that is needed to go on with the image `index`."""

    index: int
    snapshot: Snapshot
    notes: dict[str, Any]  # what JSON holds


def track(
    recording: Recording,
    plan: Sequence[PlannedSeeds],
    parameters: Parameters,
    *,
    start: Checkpoint | None = None,
    engines: Engines | None = None,
) -> Iterator[TrackedFrame]:
    """Track every image of a recording; those that cannot be decoded are left out, as the node drops them.

    Where the node drops an image for another reason, as an error of the device, this ends instead.

    Arguments:
        recording: that is open.
        plan: seeds, by index or stamp of their images.
        parameters: of the node; those of its topics, queue and history mean nothing here.
        start: where to go on; None: the beginning.
        engines: that the weights are taken from.

    Raises:
        SeedError, UnknownObjectError: seeds that are not recorded ones cannot be used, or have no image.
        OutOfMemoryError, EngineError, RunError: an image could not be tracked, though it can be read.
        WeightsError, DeviceError, ParameterError, BagError, FrameError.
    """
    offline = Offline(recording, plan, parameters, engines=engines)
    if start is not None:
        offline.restore(start)
    for frame in recording.frames(offline.index):
        tracked = offline.step(frame)
        if tracked is not None:
            yield tracked


class Offline:
    """Tracks images one by one, and can stop and go on between two of them; arguments and errors as of `track`."""

    def __init__(
        self,
        recording: Recording,
        plan: Sequence[PlannedSeeds],
        parameters: Parameters,
        *,
        engines: Engines | None = None,
    ) -> None:
        self._recording = recording
        self.places, self.missed = resolve(plan, recording)  # places: index of an image → its seeds
        self.tracker = make_tracker(parameters, engines)
        self._seen = _Seen()
        self._tracking = Tracking(self.tracker, lambda: parameters, History(1), self._seen, self._seen, strict=True)
        self.index = 0  # of the image that is next
        self.dropped: list[Fault] = []  # images that could not be tracked
        # what is unsure of seeds, and what the node would have logged of images that were tracked, as stamps that jump
        self.notes: list[str] = guesses(self.places)
        self._ids: dict[int, int] = {}  # id of the plan → id of the tracker
        self._used: set[int] = set()  # recorded ids since the node was reset
        self.seeded = False  # whether any seed was applied

    def step(self, frame: RecordedFrame) -> TrackedFrame | None:
        """Track the next image; None where it cannot be used, which is noted in `dropped`."""
        self.skip_to(frame.index)
        entries = self.places.get(frame.index, [])
        self.index = frame.index + 1
        self._seen.forget()
        work = Frame(frame.message, frame.stamp_ns)
        applied: list[Applied] = []
        masks: dict[int, np.ndarray] = {}
        try:
            _check_size(frame.message)
            if entries:
                applied, masks = self._seed(frame, work, entries)
            else:
                self._tracking.track(work)
        except FrameError as error:
            if any(not entry.recorded for entry in entries):
                raise FrameError(f'{entries[0].source}: image {frame.name} cannot be used: {error}') from error
            self._seen.said.append(str(error))
        except XMemError:
            raise
        except Exception as error:
            text = f'{self._recording.path}: image {frame.name} cannot be tracked ({told(error)})'
            raise RunError(text) from error
        seen = self._seen
        if seen.result is None or seen.image is None:
            reason = '; '.join(seen.said).removeprefix('image dropped: ') or 'not tracked'
            self.dropped.append(Fault(frame.index, reason))
            self.missed += [f'{entry.source}: its image {frame.name} cannot be used' for entry in entries]
            return None
        alive = {item.id for item in seen.result.objects}
        self._ids = {plan_id: tracker_id for plan_id, tracker_id in self._ids.items() if tracker_id in alive}
        self.notes += [f'image {frame.name}: {text}' for text in seen.said]
        id_of = {tracker_id: plan_id for plan_id, tracker_id in self._ids.items()}
        objects = [dataclasses.replace(item, id=id_of[item.id]) for item in seen.result.objects]
        objects.sort(key=lambda item: item.id)
        return TrackedFrame(frame, seen.image, seen.result.labels, objects, seen.result, applied, masks)

    def skip_to(self, index: int) -> None:
        """There are no images before `index`, but messages that are none; raises `FrameError` where one has a seed."""
        for skipped in range(self.index, index):
            for entry in self.places.get(skipped, []):
                reason = next((fault.reason for fault in self._recording.faults if fault.index == skipped), 'absent')
                text = f'{entry.source}: image {skipped} of {self._recording.path} cannot be used: {reason}'
                if not entry.recorded:
                    raise FrameError(text)
                self.missed.append(text)
        self.index = max(self.index, index)

    def unreached(self) -> list[str]:
        """Once all images were tracked: which seeds are of images that did not come, in words."""
        return [
            f'{entry.source}: the recording ends before image {index}'
            for index, entries in sorted(self.places.items())
            if index >= self.index
            for entry in entries
        ]

    def checkpoint(self) -> Checkpoint:
        """What is needed to go on from here."""
        notes = {
            'ids': sorted(self._ids.items()),
            'used': sorted(self._used),
            'seeded': self.seeded,
            'clock': self._tracking.clock,
            'dropped': [[fault.index, fault.reason] for fault in self.dropped],
            'missed': self.missed,
            'notes': self.notes,
        }
        return Checkpoint(self.index, self.tracker.snapshot(), notes)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same recording, plan and parameters; raises `MemoryFileError`."""
        self._tracking.restore(checkpoint.snapshot)
        notes = checkpoint.notes
        self.index = checkpoint.index
        self._ids = {int(plan_id): int(tracker_id) for plan_id, tracker_id in notes['ids']}
        self._used = set(notes['used'])
        self.seeded = bool(notes['seeded'])
        self._tracking.clock = (int(notes['clock'][0]), int(notes['clock'][1]))
        self.dropped = [Fault(int(index), str(reason)) for index, reason in notes['dropped']]
        self.missed = [str(text) for text in notes['missed']]
        self.notes = [str(text) for text in notes['notes']]

    def _seed(
        self, frame: RecordedFrame, work: Frame, entries: Sequence[PlannedSeeds]
    ) -> tuple[list[Applied], dict[int, np.ndarray]]:
        """Apply the entries of an image and track it."""
        image = rgb_of(frame.message)
        wanted: dict[int, ObjectSeed] = {}  # by id of the plan
        used: list[PlannedSeeds] = []
        for entry in entries:
            try:
                found = self._read(entry, image)
                if self._prepare(entry):
                    wanted, used = {}, []
            except (SeedError, UnknownObjectError) as error:
                self._refuse(entry, frame, error)
                continue
            for object_id in entry.removed:
                wanted.pop(object_id, None)
            for object_id, seed in found.items():
                if seed.id and not entry.recorded and object_id not in {*self._ids, *wanted}:
                    ids = ', '.join(map(str, self._ids)) or 'none'
                    text = f'no object has the id {object_id} here, so it cannot be corrected; ids: {ids}'
                    self._refuse(entry, frame, UnknownObjectError(text))
                name = seed.name or (wanted[object_id].name if object_id in wanted else '')
                wanted.pop(object_id, None)
                wanted[object_id] = dataclasses.replace(seed, name=name, id=self._ids.get(object_id, 0))
            used.append(entry)
        if not wanted:
            self._tracking.track(work)
            return [Applied(entry.seeds, (), ()) for entry in used if entry.seeds], {}
        try:
            given, labels = self._tracking.seed(work, list(wanted.values()))
        except (SeedError, UnknownObjectError) as error:
            for entry in used:
                self._refuse(entry, frame, error)
            return [], {}
        self.seeded = True
        # after a reset by on_time_jump the tracker's ids begin again
        self._ids = {plan_id: tracker_id for plan_id, tracker_id in self._ids.items() if tracker_id not in given}
        self._ids |= dict(zip(wanted, given, strict=True))
        label_of = dict(zip(wanted, labels, strict=True))
        applied = []
        for entry in used:
            if entry.recorded:
                self._used.update(entry.ids)
            known = [object_id for object_id in entry.ids if object_id in label_of]
            if known:
                applied.append(Applied(entry.seeds, tuple(known), tuple(label_of[object_id] for object_id in known)))
        return applied, {object_id: seed.mask for object_id, seed in wanted.items()}

    def _read(self, entry: PlannedSeeds, image: np.ndarray) -> dict[int, ObjectSeed]:
        """Id of the plan → seed."""
        if not entry.seeds:
            return {}
        found = read_seeds(entry.seeds, image, self.tracker.config.max_objects)
        if len(found) != len(entry.ids):
            raise SeedError(f'its seeds show {len(found)} objects, but it names {len(entry.ids)} ids')
        return dict(zip(entry.ids, found, strict=True))

    def _prepare(self, entry: PlannedSeeds) -> bool:
        """Do what comes before the seeds: remove objects, or reset as the node was; returns whether it was a reset."""
        reset = begins_again(entry, self._used)
        if reset:
            self._tracking.reset()
            self._ids, self._used = {}, set()
        check_removed(entry, self._ids)
        if entry.removed:
            self._tracking.remove([self._ids[object_id] for object_id in entry.removed])
            for object_id in entry.removed:
                del self._ids[object_id]
        return reset

    def _refuse(self, entry: PlannedSeeds, frame: RecordedFrame, error: XMemError) -> None:
        text = f'{entry.source}: image {frame.name}: {error}'
        if not entry.recorded:
            raise type(error)(text) from error
        self.missed.append(text)


class _Seen:
    """What `Tracking` puts out of one image, and what it says."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin with another image."""
        self.image: np.ndarray | None = None
        self.result: StepResult | None = None
        self.said: list[str] = []

    def publish(self, header: Any, image: np.ndarray, result: StepResult, begun: float) -> None:  # noqa: ARG002
        """As `Outputs.publish`."""
        self.image, self.result = image, result

    def set_objects(self, objects: Sequence[TrackedObject]) -> None:
        """As `Outputs.set_objects`; the next image shows them."""

    def warning(self, text: str, **_: Any) -> None:
        """As of a logger; of a traceback, what went wrong."""
        self.said.append(text.strip().splitlines()[-1] if 'Traceback' in text else text)

    error = warning


def _check_size(message: Any) -> None:
    """Refuse what would take more memory than there may be; a camera that sends it would not be heard either."""
    width, height = int(getattr(message, 'width', 0)), int(getattr(message, 'height', 0))
    if width * height > MOST_PIXELS:
        raise FrameError(f'the image is {width}×{height}; at most {MOST_PIXELS} pixels are tracked')
