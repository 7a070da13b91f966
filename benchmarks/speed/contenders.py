# SPDX-License-Identifier: MIT
"""Contenders of the benchmark: our tracker in several precisions, and the authors' one."""

from __future__ import annotations

import argparse
import copy
import time
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from parity import generated_network

from speed.authors import Reference
from speed.floor import Work, WorkCounter
from speed.fullness import Filling, fill
from xmem_ros.demo.scene import RenderedScene
from xmem_ros.engines.deployment import deployed
from xmem_ros.memory.config import MemoryConfig
from xmem_ros.network.model import XMemNetwork
from xmem_ros.tracker import Tracker, TrackerConfig, frame_processor
from xmem_ros.weights.checkpoint import load_network
from xmem_ros.weights.files import find_weights


def masks_for(scene: RenderedScene, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first frame and labels 1…objects; splits objects if the scene has fewer."""
    frame, labels = scene[0]
    out = np.where(labels <= objects, labels, 0).astype(np.uint8)
    have = int(out.max())
    for new in range(have + 1, objects + 1):
        sizes = np.bincount(out.ravel(), minlength=new)
        largest = 1 + int(sizes[1:new].argmax())
        columns = np.nonzero((out == largest).any(0))[0]
        right = np.zeros_like(out, bool)
        right[:, int(np.median(columns)) :] = True
        out[(out == largest) & right] = new
    return frame, out


class Contender:
    """One of our trackers or the reference; keeps the probabilities of the last frame."""

    def __init__(self, name: str, device: str, *, tracker: Tracker | None = None, reference: Reference | None = None):
        self.name, self.device, self.ours = name, device, tracker is not None
        self._tracker, self._reference = tracker, reference
        self.probabilities = torch.empty(0)  # (1+O)×H×W of the last frame
        self.peers: list[Contender] = []
        self._resident = self._peak = 0

    @property
    def tracker(self) -> Tracker:
        """Our tracker."""
        assert self._tracker is not None
        return self._tracker

    @property
    def dtype(self) -> torch.dtype:
        """Data type of our tracker."""
        return self.tracker.dtype

    @property
    def elements(self) -> dict[str, int]:
        """Positions in working and long-term memory."""
        return self.tracker.memory_elements if self._reference is None else self._reference.elements

    @property
    def peak_bytes(self) -> int:
        """Peak memory: allocated bytes on CUDA, else bytes of the stores (reference: 0)."""
        if self.device.startswith('cuda'):
            return self._peak
        return self.tracker.memory_bytes if self.ours else 0

    def reference_peak_bytes(self, name: str) -> int:
        """Return the peak memory of another contender."""
        return next((peer.peak_bytes for peer in self.peers if peer.name == name), 0)

    def begin(self, frame: np.ndarray, labels: np.ndarray) -> None:
        """Seed labels 1…O."""
        if self._reference is not None:
            reference = self._reference
            self._accounted(lambda: reference.step(frame, labels))
        else:
            masks = {f'object {value}': labels == value for value in range(1, int(labels.max()) + 1)}
            self._accounted(lambda: self.tracker.step(frame, masks))

    def fill(self, filling: Filling) -> None:
        """Fill the memory."""
        if self._reference is not None:
            reference = self._reference
            self._accounted(lambda: reference.fill(filling.working, filling.long_term))
        else:
            self._accounted(lambda: fill(self.tracker, filling))

    def step(self, frame: np.ndarray) -> tuple[float, dict[str, float]]:
        """Track a frame; returns milliseconds, and those of the stages if known."""
        if self._reference is not None:
            reference, begin = self._reference, time.perf_counter()
            self.probabilities = self._accounted(lambda: reference.step(frame)).float()
            return (time.perf_counter() - begin) * 1e3, {}
        kept: list[torch.Tensor] = []
        observe = frame_processor.observe_labels

        def observed(joint: torch.Tensor, *others: Any) -> Any:
            kept.append(joint)  # on the device, without a copy
            return observe(joint, *others)

        with patch.object(frame_processor, 'observe_labels', observed):
            begin = time.perf_counter()
            result = self._accounted(lambda: self.tracker.step(frame))
            ms = (time.perf_counter() - begin) * 1e3
        self.probabilities = kept[0].float()
        return ms, result.timings_ms

    def count(self, frame: np.ndarray) -> Work:
        """Count the work of an average step of five: four sensory updates, one memory frame."""
        with WorkCounter() as counter:
            for _ in range(5):
                self.tracker.step(frame)
        return counter.work / 5

    def close(self) -> None:
        """Free the memory."""
        self._tracker = self._reference = None
        self.probabilities = torch.empty(0)
        if self.device.startswith('cuda'):
            torch.cuda.empty_cache()

    def _accounted(self, call: Any) -> Any:
        """Call a function and record the allocator's peak for this contender."""
        if not self.device.startswith('cuda'):
            return call()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        out = call()
        torch.cuda.synchronize()
        self._peak = max(self._peak, self._resident + torch.cuda.max_memory_allocated() - before)
        self._resident += torch.cuda.memory_allocated() - before
        return out


def make_contenders(model: str, objects: int, args: argparse.Namespace) -> list[Contender]:
    """Make ours in float32 (the baseline) and reduced precision, then the reference in each."""
    network = _network(model, args.weights)
    memory = MemoryConfig().published() if args.policy == 'published' else MemoryConfig()
    reduced = 'float16' if args.device.startswith('cuda') else 'bfloat16'
    out = []
    for name in ('float32', 'reduced'):
        if name not in args.precisions and name != 'float32':
            continue
        precision = 'float32' if name == 'float32' else reduced
        engine = args.engine if name in args.precisions else 'torch'
        config = TrackerConfig(
            size=0,
            precision=precision,
            engine=engine,
            cuda_graphs=args.cuda_graphs,
            max_objects=max(objects, 1),
            memory=memory,
        )
        before = torch.cuda.memory_allocated() if args.device.startswith('cuda') else 0
        contender = Contender(name, args.device, tracker=_tracker(network, config, args))
        contender._resident = (torch.cuda.memory_allocated() - before) if args.device.startswith('cuda') else 0
        out.append(contender)
    if args.reference and model == 'xmem':
        kinds = [('reference', False)]
        if args.device.startswith('cuda') and 'reduced' in args.precisions:
            kinds.append(('reference reduced', True))
        for name, amp in kinds:
            before = torch.cuda.memory_allocated() if args.device.startswith('cuda') else 0
            reference = Reference(args.reference, network, objects, args.device, amp=amp)
            contender = Contender(name, args.device, reference=reference)
            contender._resident = (torch.cuda.memory_allocated() - before) if args.device.startswith('cuda') else 0
            out.append(contender)
    for contender in out:
        contender.peers = out
    return out


def _network(model: str, weights: str | None) -> XMemNetwork:
    if model == 'xmem':
        return load_network(find_weights(weights)) if weights else generated_network(2)
    return load_network(find_weights(model))


def _tracker(network: XMemNetwork, config: TrackerConfig, args: argparse.Namespace) -> Tracker:
    from xmem_ros.tracker.config import pick_precision

    if config.engine == 'onnxruntime':
        return Tracker(network, config, args.device)
    dtype = pick_precision(config.precision, torch.device(args.device))
    return Tracker(deployed(copy.deepcopy(network), dtype, args.device), config, args.device)
