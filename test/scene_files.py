# SPDX-License-Identifier: MIT
"""Test files: a small data set of the rendered scene, and weights of an untrained network."""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.weights.files import bundled_folder

SIZE = (64, 96)  # height, width of the frames, px
BUNDLED = bundled_folder() / 'compact.safetensors'
FOOTAGE = Path(__file__).resolve().parents[2] / 'shared' / 'data'


class _KeptScene(RenderedScene):
    """Scene that keeps the frames that it has rendered, for reading only."""

    @functools.lru_cache(maxsize=64)  # noqa: B019 (27 MB; there is one such scene)
    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        frame, labels = super().__getitem__(index)
        frame.flags.writeable = labels.flags.writeable = False
        return frame, labels


@functools.cache
def rendered_scene() -> RenderedScene:
    """Return the rendered scene with three objects, made once for all files of tests."""
    return _KeptScene(objects=3)


def save_mask(path: Path, mask: np.ndarray) -> None:
    """Write a mask H×W uint8 as a grey PNG; create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def save_frame(path: Path, frame: np.ndarray) -> None:
    """Write a frame H×W×3 uint8 RGB as a JPEG; create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))


def save_sequence(
    root: Path,
    name: str = 'toys',
    *,
    frames: int = 5,
    objects: int = 2,
    size: tuple[int, int] = SIZE,
    binary: bool = False,
) -> RenderedScene:
    """Write the rendered scene as a sequence of a generic data set.

    binary: write all objects as one object of value 255.
    """
    scene = RenderedScene(size, frames=frames, objects=objects)
    for index, (frame, labels) in enumerate(scene):
        save_frame(root / 'JPEGImages' / name / f'{index:05d}.jpg', frame)
        mask = np.where(labels > 0, 255, 0).astype(np.uint8) if binary else labels
        save_mask(root / 'Annotations' / name / f'{index:05d}.png', mask)
    return scene


def save_untrained_weights(path: Path) -> Path:
    """Write an untrained network of a few channels, the same each time; return the path."""
    from tiny_networks import TINY, save_untrained

    return save_untrained(TINY, path)
