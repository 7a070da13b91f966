# SPDX-License-Identifier: MIT
"""What the worker's thread does with the tracker: frames, seeds, removal, reset. No rclpy."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import time
import traceback
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from xmem_ros.conversions.compressed_images import rgb_of
from xmem_ros.engines.onnx_runtime import OnnxNetwork
from xmem_ros.errors import FrameError, SeedError, UnknownObjectError, XMemError
from xmem_ros.host_memory import give_back
from xmem_ros.outside_text import for_log
from xmem_ros.parameters.table import NONE
from xmem_ros.stream.frame import Fate, Frame
from xmem_ros.stream.history import History
from xmem_ros.stream.last_seen import Sightings
from xmem_ros.tracker import ObjectState, SeedMask, Tracker, TrackerConfig
from xmem_ros.tracker.geometry import outline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xmem_ros.conversions.seeds import ObjectSeed
    from xmem_ros.parameters.table import Parameters
    from xmem_ros.stream.detection_policy import Box, Unplaced
    from xmem_ros.tracker import StepResult, TrackedObject
    from xmem_ros.tracker.engine import Engines
    from xmem_ros.tracker.snapshot import Snapshot

USUAL_SIZE = (480, 640)  # H, W in px, of a camera's images
_SELDOM: dict[str, Any] = {'throttle_duration_sec': 5.0}


class Outputs(Protocol):
    """Where results go."""

    def publish(self, header: Any, image: np.ndarray, result: StepResult, begun: float) -> None:
        """A frame was tracked. image: H×W×3 uint8 RGB; begun: time.perf_counter() when the frame was taken."""

    def set_objects(self, objects: Sequence[TrackedObject]) -> None:
        """These are the objects that there are now."""


class Log(Protocol):
    """Of a logger, what is used here."""

    @property
    def warning(self) -> Callable[..., Any]: ...

    @property
    def error(self) -> Callable[..., Any]: ...


def make_tracker(parameters: Parameters, engines: Engines | None = None) -> Tracker:
    """Load the weights onto the device, or take them from `engines`.

    Raises `WeightsError`, `DeviceError` or `ParameterError`.
    """
    config = TrackerConfig(
        size=parameters.size,
        precision=parameters.precision,
        engine=parameters.engine,
        cuda_graphs=parameters.cuda_graphs,
        max_objects=parameters.max_objects,
        memory_every=parameters.memory_every,
        min_area=parameters.min_area,
        min_part_share=parameters.min_part_share,
        min_score=parameters.min_score,
        lost_after=parameters.lost_after,
        report_unsure=parameters.report_unsure,
        memory_budget_mb=parameters.memory.budget_mb,
        memory=parameters.memory_config(),
    )
    return Tracker.from_weights(parameters.weights, device=parameters.device, config=config, engines=engines)


def prepare(tracker: Tracker, parameters: Parameters) -> None:
    """Get ready for the images that the parameter `prepare` names; raises `XMemError`."""
    if parameters.prepare != NONE:
        tracker.prepare(parameters.prepare_size())


def warm_up(tracker: Tracker) -> None:
    """Have the first image not wait for what can be done before; raises `OutOfMemoryError`."""
    if isinstance(tracker.network, OnnxNetwork) or not tracker.config.size:
        return  # another shape of image is another model, or all of the work would be of another size
    with contextlib.suppress(FrameError):  # no budget for images of this shape; others may fit
        tracker.warm_up(USUAL_SIZE)


def release_device() -> None:
    """Give back what a tracker that is gone had on the device and on the host."""
    gc.collect()  # a tracker and its parts refer to each other
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    give_back()


class Tracking:
    """The tracker and what a stream of stamped images needs around it. All of it belongs to the worker's thread.

    Arguments:
        tracker: that is used here and nowhere else.
        parameters: gives the parameters as they are now.
        history: that the frames are kept in.
        outputs: for results.
        log: for what goes wrong with a frame.
        strict: raise errors that are not of the frame itself; a live stream drops the frame and goes on.
    """

    def __init__(
        self,
        tracker: Tracker,
        parameters: Callable[[], Parameters],
        history: History,
        outputs: Outputs,
        log: Log,
        *,
        strict: bool = False,
    ) -> None:
        self._strict = strict
        self.tracker = tracker
        self._parameters, self._history, self._outputs, self._log = parameters, history, outputs, log
        self._stamp_ns = 0
        self._said = 0  # of what the tracker gave up
        self._offset_ns = 0  # from stamps to the tracker's time, which never runs backwards
        self._seeded: dict[int, Box] = {}  # id → box of the last seed, until a frame shows the object
        self._corrected: set[int] = set()  # since the last frame that was tracked
        self._sightings = Sightings()

    def track(self, frame: Frame) -> bool:
        """Track a frame and publish what came of it; returns whether it could be read."""
        try:
            self._step(frame, [])
        except FrameError as error:
            frame.valid = False
            self._log.warning(f'image dropped: {for_log(error)}', **_SELDOM)
            return False
        except Exception as error:
            if self._strict:
                raise
            # without a traceback: no memory, or no engine for images of this size
            what = error if isinstance(error, XMemError) else traceback.format_exc()
            self._log.error(f'image dropped: {what}', **_SELDOM)
            return False
        return True

    def seed(self, frame: Frame, seeds: Sequence[ObjectSeed]) -> tuple[list[int], list[int]]:
        """Apply seeds to their frame; returns ids and labels in the order of the seeds.

        Where it is the frame's turn to be tracked, it is tracked too, whether or not the seeds can be used.

        Raises:
            SeedError, UnknownObjectError, FrameError: nothing has changed.
        """
        masks = [SeedMask(seed.mask, seed.name, seed.id) for seed in seeds]
        if frame.fate is Fate.WAITING:
            ids = self._seed_and_track(frame, masks)
        else:
            ids = self._seed_behind(frame, masks)
        self._show(lambda: self._outputs.set_objects(self.tracker.objects))
        label_of = {item.id: item.label for item in self.tracker.objects}
        seeded = {object_id: outline(seed.mask.astype(np.uint8))[0] for object_id, seed in zip(ids, seeds, strict=True)}
        self._seeded = {i: box for i, box in {**self._seeded, **seeded}.items() if box is not None and i in label_of}
        return ids, [label_of[object_id] for object_id in ids]

    def boxes_beside(self, frame: Frame) -> list[Box]:
        """Boxes of what is tracked, in a frame as far as that is known, and in the newest one."""
        objects = self.tracker.objects
        unseen = [
            item.id
            for item in objects
            if item.box is None and (item.state is ObjectState.NEW or item.id in self._corrected)
        ]
        boxes = [item.box for item in objects if item.box is not None]
        boxes += [self._seeded[object_id] for object_id in unseen if object_id in self._seeded]
        if frame.labels is not None:
            now = {item.label: item.id for item in objects}
            share = self.tracker.config.min_part_share
            for label, object_id in frame.label_ids.items():
                if now.get(label) == object_id:
                    box, _ = outline((frame.labels == label).astype(np.uint8), share)
                    boxes += [box] if box is not None else []
        return boxes

    def unplaced(self, frame: Frame, within: float) -> Unplaced:
        """Objects that a thing in a frame may be, though no box says so; see `Sightings`."""
        return self._sightings.unplaced(self.tracker.objects, frame, within, self._corrected)

    def likeness(self, frame: Frame, masks: Sequence[np.ndarray], ids: Sequence[int]) -> dict[int, list[float]]:
        """Id → how much what lies under each mask of a frame looks like that object."""
        if not ids:
            return {}
        alike = self.tracker.likeness(rgb_of(frame.message), masks, ids)
        return {object_id: alike[:, place].tolist() for place, object_id in enumerate(ids)}

    def remove(self, ids: Sequence[int] | None) -> list[int]:
        """Forget objects, all with None; returns their ids. Raises `UnknownObjectError`, and none is removed then."""
        removed = self.tracker.remove(self._ids() if ids is None else ids)
        self._show(lambda: self._outputs.set_objects(self.tracker.objects))
        return removed

    def reset(self) -> list[int]:
        """Forget everything; returns the ids that there were."""
        ids = self._ids()
        self.tracker.reset()
        self._forget()
        self._show(lambda: self._outputs.set_objects([]))
        self._offset_ns = 0
        return ids

    def import_state(self, saved: Snapshot) -> tuple[list[int], list[int]]:
        """Forget everything and go on from a snapshot; returns ids and labels, in order of id.

        Raises `MemoryFileError`, changing nothing.
        """
        ids = self.tracker.import_state(saved)
        self._forget()
        self._show(lambda: self._outputs.set_objects(self.tracker.objects))
        return ids, [item.label for item in self.tracker.objects]

    def _forget(self) -> None:
        """What is known of objects that are gone."""
        self._seeded = {}
        self._corrected.clear()
        self._sightings.clear()
        self._history.forget_labels()

    @property
    def clock(self) -> tuple[int, int]:
        """The newest stamp [ns], and what is added to stamps for the tracker's time [ns]; not in a snapshot."""
        return self._stamp_ns, self._offset_ns

    @clock.setter
    def clock(self, clock: tuple[int, int]) -> None:
        self._stamp_ns, self._offset_ns = clock

    def _ids(self) -> list[int]:
        return [item.id for item in self.tracker.objects]

    def _seed_and_track(self, frame: Frame, masks: list[SeedMask]) -> list[int]:
        try:
            ids = self._step(frame, masks).ids
        except (SeedError, UnknownObjectError):
            frame.fate = Fate.TRACKED if self.track(frame) else Fate.DROPPED
            raise
        except FrameError:
            frame.valid = False
            frame.fate = Fate.DROPPED
            raise
        frame.fate = Fate.TRACKED
        return ids

    def _seed_behind(self, frame: Frame, masks: list[SeedMask]) -> list[int]:
        """A frame that was tracked or dropped a while ago."""
        now = {item.label: item.id for item in self.tracker.objects}
        labels = frame.labels
        if labels is not None and set(now.values()) - set(frame.label_ids.values()):
            labels = None  # an object has come since, so the labels do not say where it is
        if labels is not None:
            gone = [label for label, object_id in frame.label_ids.items() if now.get(label) != object_id]
            if gone:
                labels = np.where(np.isin(labels, gone), np.uint8(0), labels)
        ids = self.tracker.seed(rgb_of(frame.message), masks, labels=labels)
        if labels is not None:
            label_of = {item.id: item.label for item in self.tracker.objects}
            labels = labels.copy()
            for object_id, mask in zip(ids, masks, strict=True):
                labels[labels == label_of[object_id]] = 0
                labels[mask.mask] = label_of[object_id]
            frame.labels, frame.label_ids = labels, {label: object_id for object_id, label in label_of.items()}
        self._corrected.update(mask.id for mask in masks if mask.id)
        return ids

    def _step(self, frame: Frame, masks: list[SeedMask]) -> StepResult:
        begun = time.perf_counter()
        image = rgb_of(frame.message)
        self._apply_parameters()
        try:
            result = self.tracker.step(image, masks, time=self._time_of(frame))
        finally:
            self._say_what_was_given_up()
        frame.labels = result.labels
        frame.label_ids = {item.label: item.id for item in result.objects}
        self._corrected.clear()
        now = (frame.stamp_ns + self._offset_ns) / 1e9 if frame.stamp_ns else time.monotonic()
        self._sightings.note(result.objects, now)
        self._show(lambda: self._outputs.publish(frame.message.header, image, result, begun))
        return result

    def _say_what_was_given_up(self) -> None:
        given_up = self.tracker.given_up
        for what in given_up[self._said :]:
            self._log.error(f'memory ran out on {self.tracker.device}: {what}')
        self._said = len(given_up)

    def _show(self, output: Callable[[], None]) -> None:
        """What the tracker has done stands, whether or not it can be published."""
        try:
            output()
        except Exception:
            self._log.error(f'not published: {traceback.format_exc()}', **_SELDOM)

    def _apply_parameters(self) -> None:
        parameters = self._parameters()
        names = ('memory_every', 'min_area', 'min_part_share', 'min_score', 'lost_after', 'report_unsure')
        live = {name: getattr(parameters, name) for name in names}
        config = self.tracker.config
        if any(getattr(config, name) != value for name, value in live.items()):
            self.tracker.config = dataclasses.replace(config, **live)

    def _time_of(self, frame: Frame) -> float | None:
        """Seconds for the tracker; None where images have no stamp, and it counts frames then."""
        if not frame.stamp_ns:
            return None
        if frame.stamp_ns < self._stamp_ns:
            self._jump(frame.stamp_ns)
        self._stamp_ns = frame.stamp_ns
        return (frame.stamp_ns + self._offset_ns) / 1e9

    def _jump(self, stamp_ns: int) -> None:
        back = (self._stamp_ns - stamp_ns) / 1e9
        if self._parameters().on_time_jump == 'reset':
            count = len(self.reset())
            self._log.warning(
                f'stamps jumped back by {back:.3f} s: {count} objects forgotten (on_time_jump: reset)', **_SELDOM
            )
        else:
            self._offset_ns += self._stamp_ns - stamp_ns
            self._log.warning(
                f'stamps jumped back by {back:.3f} s: the objects are kept (on_time_jump: keep)', **_SELDOM
            )
