# SPDX-License-Identifier: MIT
"""Training data of the rendered scene, and settings of a run that takes seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_networks import TINY, save_untrained

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.training.config import ClipConfig, TrainingConfig


@pytest.fixture(scope='session')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered scene as a video and as stills, in the layouts of training."""
    root = tmp_path_factory.mktemp('data')
    scene = RenderedScene((96, 144), 12, 2, seed=0)
    for folder in ('video/JPEGImages/scene', 'video/Annotations/scene', 'stills/images', 'stills/masks'):
        (root / folder).mkdir(parents=True)
    for number in range(12):
        frame, labels = scene[number]
        cv2.imwrite(str(root / f'video/JPEGImages/scene/{number:05}.png'), frame[:, :, ::-1])
        cv2.imwrite(str(root / f'video/Annotations/scene/{number:05}.png'), labels)
        if number < 3:
            cv2.imwrite(str(root / f'stills/images/{number}.png'), frame[:, :, ::-1])
            cv2.imwrite(str(root / f'stills/masks/{number}.png'), (labels == 1).astype(np.uint8) * 255)
    return root


@pytest.fixture(scope='session')
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny network; a run that starts from them trains a network of that shape."""
    return save_untrained(TINY, tmp_path_factory.mktemp('tiny') / 'tiny.safetensors')


@pytest.fixture(scope='session')
def small(tiny: Path) -> Callable[..., TrainingConfig]:
    """Settings of a run of four iterations, with changes."""
    config = TrainingConfig(
        videos=('video',),
        stills=('stills',),
        start_from=str(tiny),
        clips=ClipConfig(size=48, frames=3),
        iterations=4,
        batch=2,
        warmup=1,
        workers=0,
        save_every=2,
    )
    return lambda **changes: dataclasses.replace(config, **changes)
