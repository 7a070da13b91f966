# SPDX-License-Identifier: MIT
"""The worst frames of a case, drawn as they pass by: what was tracked beside the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xmem_ros.evaluation.report import picture
from xmem_ros.media import VOID
from xmem_ros.overlay import draw
from xmem_ros.regress.results import Tile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xmem_ros.objects import TrackedObject
    from xmem_ros.regress.overlaps import Overlap
    from xmem_ros.regress.suite import Reference

WORST = 4  # frames
APART = 10  # frames between two of them at least, so that they are not all of one moment
WIDTH = 2 * 420  # px of a picture


@dataclass(frozen=True)
class _Kept:
    index: int
    iou: float
    tile: Tile


class WorstFrames:
    """Keeps pictures of the frames whose masks overlap least with the reference, whatever the recording's length."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._kept: list[_Kept] = []
        self._begun = False  # whether anything was tracked
        self._own: dict[int, int] = {}  # reference value → id that it was matched with first

    def add(
        self,
        index: int,
        seen: Overlap,
        image: Callable[[], np.ndarray],
        labels: np.ndarray,
        objects: Sequence[TrackedObject],
        truth: np.ndarray,
    ) -> None:
        """Look at a frame: image gives H×W×3 uint8 RGB, labels and truth H×W uint8."""
        for value in seen.truth:
            key = seen.match(value)
            if key is not None:
                self._own.setdefault(value, key)
        self._begun = self._begun or any(seen.ages.values())
        if not self._begun or (seen.ages and not any(seen.ages.values())):
            return  # the frame of the seeds, or before them
        ious = {
            value: seen.iou(value, self._own.get(value))
            for value in sorted(set(self._reference.objects) or {*seen.truth, *self._own})
            if not 0 < seen.truth.get(value, 0) < self._reference.min_area
            and self._own.get(value) not in seen.removed - seen.ages.keys()
        }
        if not ious:
            return
        value, iou = min(ious.items(), key=lambda item: item[1])
        beside = [kept for kept in self._kept if abs(kept.index - index) < APART]
        rivals = beside or (self._kept if len(self._kept) == WORST else [])
        if rivals and iou >= (min if beside else max)(kept.iou for kept in rivals):
            return
        gone = beside or [max(rivals, key=lambda kept: kept.iou)] if rivals else []
        pixels = image()
        pair = np.hstack([draw(pixels, labels, objects), draw(pixels, self._colours(objects)[truth])])
        name = seen.names.get(self._own.get(value, 0)) or f'object {value}'
        text = f'frame {seen.frame}: IoU of {name} {100 * iou:.0f} %'
        tile = Tile(text, picture(pair, f'frame {seen.frame}', WIDTH))
        self._kept = [kept for kept in self._kept if kept not in gone] + [_Kept(index, iou, tile)]

    @property
    def tiles(self) -> list[Tile]:
        """The pictures, the worst first."""
        return [kept.tile for kept in sorted(self._kept, key=lambda kept: (kept.iou, kept.index))]

    def _colours(self, objects: Sequence[TrackedObject]) -> np.ndarray:
        """Reference value → label whose colour it has: that of the object that it is. 256 uint8."""
        label_of = {item.id: item.label for item in objects}
        colours = np.arange(256, dtype=np.uint8)
        colours[VOID] = 0
        for value, key in self._own.items():
            colours[value] = label_of.get(key, value)
        return colours
