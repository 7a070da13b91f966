# SPDX-License-Identifier: MIT
"""Pictures of the worst frames of a case: tracked masks beside the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xmem_ros.media import VOID
from xmem_ros.overlay import draw
from xmem_ros.regress.results import Tile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xmem_ros.objects import TrackedObject
    from xmem_ros.regress.overlaps import Overlap
    from xmem_ros.regress.suite import Reference

WORST = 4  # frames
APART = 10  # minimum number of frames between two of them
WIDTH = 2 * 420  # px of a picture


@dataclass(frozen=True)
class _Kept:
    index: int
    iou: float
    tile: Tile


class WorstFrames:
    """Pictures of the frames with the lowest IoU; a bounded number for any length."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._kept: list[_Kept] = []
        self._begun = False  # whether anything was tracked
        self._own: dict[int, int] = {}  # value in the reference → its first matched id

    def add(
        self,
        index: int,
        overlap: Overlap,
        image: Callable[[], np.ndarray],
        labels: np.ndarray,
        objects: Sequence[TrackedObject],
        mask: np.ndarray,
    ) -> None:
        """Add a frame.

        Arguments:
            index: of the frame.
            overlap: of its masks and the reference.
            image: → H×W×3 uint8 RGB.
            labels: H×W uint8.
            objects: tracked in the frame.
            mask: reference, H×W uint8.
        """
        for value in overlap.reference:
            key = overlap.match(value)
            if key is not None:
                self._own.setdefault(value, key)
        self._begun = self._begun or any(overlap.ages.values())
        if not self._begun or (overlap.ages and not any(overlap.ages.values())):
            return  # the frame of the seeds, or an earlier one
        ious = {
            value: overlap.iou(value, self._own.get(value))
            for value in sorted(set(self._reference.objects) or {*overlap.reference, *self._own})
            if not 0 < overlap.reference.get(value, 0) < self._reference.min_area
            and self._own.get(value) not in overlap.removed - overlap.ages.keys()
        }
        if not ious:
            return
        value, iou = min(ious.items(), key=lambda item: item[1])
        near = [kept for kept in self._kept if abs(kept.index - index) < APART]
        rivals = near or (self._kept if len(self._kept) == WORST else [])
        if rivals and iou >= (min if near else max)(kept.iou for kept in rivals):
            return
        replaced = near or [max(rivals, key=lambda kept: kept.iou)] if rivals else []
        pixels = image()
        pair = np.hstack([draw(pixels, labels, objects), draw(pixels, self._colours(objects)[mask])])
        name = overlap.names.get(self._own.get(value, 0)) or f'object {value}'
        text = f'frame {overlap.frame}: IoU of {name} {100 * iou:.0f} %'
        from xmem_ros.evaluation.report import picture  # imports torch

        tile = Tile(text, picture(pair, f'frame {overlap.frame}', WIDTH))
        self._kept = [kept for kept in self._kept if kept not in replaced] + [_Kept(index, iou, tile)]

    @property
    def tiles(self) -> list[Tile]:
        """Pictures, worst first."""
        return [kept.tile for kept in sorted(self._kept, key=lambda kept: (kept.iou, kept.index))]

    def _colours(self, objects: Sequence[TrackedObject]) -> np.ndarray:
        """Map reference values to labels, so that matched objects share a colour; 256 uint8."""
        label_of = {item.id: item.label for item in objects}
        colours = np.arange(256, dtype=np.uint8)
        colours[VOID] = 0
        for value, key in self._own.items():
            colours[value] = label_of.get(key, value)
        return colours
