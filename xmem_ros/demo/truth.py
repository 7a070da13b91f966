# SPDX-License-Identifier: MIT
"""Seeds and ground truth of the demonstration. No ROS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xmem_ros.errors import SeedError
from xmem_ros.media import VOID, image_files, objects_of, read_mask
from xmem_ros.outside_text import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from xmem_ros.demo.scene import RenderedScene

Truth = dict[str, np.ndarray]  # name → H×W uint8: 1 the object, 255 void


@dataclass(frozen=True)
class DemoSeed:
    """Seed of one object: a mask H×W bool, or a box (x, y, width, height in px)."""

    name: str
    mask: np.ndarray | None = None
    box: tuple[int, int, int, int] | None = None


def scene_seeds(scene: RenderedScene) -> tuple[list[DemoSeed], Callable[[int], Truth]]:
    """Return mask seeds of all objects of the rendered scene, and a function: index → truth."""
    _, first = scene[0]
    seeds = [DemoSeed(name, mask=first == k + 1) for k, name in enumerate(scene.names)]

    def truth(index: int) -> Truth:
        _, labels = scene[index]
        return {name: (labels == k + 1).astype(np.uint8) for k, name in enumerate(scene.names)}

    return seeds, truth


def box_seed(text: str, frame: np.ndarray | None = None) -> DemoSeed:
    """Make a seed from a box `x,y,width,height` in px.

    Raises:
        SeedError: the text is not four numbers, or the box is not inside the frame H×W×3, if that
            is known.
    """
    try:
        x, y, across, down = (int(part) for part in text.split(','))
    except ValueError:
        raise SeedError(f'box {text!r}: give four whole numbers, x,y,width,height in px') from None
    if frame is None:
        return DemoSeed('object', box=(x, y, across, down))
    height, width = frame.shape[:2]
    if across < 1 or down < 1 or x < 0 or y < 0 or x + across > width or y + down > height:
        raise SeedError(f'box {text}: not inside the frame of {width}×{height} px; give x,y,width,height')
    return DemoSeed('object', box=(x, y, across, down))


def mask_seeds(path: Path, frame: np.ndarray, stems: list[str]) -> tuple[list[DemoSeed], Callable[[int], Truth]]:
    """Return seeds of all objects of a mask file, and a function: index → truth.

    The truth is in masks of later frames in the same folder.

    Arguments:
        path: mask of the first frame.
        frame: first frame, H×W×3.
        stems: names of the clip's frames without suffix, to find their masks.

    Raises:
        SeedError: the file cannot be read, has another size than the frame, or is empty.
    """
    notes: list[str] = []
    mask = read_mask(path, notes)
    for note in notes:
        say(note)
    if mask.shape != frame.shape[:2]:
        raise SeedError(
            f'{path}: the mask is {mask.shape[1]}×{mask.shape[0]} px, '
            f'the first frame {frame.shape[1]}×{frame.shape[0]}; resize the mask'
        )
    objects = objects_of(mask)
    if not objects:
        raise SeedError(f'{path}: the mask shows no object; give values from 1 to 255')
    binary = set(np.unique(mask).tolist()) <= {0, VOID}
    names = {value: f'object {value}' if len(objects) > 1 else 'object' for value in objects}
    beside = {file.stem: file for file in image_files(path.parent)}
    files = {index: beside[stem] for index, stem in enumerate(stems) if index and stem in beside}

    def truth(index: int) -> Truth:
        if index not in files:
            return {}
        values = read_mask(files[index])
        if values.shape != mask.shape:
            raise SeedError(f'{files[index]}: its size differs from that of {path}; resize it')
        if binary:
            return {names[1]: (values == VOID).astype(np.uint8)}
        void = (values == VOID).astype(np.uint8) * VOID if VOID not in names else 0
        return {name: (values == value).astype(np.uint8) + void for value, name in names.items()}

    return [DemoSeed(names[value], mask=inside) for value, inside in objects.items()], truth
