# SPDX-License-Identifier: MIT
"""Kinds of inputs: seed corpus, mutation and entry point; helpers that several kinds share."""

from __future__ import annotations

import functools
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from fuzz.mutation import Source
from fuzz.sandbox import Link, Places

SIZE = (24, 32)  # height, width of the images, px
FRAMES = 3


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        name: as on the command line.
        make: builds the seed corpus, valid inputs: path below the input folder → bytes.
        mutate: mutates a valid input.
        work: entry point, called in the child; returns an exit code, or None.
        allowed: error types that `work` may raise.
        codes: allowed exit codes.
        may: allowed audit events and symptoms.
    """

    name: str
    make: Callable[[], list[dict[str, bytes]]]
    mutate: Callable[[Source, dict[str, bytes]], dict[str, bytes | Link]]
    work: Callable[[Places], int | None]
    allowed: tuple[type[BaseException], ...] = ()
    codes: frozenset[int] = field(default_factory=lambda: frozenset({0, 2}))
    may: frozenset[str] = frozenset()


@functools.cache
def tiny_weights() -> bytes:
    """Build a safetensors file of a tiny untrained network."""
    from xmem_ros.weights.checkpoint import save_network

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'tiny.safetensors'
        save_network(tiny_network(), path)
        return path.read_bytes()


def tiny_network() -> Any:
    """Build the tiny network."""
    from xmem_ros.network.config import NetworkConfig
    from xmem_ros.network.model import XMemNetwork

    four = (4, 4, 4, 4)
    config = NetworkConfig(
        key_bottleneck=False,
        key_widths=four,
        key_depths=(1, 1, 1),
        value_widths=four,
        value_depths=(1, 1, 1),
        key_dim=4,
        value_dim=8,
        sensory_dim=4,
        sensory_mid=4,
        decoder_widths=(4, 4, 4),
        gate_reduction=4,
        train_norm=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return XMemNetwork(config)


@functools.cache
def tiny_file() -> Path:
    """Write the tiny weights to a temporary file."""
    folder = tempfile.TemporaryDirectory(prefix='xmem_fuzz_weights_')
    path = Path(folder.name) / 'tiny.safetensors'
    path.write_bytes(tiny_weights())
    _kept.append(folder)
    return path


_kept: list[Any] = []  # temporary folders, removed at exit


@functools.cache
def frames() -> list[np.ndarray]:
    """Draw the frames, H×W×3 uint8 RGB."""
    source = np.random.default_rng(0)
    ground = source.integers(0, 80, (*SIZE, 3), np.uint8)
    found = []
    for index in range(FRAMES):
        frame = ground.copy()
        frame[6:16, 6 + index : 18 + index] = (200, 180, 40)
        frame[18:23, 20:30] = (30, 60, 220)
        found.append(frame)
    return found


@functools.cache
def mask() -> np.ndarray:
    """Draw the mask of the first frame, H×W uint8."""
    found = np.zeros(SIZE, np.uint8)
    found[6:16, 6:18] = 1
    return found


def encoded(pixels: np.ndarray, suffix: str) -> bytes:
    """Encode pixels H×W or H×W×3 RGB as an image file."""
    done, data = cv2.imencode(suffix, pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    assert done
    return bytes(data.tobytes())


def saved(write: Callable[[Path], Any], name: str) -> bytes:
    """Return the bytes that a function writes to a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path)
        return path.read_bytes()


def tree_of(folder: Path) -> dict[str, bytes]:
    """Read all files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


def torch_saved(state: Any) -> bytes:
    """Serialize by torch.save."""
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


@functools.cache
def keep_networks() -> None:
    """Load the harness's own weights once; children inherit the network."""
    from xmem_ros.tracker import tracker

    load = tracker.load_engine
    kept = functools.cache(load)
    tracker.load_engine = lambda path, *settings: (kept if path == tiny_file() else load)(path, *settings)


def track(places: Places, source: Path, *options: str) -> int:
    """Run `xmem-ros track` with the tiny network."""
    from xmem_ros.cli.main import main

    keep_networks()

    out = str(places.work / 'out')
    fixed = ('--weights', str(tiny_file()), '--size', '16', '--device', 'cpu')
    return main(['track', str(source), '--out', out, *options, *fixed])
