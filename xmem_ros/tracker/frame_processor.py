# SPDX-License-Identifier: MIT
"""One frame or seed through the segmenter: ids, memory policy and results of a tracker.

The callers have checked all arguments. Work that fails leaves the state unchanged, so it can be
repeated.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xmem_ros.network.model import EncodedImage
from xmem_ros.objects import ObjectState, ObjectTable, TrackedObject
from xmem_ros.snapshot_schema import ClockState
from xmem_ros.tracker.geometry import (
    FrameGeometry,
    Region,
    geometry_of,
    image_to_tensor,
    mask_to_tensor,
    observe_labels,
)
from xmem_ros.tracker.mask_fusion import merge_confidence, merge_masks
from xmem_ros.tracker.seed_validation import SeedMask
from xmem_ros.tracker.segmenter import MemoryUpdate, Segmenter
from xmem_ros.tracker.stage_timer import StageTimer

SENSORY_KEPT = 30  # frames out of sight after which an object's sensory memory is reset
FRAME_TIME = 1 / 30  # s between frames without a time
START = ClockState(0, 0, 0.0)


@dataclass(frozen=True)
class StepResult:
    """Result of one frame."""

    # H×W uint8, 0: background, else `TrackedObject.label`; the frame's size or `output_size`
    labels: np.ndarray
    objects: list[TrackedObject]  # in order of id; empty before the first seed
    ids: list[int]  # of the seeds given with this step, in their order
    timings_ms: dict[str, float]  # stage → milliseconds
    probabilities: np.ndarray | None = None  # (1+O)×H×W float32, background first; None: not requested


class FrameProcessor:
    """Objects, clock and segmenter of a tracker.

    Arguments:
        segmenter: network and memory, which know objects by their rows.
    """

    def __init__(self, segmenter: Segmenter):
        self.segmenter = segmenter
        self.table = ObjectTable(segmenter.config.max_objects)
        self.clock = START

    def clear(self) -> None:
        """Remove all objects and reset the clock; ids start again at 1."""
        self.table.clear()
        self.segmenter.clear()
        self.clock = START

    def step(
        self,
        frame: np.ndarray,
        seeds: list[SeedMask],
        time: float | None,
        *,
        last: bool,
        probabilities: bool,
        output_size: tuple[int, int],
    ) -> StepResult:
        """Track one frame; arguments as for `Tracker.step`, checked."""
        segmenter, config, table = self.segmenter, self.segmenter.config, self.table
        timer = StageTimer(segmenter.device)
        geometry = geometry_of(frame, config.size)
        number = self.clock.frame + 1
        time = self.clock.time + FRAME_TIME if time is None else float(time)
        if not table and not seeds:
            self.clock = ClockState(number, self.clock.last_memory_frame, time)
            return StepResult(np.zeros(output_size, np.uint8), [], [], timer.stop())
        segmenter.allocate(geometry)
        with timer('preprocess'):
            image = image_to_tensor(frame, geometry, segmenter.device)
        with timer('key'):
            encoded = segmenter.encode(image)
        due = number - self.clock.last_memory_frame >= config.memory_every
        seeded_only = bool(seeds) and not due and self._memorise_seeded_only(seeds)
        memorise = not last and (bool(seeds) or due)
        update = not last and (seeded_only or not memorise)
        existing, prediction, memory = list(table), None, None
        if set(existing) - {seed.id for seed in seeds}:
            prediction = segmenter.predict(image, encoded, table.rows, update=update, timer=timer)
        with self._admitted(seeds, geometry, number, time) as masks:
            joint = merge_masks(table, prediction.prob if prediction else None, existing, masks)
            sure, visible = merge_confidence(table, prediction, existing, masks, segmenter.device)
            with timer('value'):
                if memorise:
                    deep = list(masks if seeded_only else table)
                    memory = self._encode_memory(
                        image, encoded, joint[1:], visible, masks, deep_update=deep, seeded_only=seeded_only
                    )
            with timer('resize'):
                full = geometry.to_image(joint, output_size)
            with timer('postprocess'):
                labels, regions = observe_labels(full, [0, *table.labels], config.min_part_share)
                kept = full.float().cpu().numpy() if probabilities else None
            with timer('match'):
                if prediction:
                    segmenter.commit(prediction)
                if memory:
                    segmenter.write(memory)
        last_memory_frame = number if memory and not seeded_only else self.clock.last_memory_frame
        self.clock = ClockState(number, last_memory_frame, time)
        objects = self._observe(regions, sure)
        if config.memory.guard:
            gone = [item.id for item in objects if item.frames_since_seen > SENSORY_KEPT]
            segmenter.reset_sensory(table.rows_of(gone))
        if not config.report_unsure:
            hidden = [item.label for item in objects if item.state in (ObjectState.OCCLUDED, ObjectState.LOST)]
            if hidden:
                labels[np.isin(labels, hidden)] = 0
        return StepResult(labels, objects, list(masks), timer.stop(), kept)

    def seed(self, frame: np.ndarray, seeds: list[SeedMask], labels: np.ndarray | None) -> list[int]:
        """Start or correct objects; arguments as for `Tracker.seed`, checked."""
        segmenter, table = self.segmenter, self.table
        geometry = geometry_of(frame, segmenter.config.size)
        segmenter.allocate(geometry)
        image = image_to_tensor(frame, geometry, segmenter.device)
        encoded = segmenter.encode(image)
        seeded_only = self._memorise_seeded_only(seeds)
        existing, prediction, prob = list(table), None, None
        if set(existing) - {seed.id for seed in seeds}:
            if labels is None:
                prediction = segmenter.predict(image, encoded, table.rows, update=False)
                prob = prediction.prob
            else:
                planes = [mask_to_tensor(labels == label, geometry, segmenter.device) for label in table.labels]
                prob = torch.stack(planes)
        with self._admitted(seeds, geometry, self.clock.frame, self.clock.time if self.clock.frame else None) as masks:
            joint = merge_masks(table, prob, existing, masks)
            _, visible = merge_confidence(table, prediction, existing, masks, segmenter.device)
            # time does not advance: the sensory state of the other objects stays
            memory = self._encode_memory(
                image, encoded, joint[1:], visible, masks, deep_update=list(masks), seeded_only=seeded_only
            )
            segmenter.write(memory)
        if not seeded_only:
            self.clock = ClockState(self.clock.frame, self.clock.frame, self.clock.time)
        return list(masks)

    def _memorise_seeded_only(self, seeds: list[SeedMask]) -> bool:
        """Return whether a seed's frame becomes memory of the seeded objects alone.

        The policy of XMem's paper memorises all objects. With the guard, the others' masks are
        left out: they are only predictions, and a seed's frame becomes an anchor, so their errors
        would stay in memory for good.
        """
        return self.segmenter.config.memory.guard and bool(set(self.table) - {seed.id for seed in seeds})

    @contextlib.contextmanager
    def _admitted(
        self, seeds: list[SeedMask], geometry: FrameGeometry, number: int, time: float | None
    ) -> Iterator[dict[int, Tensor]]:
        """Add new objects; yields id → H×W mask of every seed, at the padded working size.

        number, time: of the frame; time in s, None before the first frame. If the block raises,
        the new objects are removed again.
        """
        masks: dict[int, Tensor] = {}
        new: list[int] = []
        try:
            for seed in seeds:
                object_id = seed.id or self.table.add(seed.name, number, time)
                if not seed.id:
                    new.append(object_id)
                masks[object_id] = mask_to_tensor(seed.mask, geometry, self.segmenter.device)
            self.segmenter.join(self.table.rows_of(new))
            yield masks
        except BaseException:
            for row in self.table.withdraw(new):
                self.segmenter.leave(row)
            raise
        for seed in seeds:
            if seed.id:
                self.table.rename(seed.id, seed.name)
                self.table.mark_seen(seed.id, number, time)

    def _encode_memory(
        self,
        image: Tensor,
        encoded: EncodedImage,
        prob: Tensor,
        visible: Tensor,
        masks: dict[int, Tensor],
        *,
        deep_update: Iterable[int],
        seeded_only: bool,
    ) -> MemoryUpdate:
        """Encode a memory frame.

        prob: O×H×W; visible: O bool; both in order of id; masks: id → mask of each seed;
        deep_update: ids.
        """
        table = self.table
        return self.segmenter.encode_memory(
            image,
            encoded,
            prob,
            table.rows,
            visible,
            seeded={table.row(object_id): mask for object_id, mask in masks.items()},
            deep_update=table.rows_of(deep_update),
            seeded_only=seeded_only,
        )

    def _observe(self, regions: dict[int, Region], sure: Tensor) -> list[TrackedObject]:
        """Update every object's state; regions: by label, sure: confidences O in order of id."""
        objects, config = [], self.segmenter.config
        for object_id, label, confidence in zip(self.table, self.table.labels, sure.tolist(), strict=True):
            region = regions[label]
            score = region.score * confidence
            visible = region.area >= config.min_area and score >= config.min_score
            if not visible and not config.report_unsure:
                region = Region(0, region.score, None, (math.nan, math.nan))
            objects.append(
                self.table.observe(
                    object_id,
                    self.clock.frame,
                    self.clock.time,
                    visible=visible,
                    lost_after=config.lost_after,
                    score=score,
                    area=region.area,
                    box=region.box,
                    centroid=region.centroid,
                )
            )
        return objects
