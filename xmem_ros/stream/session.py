# SPDX-License-Identifier: MIT
"""Tracking session: the tracker on a stream of stamped images. Needs no rclpy."""

from __future__ import annotations

import dataclasses
import time
import traceback
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from xmem_ros.conversions.compressed_images import rgb_of
from xmem_ros.errors import FrameError, SeedError, UnknownObjectError, XMemError
from xmem_ros.intensity import IntensityScale
from xmem_ros.outside_text import for_log
from xmem_ros.seeding.seeder import make_seeder
from xmem_ros.stream.frame import Fate, Frame
from xmem_ros.stream.history import History
from xmem_ros.stream.last_seen import LastSeen
from xmem_ros.tracker import ObjectState, SeedMask, Tracker
from xmem_ros.tracker.geometry import outline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xmem_ros.conversions.seeds import ObjectSeed
    from xmem_ros.parameters.table import Parameters
    from xmem_ros.seeding.seeder import Seeder
    from xmem_ros.stream.detection_policy import Box, UnlocatedObjects
    from xmem_ros.tracker import StepResult, TrackedObject
    from xmem_ros.tracker.snapshot import Snapshot

_THROTTLED: dict[str, Any] = {'throttle_duration_sec': 5.0}


class Outputs(Protocol):
    """Receiver of results."""

    def publish(self, header: Any, image: np.ndarray, result: StepResult, begun: float) -> None:
        """Publish the result of a frame.

        Arguments:
            header: header of the image.
            image: H×W×3 uint8 RGB.
            result: the tracker's result.
            begun: time.perf_counter() when work on the frame began [s].
        """

    def set_objects(self, objects: Sequence[TrackedObject]) -> None:
        """Receive the current objects after a seed, removal, reset or load."""


class Log(Protocol):
    """Methods of a logger that a session uses."""

    @property
    def warning(self) -> Callable[..., Any]: ...

    @property
    def error(self) -> Callable[..., Any]: ...

    @property
    def info(self) -> Callable[..., Any]: ...


class TrackingSession:
    """The tracker on a stream of stamped images. Used in the worker's thread only.

    Arguments:
        tracker: used by this session only.
        parameters: returns the current parameters.
        history: frames kept for late seeds.
        outputs: receives the results.
        log: receives the errors of dropped frames.
        strict: raise every error of a frame. Otherwise it is logged and the frame is dropped.
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
        self._measures_logged = 0  # number of measures of out-of-memory recovery
        self._offset_ns = 0  # from stamps to the tracker's time, which never decreases
        self._seed_boxes: dict[int, Box] = {}  # id → box of the last seed; used until a frame shows the object
        self._corrected: set[int] = set()  # ids corrected since the last tracked frame
        self._last_seen = LastSeen()
        self.scale = IntensityScale(parameters().intensity_range)  # its state is not in snapshots
        self._tracking = False  # whether there are objects
        self._newest: tuple[np.ndarray | None, dict[int, int]] = (None, {})  # labels; label → id
        self.on_reset: Callable[[list[int]], None] = lambda _: None  # gets the ids that a reset has forgotten

    def image_of(self, message: Any) -> np.ndarray:
        """Decode an image as for tracking, H×W×3 uint8 RGB; may be called from any thread.

        Raises:
            FrameError: the image cannot be read.
        """
        return rgb_of(message, self.scale if self._tracking else self.scale.fresh())

    @property
    def seeder(self) -> Seeder:
        """What makes masks of boxes and points; loaded at the first use, from any thread.

        Raises:
            ParameterError, WeightsError: it cannot be had.
        """
        return make_seeder(self._parameters().seeder)

    def mask_of(self, frame: Frame, object_id: int) -> np.ndarray | None:
        """Return an object's mask in a frame, H×W bool; in the newest tracked one if it waits.

        None if the object has none there.
        """
        labels, ids = (frame.labels, frame.label_ids) if frame.labels is not None else self._newest
        label = next((label for label, known in ids.items() if known == object_id), 0)
        return labels == label if labels is not None and label else None

    def track(self, frame: Frame) -> bool:
        """Track a frame and publish the result; return whether it was tracked."""
        if self._is_late(frame):
            frame.late = True
            self._log.warning(
                f'image dropped: it is {(self._stamp_ns - frame.stamp_ns) / 1e9:.3f} s older than the newest; from '
                'time_jump_threshold on, that would be a time jump',
                **_THROTTLED,
            )
            return False
        try:
            self._step(frame, [])
        except FrameError as error:
            frame.valid = False
            if self._strict:
                raise
            self._log.warning(f'image dropped: {for_log(error)}', **_THROTTLED)
            return False
        except Exception as error:
            if self._strict:
                raise
            # An expected error, such as running out of memory, needs no traceback.
            reason = error if isinstance(error, XMemError) else traceback.format_exc()
            self._log.error(f'image dropped: {reason}', **_THROTTLED)
            return False
        return True

    def seed(self, frame: Frame, seeds: Sequence[ObjectSeed]) -> tuple[list[int], list[int]]:
        """Apply seeds to their frame.

        If the frame still waits to be tracked, it is tracked too, even if a seed is unusable.

        Returns:
            Ids and labels, in the order of the seeds.

        Raises:
            SeedError, UnknownObjectError, FrameError: no seed was applied.
        """
        masks = [SeedMask(seed.mask, seed.name, seed.id) for seed in seeds]
        if frame.fate is Fate.WAITING and self._is_late(frame):
            frame.late, frame.fate = True, Fate.DROPPED
        if frame.fate is Fate.WAITING:
            ids = self._seed_and_track(frame, masks)
        else:
            ids = self._seed_past(frame, masks)
        self._output_objects()
        label_of = {item.id: item.label for item in self.tracker.objects}
        seeded = {object_id: outline(seed.mask.astype(np.uint8))[0] for object_id, seed in zip(ids, seeds, strict=True)}
        boxes = {**self._seed_boxes, **seeded}
        self._seed_boxes = {i: box for i, box in boxes.items() if box is not None and i in label_of}
        return ids, [label_of[object_id] for object_id in ids]

    def known_boxes(self, frame: Frame) -> list[Box]:
        """Return the boxes of objects in the newest frame and, if known, in the given frame."""
        objects = self.tracker.objects
        not_shown = [
            item.id
            for item in objects
            if item.box is None and (item.state is ObjectState.NEW or item.id in self._corrected)
        ]
        boxes = [item.box for item in objects if item.box is not None]
        boxes += [self._seed_boxes[object_id] for object_id in not_shown if object_id in self._seed_boxes]
        if frame.labels is not None:
            id_of = {item.label: item.id for item in objects}
            share = self.tracker.config.min_part_share
            for label, object_id in frame.label_ids.items():
                if id_of.get(label) == object_id:
                    box, _ = outline((frame.labels == label).astype(np.uint8), share)
                    boxes += [box] if box is not None else []
        return boxes

    def unlocated(self, frame: Frame, within: float) -> UnlocatedObjects:
        """Find the objects without a known box in a frame; see `LastSeen.unlocated`."""
        return self._last_seen.unlocated(self.tracker.objects, frame, within, self._corrected)

    def likeness(self, frame: Frame, masks: Sequence[np.ndarray], ids: Sequence[int]) -> dict[int, list[float]]:
        """Return the likeness of masks in a frame to objects: id → one value per mask, −1…1."""
        if not ids:
            return {}
        likeness = self.tracker.likeness(self.image_of(frame.message), masks, ids)
        return {object_id: likeness[:, column].tolist() for column, object_id in enumerate(ids)}

    def remove(self, ids: Sequence[int] | None) -> list[int]:
        """Remove objects (None: all); return their ids.

        Raises:
            UnknownObjectError: an id is not tracked; no object is removed.
        """
        removed = self.tracker.remove(self._ids() if ids is None else ids)
        self._output_objects()
        return removed

    def reset(self) -> list[int]:
        """Forget everything; return the forgotten ids."""
        ids = self._ids()
        self.tracker.reset()
        self._clear()
        self.scale.reset()
        self._output_objects()
        self._stamp_ns = self._offset_ns = 0
        self.on_reset(ids)
        return ids

    def import_state(self, saved: Snapshot) -> tuple[list[int], list[int]]:
        """Forget everything and continue from a snapshot; return ids and labels, in order of id.

        Raises:
            MemoryFileError: nothing has changed.
        """
        ids = self.tracker.import_state(saved)
        self._clear()
        self._output_objects()
        return ids, [item.label for item in self.tracker.objects]

    def _clear(self) -> None:
        """Forget boxes, times and labels of former objects."""
        self._seed_boxes = {}
        self._corrected.clear()
        self._last_seen.clear()
        self._newest = None, {}
        self._history.clear_labels()

    def _output_objects(self) -> None:
        objects = self.tracker.objects
        self._tracking = bool(objects)
        self._output(lambda: self._outputs.set_objects(objects))

    def _decode(self, message: Any, *, seeded: bool) -> np.ndarray:
        """Decode an image; the first seeded one gives the range of all later ones."""
        if seeded and not self._tracking:
            self.scale.reset()
        image = rgb_of(message, self.scale)
        for warning, text in self.scale.take_notes():
            (self._log.warning if warning else self._log.info)(text)
        return image

    @property
    def clock(self) -> tuple[int, int]:
        """Newest stamp, and offset from stamps to the tracker's time [ns]; not in snapshots."""
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

    def _seed_past(self, frame: Frame, masks: list[SeedMask]) -> list[int]:
        """Seed a frame that was tracked or dropped before."""
        id_of = {item.label: item.id for item in self.tracker.objects}
        labels = frame.labels
        if labels is not None and set(id_of.values()) - set(frame.label_ids.values()):
            labels = None  # they lack an object that was started later
        if labels is not None:
            removed = [label for label, object_id in frame.label_ids.items() if id_of.get(label) != object_id]
            if removed:
                labels = np.where(np.isin(labels, removed), np.uint8(0), labels)
        ids = self.tracker.seed(self._decode(frame.message, seeded=True), masks, labels=labels)
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
        image = self._decode(frame.message, seeded=bool(masks))
        self._apply_parameters()
        try:
            result = self.tracker.step(image, masks, time=self._time_of(frame))
        finally:
            self._log_oom_recovery()
        self._tracking = bool(result.objects)
        frame.labels = result.labels
        frame.label_ids = {item.label: item.id for item in result.objects}
        self._newest = frame.labels, frame.label_ids
        self._corrected.clear()
        now = (frame.stamp_ns + self._offset_ns) / 1e9 if frame.stamp_ns else time.monotonic()
        self._last_seen.update(result.objects, now)
        self._output(lambda: self._outputs.publish(frame.message.header, image, result, begun))
        return result

    def _log_oom_recovery(self) -> None:
        measures = self.tracker.given_up
        for measure in measures[self._measures_logged :]:
            self._log.error(f'memory ran out on {self.tracker.device}: {measure}')
        self._measures_logged = len(measures)

    def _output(self, output: Callable[[], None]) -> None:
        """Publish; log errors instead of raising them, because the tracker's state is valid."""
        try:
            output()
        except Exception:
            self._log.error(f'not published: {traceback.format_exc()}', **_THROTTLED)

    def _apply_parameters(self) -> None:
        parameters = self._parameters()
        names = ('memory_every', 'min_area', 'min_part_share', 'min_score', 'lost_after', 'report_unsure')
        live = {name: getattr(parameters, name) for name in names}
        config = self.tracker.config
        if any(getattr(config, name) != value for name, value in live.items()):
            self.tracker.config = dataclasses.replace(config, **live)

    def _time_of(self, frame: Frame) -> float | None:
        """Return the tracker's time [s]; None without a stamp, for a step of fixed length."""
        if not frame.stamp_ns:
            return None
        if frame.stamp_ns < self._stamp_ns:
            self._handle_jump_back(frame.stamp_ns)
        self._stamp_ns = frame.stamp_ns
        return (frame.stamp_ns + self._offset_ns) / 1e9

    def _is_late(self, frame: Frame) -> bool:
        """Return whether a frame is to be dropped because it is a little older than the newest.

        A strict session has a result for each frame; it keeps the objects instead.
        """
        return not self._strict and bool(frame.stamp_ns) and 0 < self._back(frame.stamp_ns) <= self._threshold

    def _back(self, stamp_ns: int) -> float:
        return (self._stamp_ns - stamp_ns) / 1e9

    @property
    def _threshold(self) -> float:
        return self._parameters().time_jump_threshold

    def _handle_jump_back(self, stamp_ns: int) -> None:
        back, tracking = self._back(stamp_ns), self._tracking
        jump = f'stamps jumped back by {back:.3f} s'
        if self._parameters().on_time_jump == 'reset' and back > self._threshold:
            count = len(self.reset())
            if tracking:
                self._log.warning(f'{jump}: {count} objects forgotten (on_time_jump: reset)', **_THROTTLED)
        else:
            self._offset_ns += self._stamp_ns - stamp_ns
            if tracking:  # not joined with the above: each call in the source is throttled by itself
                self._log.warning(f'{jump}: the objects are kept (on_time_jump: keep)', **_THROTTLED)
