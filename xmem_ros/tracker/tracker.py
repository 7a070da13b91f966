# SPDX-License-Identifier: MIT
"""Tracker: frames and seeds in, masks out. Streaming XMem without ROS.

    tracker = Tracker.from_weights('compact')
    ids = tracker.seed(first_frame, {'cup': mask})
    result = tracker.step(next_frame)

Not thread-safe: one thread owns a tracker.
"""

import contextlib
import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from xmem_ros.checks import checked_ids, checked_path, checked_size, is_number
from xmem_ros.errors import (
    FrameError,
    MemoryFileError,
    MemoryFileMismatchError,
    OutOfMemoryError,
    ParameterError,
    SeedError,
    quoted,
)
from xmem_ros.network.config import XMEM, NetworkConfig
from xmem_ros.network.model import EncodedImage
from xmem_ros.objects import ObjectState, ObjectTable, TrackedObject
from xmem_ros.snapshot_schema import ClockState
from xmem_ros.tracker import memory_budget, snapshot
from xmem_ros.tracker.config import (
    AUTO_SIZE,
    TrackerConfig,
    given_config,
    pick_device,
    pick_precision,
    with_policy,
    with_size,
)
from xmem_ros.tracker.engine import Engine, Engines, engine_for, fingerprint_of, load_engine, prepare
from xmem_ros.tracker.geometry import (
    FrameGeometry,
    Region,
    geometry_of,
    image_to_tensor,
    mask_to_tensor,
    observe_labels,
)
from xmem_ros.tracker.mask_fusion import join_masks, judge
from xmem_ros.tracker.oom_recovery import Shedding, is_out_of_memory
from xmem_ros.tracker.seed_validation import SeedMask, check_ids, check_labels, check_mask, check_seeds
from xmem_ros.tracker.segmenter import MemoryFrame, Segmenter
from xmem_ros.tracker.snapshot import Snapshot
from xmem_ros.tracker.stage_timer import StageTimer
from xmem_ros.weights.checkpoint import find_weights

MOST_OUTPUT_PIXELS = 1 << 26  # of a result that is larger than its frame: each object takes 4 bytes a pixel
SENSORY_KEPT = 30  # frames out of sight, after which an object's sensory memory is of other things


@dataclass(frozen=True)
class StepResult:
    """What one frame shows."""

    labels: (
        np.ndarray
    )  # H×W uint8, 0 = background, else TrackedObject.label; of the frame's size, or what was asked for
    objects: list[TrackedObject]  # in order of id
    ids: list[int]  # of the seeds given with this step, in their order
    timings_ms: dict[str, float]  # stage → milliseconds
    probabilities: np.ndarray | None = None  # (1+O)×H×W float32, background first; only if asked for


class Tracker:
    """Follows any number of objects, up to `config.max_objects`, through a stream of frames."""

    def __init__(
        self,
        network: Engine,
        config: TrackerConfig | None = None,
        device: str | torch.device = 'auto',
    ):
        config = with_policy(with_size(given_config(config), network.config), network.config)
        self.device = pick_device(device)
        self.dtype = pick_precision(config.precision, self.device, config.engine)
        self.network = engine_for(network, config, self.device, self.dtype)
        self._table = ObjectTable(config.max_objects)
        self._segmenter = Segmenter(self.network, config, self.device, self.dtype)
        self._shedding = Shedding(self._segmenter)
        self._frame = self._last_memory_frame = 0
        self._time = 0.0

    @classmethod
    def from_weights(
        cls,
        weights: str | Path = 'compact',
        *,
        device: str | torch.device = 'auto',
        config: TrackerConfig | None = None,
        engines: Engines | None = None,
    ) -> 'Tracker':
        """Load weights by name or path, or take them from `engines`; raises `WeightsError`, `DeviceError`."""
        chosen = pick_device(device)
        config = given_config(config)
        load = engines.load if engines else load_engine
        engine, fingerprint = load(find_weights(weights), config, chosen)
        tracker = cls(engine, config, chosen)
        tracker.fingerprint = fingerprint  # of the weights as they came
        return tracker

    # --- what a user calls

    @torch.inference_mode()
    def prepare(self, image_size: tuple[int, int] | None = None) -> None:
        """Get engine onnxruntime ready for images of a size, H, W in px, so that the first seed need not wait for it.

        It exports, builds and loads what it needs for up to `config.max_objects` objects. None: for the size that these
        weights ran on last, where they did. Raises `FrameError`, `EngineError`, `OutputError`, `OutOfMemoryError`.
        """
        if image_size is not None:
            image_size = checked_size('image_size', image_size, FrameError)
        try:
            prepare(self.network, self.config, image_size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f'memory ran out on {self.device} while ONNX models were loaded for up to {self.config.max_objects} '
                'objects: set a smaller max_objects or size, or prepare nothing (parameter prepare: none)'
            ) from error

    @torch.inference_mode()
    def step(
        self,
        frame: np.ndarray,
        seeds: Mapping[str | int, np.ndarray] | Sequence[SeedMask] = (),
        *,
        time: float | None = None,
        last: bool = False,
        probabilities: bool = False,
        output_size: tuple[int, int] | None = None,
    ) -> StepResult:
        """Track one frame; objects given in `seeds` begin, or are corrected, with it.

        frame: H×W×3 uint8 RGB. time: s, of the frame, for LOST; without it frames count as 1/30 s. last: no frame
        follows, so that none is memorised. output_size: H, W of the result, if not the frame's.
        Raises `FrameError`, `SeedError`, `UnknownObjectError`, and then nothing has changed.
        """
        masks = check_seeds(seeds, geometry_of(frame, self.config.size).image_size, self._table)
        if time is not None and not (is_number(time) and math.isfinite(time)):
            raise FrameError(f'time is {quoted(time)}; give the seconds of the frame, or None to count frames')
        if output_size is not None:
            output_size = checked_size('output_size', output_size, FrameError)
            if math.prod(output_size) > MOST_OUTPUT_PIXELS and output_size != np.shape(frame)[:2]:
                raise FrameError(
                    f'output_size is {quoted(output_size)}; give at most {MOST_OUTPUT_PIXELS} px in all, or '
                    'the size of the frame'
                )
        result = self._shedding.run(
            lambda: self._step(
                frame, masks, time, last=last, probabilities=probabilities, output_size=output_size or frame.shape[:2]
            )
        )
        self._shedding.consolidate()
        return result

    @torch.inference_mode()
    def seed(
        self,
        frame: np.ndarray,
        masks: Mapping[str | int, np.ndarray] | Sequence[SeedMask],
        *,
        labels: np.ndarray | None = None,
    ) -> list[int]:
        """Begin new objects, or correct known ones, on a frame; time does not advance.

        frame: H×W×3 uint8 RGB, the newest frame or an earlier one. masks: name → mask of a new object, id → mask of a
        known one, or `SeedMask`s; where two overlap, the later one wins. labels: H×W uint8, what `step` said of that
        frame, where it was tracked; otherwise the other objects are found in it first. Returns the ids in order. All
        of a call or none: raises `SeedError`, `UnknownObjectError`, `FrameError`, and then nothing has changed.
        """
        geometry = geometry_of(frame, self.config.size)
        seeds = check_seeds(masks, geometry.image_size, self._table)
        if not seeds:
            raise SeedError('no mask was given; give at least one')
        if labels is not None:
            labels = check_labels(labels, geometry.image_size)
        current = self._segmenter.geometry
        others = labels is not None and bool(self._table)
        if others and current is not None and geometry.grid_size != current.grid_size:
            raise SeedError(
                f'the frame is {geometry.image_size} (H, W), but frames of {current.image_size} have come '
                'since; seed on one of those'
            )
        ids = self._shedding.run(lambda: self._seed(frame, seeds, labels))
        self._shedding.consolidate()
        return ids

    @torch.inference_mode()
    def likeness(self, frame: np.ndarray, masks: Sequence[np.ndarray], ids: Sequence[int]) -> np.ndarray:
        """How much what lies under masks of a frame looks as objects have looked so far; nothing changes.

        frame: H×W×3 uint8 RGB, masks: M of H×W, ids: of O objects. Returns M×O, −1…1: what the object's score is made
        from. Raises `FrameError`, `SeedError`, `UnknownObjectError`.
        """
        geometry = geometry_of(frame, self.config.size)
        checked = [check_mask(mask, geometry.image_size, f'mask {n}') for n, mask in enumerate(masks, 1)]
        ids = checked_ids(ids)
        self._table.check_known(ids)
        if not checked or not ids:
            return np.zeros((len(checked), len(ids)), np.float32)
        image = image_to_tensor(frame, geometry, self.device)
        planes = torch.stack([mask_to_tensor(mask, geometry, self.device) for mask in checked])
        return self._segmenter.likeness(image, planes, [self._table.row(i) for i in ids]).float().cpu().numpy()

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raise what `seed` would for these ids, 0 for each new object, before the work of making masks for them.

        Raises `UnknownObjectError`, `SeedError`.
        """
        check_ids(ids, self._table)

    @torch.inference_mode()
    def remove(self, ids: int | Iterable[int]) -> list[int]:
        """Forget objects; the others stay as they are. Raises `UnknownObjectError`, and then none is removed."""
        wanted = list(dict.fromkeys(checked_ids(ids)))
        self._table.check_known(wanted)
        for object_id in wanted:
            self._segmenter.leave(self._table.remove(object_id))
        return wanted

    @torch.inference_mode()
    def reset(self) -> None:
        """Forget everything; ids start again at 1."""
        self._table.clear()
        self._segmenter.clear()
        self._frame = self._last_memory_frame = 0
        self._time = 0.0

    def warm_up(self, image_size: tuple[int, int]) -> None:
        """Pay before the first image for what it would have to wait for, and forget everything.

        Stores are allocated, kernels are loaded and chosen. image_size: H, W in px, as images will probably be; those
        of another shape pay for their part then. Raises `FrameError`, `OutOfMemoryError`.
        """
        height, width = checked_size('image_size', image_size, FrameError)
        frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        mask = np.zeros((height, width), bool)
        mask[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = True
        self.reset()
        try:
            self.step(frame, {'': mask})
            self.step(frame)
        finally:
            self.reset()

    def save(self, path: str | Path) -> None:
        """Write all that is remembered to a file; one of that name is replaced, folders are made.

        Raises `MemoryFileError`.
        """
        snapshot.write(self.export_state(), checked_path('the memory file', path, MemoryFileError))

    def load(self, path: str | Path) -> list[int]:
        """Forget everything and go on from a file; returns the ids. Raises `MemoryFileError`; nothing has changed then.

        The weights have to be those that the file was made with; device, working size and settings may be others.
        """
        path = checked_path('the memory file', path, MemoryFileError)
        return self.import_state(snapshot.read(path, self.fingerprint))

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the network's weights."""
        return fingerprint_of(self.network)

    @torch.inference_mode()
    def export_state(self) -> Snapshot:
        """A copy of all that is remembered, in the host's memory."""
        clock = ClockState(self._frame, self._last_memory_frame, self._time)
        state = self._segmenter.export_state() if self._table else None
        return Snapshot(self.fingerprint, self._table.export_state(), clock, state)

    @torch.inference_mode()
    def import_state(self, saved: Snapshot) -> list[int]:
        """Forget everything and go on from a snapshot; returns the ids. Raises `MemoryFileError`, changing nothing."""
        if saved.weights != self.fingerprint:
            raise MemoryFileMismatchError(
                'the snapshot was made with other weights; load those, or seed the objects again'
            )
        snapshot.check_fits(saved, self.network.config)
        try:
            table = ObjectTable.import_state(saved.table, self.config.max_objects)
        except ParameterError as error:
            raise MemoryFileMismatchError(f'the saved memory does not fit: {error}') from error
        self._segmenter.import_state(saved.state)
        self._table = table
        self._frame, self._last_memory_frame = saved.clock.frame, saved.clock.last_memory_frame
        self._time = saved.clock.time
        return list(table)

    @property
    def config(self) -> TrackerConfig:
        """Settings.

        Only `memory_every`, `min_area`, `min_part_share`, `min_score`, `report_unsure` and `lost_after` may be set to
        others later on.
        """
        return self._segmenter.config

    @config.setter
    def config(self, config: TrackerConfig) -> None:
        self._segmenter.config = config

    @property
    def objects(self) -> list[TrackedObject]:
        """Every object as last seen, in order of id."""
        return self._table.shown

    @property
    def memory_bytes(self) -> int:
        """Bytes that memory occupies on the device, full or empty."""
        return self._segmenter.nbytes

    def memory_bytes_with(self, size: tuple[int, int]) -> int:
        """Bytes that memory will occupy for images of `size` (H, W); raises `FrameError` where the budget is short."""
        return self.memory_bytes_for(
            size,
            self.config.max_objects,
            network=self.network.config,
            config=self.config,
            dtype=self._segmenter.value_dtype,
        )

    @property
    def given_up(self) -> list[str]:
        """What the tracker does without since memory ran out, in words and in order."""
        return list(self._shedding.done)

    @property
    def memory_elements(self) -> dict[str, int]:
        """Positions in use in working and in long-term memory."""
        memory = self._segmenter.memory
        return memory.elements if memory is not None else {'working': 0, 'long_term': 0}

    @staticmethod
    def memory_bytes_for(
        size: tuple[int, int],
        max_objects: int,
        *,
        network: NetworkConfig | None = None,
        config: TrackerConfig | None = None,
        dtype: torch.dtype = torch.float16,
    ) -> int:
        """Bytes that memory will occupy for images of `size` (H, W), known before the first frame.

        dtype: of the values: the tracker's precision on CUDA, float32 elsewhere. Raises `FrameError` where
        `config.memory_budget_mb` is too small.
        """
        network = network or XMEM
        config = replace(with_size(given_config(config), network), max_objects=max_objects)
        geometry = FrameGeometry.of(checked_size('size', size, FrameError), config.size)
        memory = memory_budget.fitted(geometry, config, config.memory, network, dtype)
        return memory_budget.bytes_for(geometry, memory, max_objects, network, dtype)

    # --- one frame's parts

    def _step(
        self,
        frame: np.ndarray,
        masks: list[SeedMask],
        time: float | None,
        *,
        last: bool,
        probabilities: bool,
        output_size: tuple[int, int],
    ) -> StepResult:
        """`step`, once. What can fail comes first; where it does, nothing has changed."""
        timer = StageTimer(self.device)
        geometry = geometry_of(frame, self.config.size)
        number, time = self._frame + 1, self._time + 1 / 30 if time is None else float(time)
        if not self._table and not masks:
            self._frame, self._time = number, time
            return StepResult(np.zeros(output_size, np.uint8), [], [], timer.stop())
        segmenter = self._segmenter
        segmenter.prepare(geometry)
        with timer('preprocess'):
            image = image_to_tensor(frame, geometry, self.device)
        with timer('key'):
            encoded = segmenter.encode(image)
        due = number - self._last_memory_frame >= self.config.memory_every
        alone = bool(masks) and not due and self._seeded_alone(masks)
        memorise = not last and (bool(masks) or due)
        update = not last and (alone or not memorise)
        existing, found, written = list(self._table), None, None
        if set(existing) - {seed.id for seed in masks}:
            found = segmenter.predict(image, encoded, self._table.rows, update=update, timer=timer)
        with self._admitted(masks, geometry, number, time) as given:
            joint = join_masks(self._table, found.prob if found else None, existing, given)
            sure, visible = judge(self._table, found, existing, given, self.device)
            with timer('value'):
                if memorise:
                    written = self._encode_memory(image, encoded, joint[1:], visible, given, alone=alone)
            with timer('resize'):
                full = geometry.to_image(joint, output_size)
            with timer('postprocess'):
                labels, regions = observe_labels(full, [0, *self._table.labels], self.config.min_part_share)
                kept = full.float().cpu().numpy() if probabilities else None
            with timer('match'):
                if found:
                    segmenter.commit(found)
                if written:
                    segmenter.write(written)
        self._frame, self._time = number, time
        if written and not alone:
            self._last_memory_frame = number
        objects = self._observe(regions, sure)
        if self.config.memory.guard:
            gone = [item.id for item in objects if item.frames_since_seen > SENSORY_KEPT]
            segmenter.forget_sensory([self._table.row(object_id) for object_id in gone])
        if not self.config.report_unsure:
            hidden = [item.label for item in objects if item.state in (ObjectState.OCCLUDED, ObjectState.LOST)]
            if hidden:
                labels[np.isin(labels, hidden)] = 0
        return StepResult(labels, objects, list(given), timer.stop(), kept)

    def _seed(self, frame: np.ndarray, seeds: list[SeedMask], labels: np.ndarray | None) -> list[int]:
        """`seed`, once. What can fail comes first; where it does, nothing has changed."""
        geometry = geometry_of(frame, self.config.size)
        segmenter = self._segmenter
        segmenter.prepare(geometry)
        image = image_to_tensor(frame, geometry, self.device)
        encoded = segmenter.encode(image)
        alone = self._seeded_alone(seeds)
        existing, found, prob = list(self._table), None, None
        if set(existing) - {seed.id for seed in seeds}:
            if labels is None:
                found = segmenter.predict(image, encoded, self._table.rows, update=False)
                prob = found.prob
            else:
                prob = torch.stack(
                    [mask_to_tensor(labels == self._table.row(i) + 1, geometry, self.device) for i in existing]
                )
        with self._admitted(seeds, geometry, self._frame, self._time if self._frame else None) as given:
            joint = join_masks(self._table, prob, existing, given)
            _, visible = judge(self._table, found, existing, given, self.device)
            # time does not advance: the others' sensory state stays
            written = self._encode_memory(image, encoded, joint[1:], visible, given, alone=alone, deep_update=given)
            segmenter.write(written)
        if not alone:
            self._last_memory_frame = self._frame
        return list(given)

    def _seeded_alone(self, seeds: list[SeedMask]) -> bool:
        """Whether a seed's frame is to be remembered for the seeded objects only.

        Published: for all. But a guess about the others would become an anchor, and their memory another by that.
        """
        return self.config.memory.guard and bool(set(self._table) - {seed.id for seed in seeds})

    @contextlib.contextmanager
    def _admitted(
        self, seeds: list[SeedMask], geometry: FrameGeometry, number: int, time: float | None
    ) -> Iterator[dict[int, Tensor]]:
        """Give new objects their ids and rows; yields id → H'×W' mask of every seed, in order.

        time: of frame `number` [s]; None: no frame has come yet.
        Where the block raises, the new objects are gone again.
        """
        given, new = {}, []
        try:
            for seed in seeds:
                object_id = seed.id or self._table.add(seed.name, number, time)
                if not seed.id:
                    new.append(object_id)
                given[object_id] = mask_to_tensor(seed.mask, geometry, self.device)
            self._segmenter.join([self._table.row(i) for i in new])
            yield given
        except BaseException:
            for row in self._table.withdraw(new):
                self._segmenter.leave(row)
            raise
        for seed in seeds:
            if seed.id:
                self._table.rename(seed.id, seed.name)
                self._table.seen(seed.id, number, time)

    def _encode_memory(
        self,
        image: Tensor,
        encoded: EncodedImage,
        masks: Tensor,
        visible: Tensor,
        given: dict[int, Tensor],
        *,
        alone: bool,
        deep_update: Iterable[int] | None = None,
    ) -> MemoryFrame:
        """Make a memory frame; masks and visible in order of id, given and deep_update by id (of all it remembers)."""
        seeded = {self._table.row(object_id): mask for object_id, mask in given.items()}
        if deep_update is None:
            deep_update = given if alone else self._table
        deep = [self._table.row(object_id) for object_id in deep_update]
        return self._segmenter.encode_memory(
            image, encoded, masks, self._table.rows, visible, seeded=seeded, deep_update=deep, alone=alone
        )

    def _observe(self, regions: dict[int, Region], sure: Tensor) -> list[TrackedObject]:
        """What a frame shows under each label, and O confidences → objects in order of id."""
        objects = []
        for object_id, label, worth in zip(self._table, self._table.labels, sure.tolist(), strict=True):
            found = regions[label]
            score = found.score * worth
            visible = found.area >= self.config.min_area and score >= self.config.min_score
            if not visible and not self.config.report_unsure:
                found = Region(0, found.score, None, (math.nan, math.nan))
            objects.append(
                self._table.observe(
                    object_id,
                    self._frame,
                    self._time,
                    visible=visible,
                    lost_after=self.config.lost_after,
                    score=score,
                    area=found.area,
                    box=found.box,
                    centroid=found.centroid,
                )
            )
        return objects


__all__ = [
    'AUTO_SIZE',
    'ObjectState',
    'SeedMask',
    'StepResult',
    'TrackedObject',
    'Tracker',
    'TrackerConfig',
    'pick_device',
]
