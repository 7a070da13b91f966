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

from xmem_ros.conversions.compressed_images import rgb_of
from xmem_ros.conversions.seeds import ObjectSeed, read_seeds
from xmem_ros.errors import BagError, FrameError, RunError, SeedError, UnknownObjectError, XMemError, told
from xmem_ros.recordings.limits import MOST_FAULTS
from xmem_ros.recordings.plan_state import PlanState, check_count
from xmem_ros.recordings.recording import Fault
from xmem_ros.recordings.seed_plan import guesses, resolve
from xmem_ros.stream.frame import Frame
from xmem_ros.stream.history import History
from xmem_ros.stream.session import Tracking, make_tracker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xmem_ros.parameters.table import Parameters
    from xmem_ros.recordings.recording import RecordedFrame, Recording
    from xmem_ros.recordings.seed_plan import PlannedSeeds
    from xmem_ros.tracker import StepResult, TrackedObject, Tracker
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
        self.places, missed = resolve(plan, recording)  # places: index of an image → its seeds
        self._plan = PlanState(self.places, (SeedError,))
        self._plan.missed = missed
        self.tracker = make_tracker(parameters, engines)
        self._seen = _Seen()
        self._tracking = Tracking(self.tracker, lambda: parameters, History(1), self._seen, self._seen, strict=True)
        self.index = 0  # of the image that is next
        self.dropped: list[Fault] = []  # images that could not be tracked
        # what is unsure of seeds, and what the node would have logged of images that were tracked, as stamps that jump
        self.notes: list[str] = guesses(self.places)
        self.seeded = False  # whether any seed was applied

    @property
    def missed(self) -> list[str]:
        """Recorded seeds that could not be used, and why."""
        return self._plan.missed

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
            if entries:
                applied, masks = self._seed(frame, work)
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
            if len(self.dropped) >= MOST_FAULTS:
                raise BagError(
                    f'{self._recording.path}: more than {MOST_FAULTS} images cannot be used; the last: {reason}'
                )
            self.dropped.append(Fault(frame.index, reason))
            self.missed.extend(f'{entry.source}: its image {frame.name} cannot be used' for entry in entries)
            return None
        alive = {item.id for item in seen.result.objects}
        self._plan.keep(alive)
        self.notes += [f'image {frame.name}: {text}' for text in seen.said]
        id_of = self._plan.plan_ids
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
        return self._plan.unreached(self.index)

    def checkpoint(self) -> Checkpoint:
        """What is needed to go on from here."""
        notes = {
            'plan': self._plan.export_state(),
            'seeded': self.seeded,
            'clock': self._tracking.clock,
            'dropped': [[fault.index, fault.reason] for fault in self.dropped],
            'notes': self.notes,
        }
        return Checkpoint(self.index, self.tracker.export_state(), notes)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same recording, plan and parameters; raises `MemoryFileError`."""
        self._tracking.import_state(checkpoint.snapshot)
        notes = checkpoint.notes
        self.index = checkpoint.index
        self._plan.import_state(notes['plan'])
        self.seeded = bool(notes['seeded'])
        self._tracking.clock = (int(notes['clock'][0]), int(notes['clock'][1]))
        self.dropped = [Fault(int(index), str(reason)) for index, reason in notes['dropped']]
        self.notes = [str(text) for text in notes['notes']]

    def _seed(self, frame: RecordedFrame, work: Frame) -> tuple[list[Applied], dict[int, np.ndarray]]:
        """Apply the entries of an image and track it."""
        host = _TrackerHost(self.tracker, self._tracking, rgb_of(frame.message))
        wanted, used = self._plan.gather(frame.index, frame.name, host)
        if not wanted:
            self._tracking.track(work)
            return [Applied(entry.seeds, (), ()) for entry in used if entry.seeds], {}
        ids = self._plan.ids
        seeds = [dataclasses.replace(seed, id=ids.get(plan_id, 0)) for plan_id, seed in wanted.items()]
        try:
            given, labels = self._tracking.seed(work, seeds)
        except (SeedError, UnknownObjectError) as error:
            for entry in used:
                self._plan.refuse(entry, frame.name, error)
            return [], {}
        self.seeded = True
        self._plan.began(dict(zip(wanted, given, strict=True)), used)
        label_of = dict(zip(wanted, labels, strict=True))
        applied = []
        for entry in used:
            known = [object_id for object_id in entry.ids if object_id in label_of]
            if known:
                applied.append(Applied(entry.seeds, tuple(known), tuple(label_of[object_id] for object_id in known)))
        return applied, {object_id: seed.mask for object_id, seed in wanted.items()}


class _TrackerHost:
    """The tracker as a plan's host, for one image."""

    def __init__(self, tracker: Tracker, tracking: Tracking, image: np.ndarray) -> None:
        self._tracker, self._tracking, self._image = tracker, tracking, image

    def read(self, entry: PlannedSeeds) -> dict[int, ObjectSeed]:
        """As `Host.read`."""
        if not entry.seeds:
            return {}
        found = read_seeds(entry.seeds, self._image, self._tracker.config.max_objects)
        check_count(entry, len(found))
        return dict(zip(entry.ids, found, strict=True))

    def reset(self) -> None:
        """As `Host.reset`."""
        self._tracking.reset()

    def remove(self, ids: list[int]) -> None:
        """As `Host.remove`."""
        self._tracking.remove(ids)

    def named(self, seed: ObjectSeed, name: str) -> ObjectSeed:
        """As `Host.named`."""
        return dataclasses.replace(seed, name=name)


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
