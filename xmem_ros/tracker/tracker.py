# SPDX-License-Identifier: MIT
"""Tracker: frames and seeds in, masks out. Streaming XMem without ROS.

A seed is a mask that starts a new object or corrects a known one.

    tracker = Tracker.from_weights('compact')
    ids = tracker.seed(first_frame, {'cup': mask})
    result = tracker.step(next_frame)

Not thread-safe: one thread owns a tracker.
"""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

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
from xmem_ros.objects import ObjectState, ObjectTable, TrackedObject
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
from xmem_ros.tracker.engine import Engine, Engines, engine_for, fingerprint_of, load_engine, load_models
from xmem_ros.tracker.frame_processor import FrameProcessor, StepResult
from xmem_ros.tracker.geometry import FrameGeometry, geometry_of, image_to_tensor, mask_to_tensor
from xmem_ros.tracker.oom_recovery import OomRecovery, is_out_of_memory
from xmem_ros.tracker.seed_validation import SeedMask, check_ids, check_labels, check_mask, check_seeds
from xmem_ros.tracker.segmenter import Segmenter
from xmem_ros.tracker.snapshot import Snapshot
from xmem_ros.weights.files import find_weights

# Limit for results that are larger than their frame; an object takes 4 bytes per pixel.
MOST_OUTPUT_PIXELS = 1 << 26


class Tracker:
    """Tracks up to `config.max_objects` objects through a stream of frames.

    Arguments:
        network: XMem network, or an engine that runs one.
        config: settings; None: `TrackerConfig()`.
        device: cpu, cuda, cuda:N or auto.
    """

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
        self._segmenter = Segmenter(self.network, config, self.device, self.dtype)
        self._frames = FrameProcessor(self._segmenter)
        self._recovery = OomRecovery(self._segmenter)

    @classmethod
    def from_weights(
        cls,
        weights: str | Path = 'compact',
        *,
        device: str | torch.device = 'auto',
        config: TrackerConfig | None = None,
        engines: Engines | None = None,
    ) -> 'Tracker':
        """Load weights by name or path, or share them through `engines`.

        Raises `WeightsError`, `DeviceError`, `ParameterError`.
        """
        chosen = pick_device(device)
        config = given_config(config)
        load = engines.load if engines else load_engine
        engine, fingerprint = load(find_weights(weights), config, chosen)
        tracker = cls(engine, config, chosen)
        tracker.fingerprint = fingerprint  # of the weights as loaded; engines change them
        return tracker

    # --- tracking

    @torch.inference_mode()
    def prepare(self, image_size: tuple[int, int] | None = None) -> None:
        """Export, build and load ONNX models for an image size, so that no frame waits for them.

        The models process up to `config.max_objects` objects. Engines without ONNX need no
        preparation.
        image_size: H, W in px; None: the size of the last run with these weights, if any.
        Raises `FrameError`, `EngineError`, `OutputError`, `OutOfMemoryError`.
        """
        if image_size is not None:
            image_size = checked_size('image_size', image_size, FrameError)
        try:
            load_models(self.network, self.config, image_size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f'memory ran out on {self.device} while ONNX models were loaded for up to {self.config.max_objects} '
                'objects: set a smaller max_objects or size, or skip the preparation (parameter prepare: none)'
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
        """Track one frame, and start or correct the objects in `seeds` with it.

        Arguments:
            frame: H×W×3 uint8 RGB.
            seeds: masks, as for `seed`.
            time: time of the frame in s, by which objects become LOST; None: 1/30 s after the
                previous frame.
            last: whether this is the last frame; memory is then not updated.
            probabilities: whether to return probabilities in the result.
            output_size: H, W of the result in px; None: those of the frame.

        The result's `objects` is empty until an object has been seeded, with this or an earlier
        frame. Raises `FrameError`, `SeedError`, `UnknownObjectError`, `OutOfMemoryError`; the state
        is then unchanged.
        """
        masks = check_seeds(seeds, geometry_of(frame, self.config.size).image_size, self._frames.table)
        if time is not None and not (is_number(time) and math.isfinite(time)):
            raise FrameError(f'time is {quoted(time)}; give the time of the frame in s, or None to count frames')
        if output_size is not None:
            output_size = checked_size('output_size', output_size, FrameError)
            if math.prod(output_size) > MOST_OUTPUT_PIXELS and output_size != np.shape(frame)[:2]:
                raise FrameError(
                    f'output_size is {quoted(output_size)}; give at most {MOST_OUTPUT_PIXELS} px in all, or '
                    'the size of the frame'
                )
        size = output_size or frame.shape[:2]
        result = self._recovery.run(
            lambda: self._frames.step(frame, masks, time, last=last, probabilities=probabilities, output_size=size)
        )
        self._recovery.consolidate()
        return result

    @torch.inference_mode()
    def seed(
        self,
        frame: np.ndarray,
        masks: Mapping[str | int, np.ndarray] | Sequence[SeedMask],
        *,
        labels: np.ndarray | None = None,
    ) -> list[int]:
        """Start new objects, or correct known ones, on a frame; time does not advance.

        Arguments:
            frame: H×W×3 uint8 RGB, the newest frame or an earlier one.
            masks: name → mask of a new object, id → mask of a known one, or `SeedMask` items. Where
                two masks overlap, the later one wins.
            labels: H×W uint8, the result of `step` for this frame, which shows the other objects;
                None: segment them first.

        Returns the ids in the order of the masks. Raises `SeedError`, `UnknownObjectError`,
        `FrameError`, `OutOfMemoryError`; no mask is then applied.
        """
        geometry = geometry_of(frame, self.config.size)
        seeds = check_seeds(masks, geometry.image_size, self._frames.table)
        if not seeds:
            raise SeedError('no mask was given; give at least one')
        if labels is not None:
            labels = check_labels(labels, geometry.image_size)
        current = self._segmenter.geometry
        others = labels is not None and bool(self._frames.table)
        if others and current is not None and geometry.grid_size != current.grid_size:
            raise SeedError(
                f'the frame is {geometry.image_size} (H, W), but newer frames are {current.image_size}: '
                'seed on a frame of that size'
            )
        ids = self._recovery.run(lambda: self._frames.seed(frame, seeds, labels))
        self._recovery.consolidate()
        return ids

    @torch.inference_mode()
    def likeness(self, frame: np.ndarray, masks: Sequence[np.ndarray], ids: Sequence[int]) -> np.ndarray:
        """Return how similar masked regions look to objects so far; the state is unchanged.

        frame: H×W×3 uint8 RGB; masks: M masks H×W; ids: of O objects. Returns M×O similarities,
        −1…1, from which scores are computed. Raises `FrameError`, `SeedError`,
        `UnknownObjectError`.
        """
        geometry = geometry_of(frame, self.config.size)
        checked = [check_mask(mask, geometry.image_size, f'mask {n}') for n, mask in enumerate(masks, 1)]
        ids = checked_ids(ids)
        self._frames.table.check_known(ids)
        if not checked or not ids:
            return np.zeros((len(checked), len(ids)), np.float32)
        image = image_to_tensor(frame, geometry, self.device)
        planes = torch.stack([mask_to_tensor(mask, geometry, self.device) for mask in checked])
        return self._segmenter.likeness(image, planes, self._frames.table.rows_of(ids)).float().cpu().numpy()

    def check_ids(self, ids: Sequence[int]) -> None:
        """Check the ids of one `seed` call before its masks are computed; 0 means a new object.

        Raises `UnknownObjectError`, `SeedError`.
        """
        check_ids(ids, self._frames.table)

    @torch.inference_mode()
    def remove(self, ids: int | Iterable[int]) -> list[int]:
        """Remove objects; the others are unaffected.

        Returns the ids. Raises `UnknownObjectError` for any unknown id; none is then removed.
        """
        wanted, table = list(dict.fromkeys(checked_ids(ids))), self._frames.table
        table.check_known(wanted)
        for object_id in wanted:
            self._segmenter.leave(table.remove(object_id))
        return wanted

    @torch.inference_mode()
    def reset(self) -> None:
        """Remove all objects and restart the clock; ids start again at 1."""
        self._frames.clear()

    def warm_up(self, image_size: tuple[int, int]) -> None:
        """Run dummy frames so that the first real one does not wait; then reset.

        This allocates the memory and loads kernels. Images that give another working size allocate
        the memory again.
        image_size: H, W in px. Raises `FrameError`, `OutOfMemoryError`.
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

    # --- snapshots

    def save(self, path: str | Path) -> None:
        """Write the state to a memory file.

        Missing parent folders are created, and an existing file is replaced.
        Raises `MemoryFileError`.
        """
        snapshot.write(self.export_state(), checked_path('the memory file', path, MemoryFileError))

    def load(self, path: str | Path) -> list[int]:
        """Restore the state from a memory file; returns the ids.

        The weights must be the same; device, working size and settings may differ.
        Raises `MemoryFileError`; the state is then unchanged.
        """
        path = checked_path('the memory file', path, MemoryFileError)
        return self.import_state(snapshot.read(path, self.fingerprint))

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the network's weights."""
        return fingerprint_of(self.network)

    @torch.inference_mode()
    def export_state(self) -> Snapshot:
        """Copy the state to host memory."""
        table = self._frames.table
        state = self._segmenter.export_state() if table else None
        return Snapshot(self.fingerprint, table.export_state(), self._frames.clock, state)

    @torch.inference_mode()
    def import_state(self, saved: Snapshot) -> list[int]:
        """Restore the state from a snapshot; returns the ids.

        Raises `MemoryFileError`; the state is then unchanged.
        """
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
        self._frames.table, self._frames.clock = table, saved.clock
        return list(table)

    # --- settings and figures

    @property
    def config(self) -> TrackerConfig:
        """Settings.

        After construction only `memory_every`, `min_area`, `min_part_share`, `min_score`,
        `report_unsure` and `lost_after` may be changed.
        """
        return self._segmenter.config

    @config.setter
    def config(self, config: TrackerConfig) -> None:
        self._segmenter.config = config

    @property
    def objects(self) -> list[TrackedObject]:
        """Every object as last observed, in order of id."""
        return self._frames.table.shown

    @property
    def memory_bytes(self) -> int:
        """Bytes allocated for memory on the device."""
        return self._segmenter.nbytes

    def memory_bytes_with(self, size: tuple[int, int]) -> int:
        """Return the bytes that memory will take for images of `size` (H, W).

        Raises `FrameError` if the memory budget is too small.
        """
        return self.memory_bytes_for(
            size,
            self.config.max_objects,
            network=self.network.config,
            config=self.config,
            dtype=self._segmenter.value_dtype,
        )

    @property
    def given_up(self) -> list[str]:
        """Measures that out-of-memory recovery has taken, as text, oldest first."""
        return list(self._recovery.given_up)

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
        """Return the bytes that memory takes for images of `size` (H, W); needs no tracker.

        dtype: type of the memory's values: the tracker's precision on CUDA, float32 elsewhere.
        Raises `FrameError` if `config.memory_budget_mb` is too small.
        """
        network = network or XMEM
        config = replace(with_size(given_config(config), network), max_objects=max_objects)
        geometry = FrameGeometry.of(checked_size('size', size, FrameError), config.size)
        memory = memory_budget.fitted(geometry, config, config.memory, network, dtype)
        return memory_budget.bytes_for(geometry, memory, max_objects, network, dtype)


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
