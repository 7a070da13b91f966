# SPDX-License-Identifier: MIT
"""What runs the network for a tracker: torch, torch with CUDA graphs, or ONNX Runtime."""

import threading
import weakref
from pathlib import Path
from typing import Any, TypeAlias

import torch

from xmem_ros.engines.cuda_graphs import GraphedNetwork
from xmem_ros.engines.deployment import deployed
from xmem_ros.engines.onnx_runtime import OnnxNetwork
from xmem_ros.errors import DeviceError, ParameterError
from xmem_ros.network.model import XMemNetwork
from xmem_ros.tracker.config import TrackerConfig, pick_precision, precision_name
from xmem_ros.tracker.geometry import FrameGeometry
from xmem_ros.weights.checkpoint import fingerprint, load_network

Engine: TypeAlias = XMemNetwork | OnnxNetwork | GraphedNetwork


class Engines:
    """Engines that several trackers share: the weights are on the device once. Thread-safe.

    An engine goes when the last tracker that uses it does. Only one of them may use it at a time.

    Arguments:
        trackers: as many as there will be; ONNX models stay loaded for as many sizes of image.
    """

    def __init__(self, trackers: int = 1) -> None:
        self._trackers = trackers
        self._kept: weakref.WeakValueDictionary[tuple[Any, ...], Engine] = weakref.WeakValueDictionary()
        self._fingerprints: dict[tuple[Any, ...], str] = {}
        self._lock = threading.Lock()

    def load(self, path: Path, config: TrackerConfig, device: torch.device) -> tuple[Engine, str]:
        """As `load_engine`, or what it gave before for the same file and settings."""
        changed = path.stat().st_mtime_ns
        key = (path, changed, config.engine, config.precision, config.cuda_graphs, str(device))
        with self._lock:
            engine = self._kept.get(key)
            if engine is None:
                engine, self._fingerprints[key] = load_engine(path, config, device)
                if isinstance(engine, OnnxNetwork):
                    engine.sizes_kept = max(engine.sizes_kept, self._trackers + 1)
                self._kept[key] = engine
            return engine, self._fingerprints[key]


def load_engine(path: Path, config: TrackerConfig, device: torch.device) -> tuple[Engine, str]:
    """Weights of a file, as a tracker runs them, and their SHA-256; raises `WeightsError`."""
    network = load_network(path)
    weights = fingerprint(network.state_dict())
    dtype = pick_precision(config.precision, device, config.engine)
    if config.engine == 'onnxruntime':
        onnx = OnnxNetwork(network.config, weights, lambda: load_network(path), device, precision_name(dtype))
        return onnx, weights
    return engine_for(deployed(network, dtype, device), config, device, dtype), weights


def engine_for(network: Engine, config: TrackerConfig, device: torch.device, dtype: torch.dtype) -> Engine:
    """The network on its device, as the settings ask for it; one that is not torch's alone is taken as it is.

    Raises `ParameterError` or `DeviceError` where that one was made for something else than is asked for.
    """
    if isinstance(network, OnnxNetwork):
        _check(network, config, device, dtype)
    if not isinstance(network, XMemNetwork):
        return network
    if config.engine == 'onnxruntime':
        source = network
        weights = fingerprint(source.state_dict())
        return OnnxNetwork(source.config, weights, lambda: source, device, precision_name(dtype))
    network = network.to(device).to(memory_format=torch.channels_last).eval()
    return GraphedNetwork(network) if config.cuda_graphs and device.type == 'cuda' else network


def _check(network: OnnxNetwork, config: TrackerConfig, device: torch.device, dtype: torch.dtype) -> None:
    """Raise where a network was made for another engine, device or precision than a tracker is to run."""
    if config.engine != 'onnxruntime':
        raise ParameterError(
            f"engine is {config.engine}, but the network given runs on ONNX Runtime: set engine='onnxruntime', or give "
            'the XMemNetwork that it was made of'
        )
    if (network.device.type, network.device.index or 0) != (device.type, device.index or 0):
        raise DeviceError(
            f'the tracker is to run on {device}, but the ONNX network given was made for {network.device}: give the '
            f'tracker device={str(network.device)!r}, or make the network for {device}'
        )
    if network.precision != precision_name(dtype):
        raise ParameterError(
            f'precision is {config.precision}, here {precision_name(dtype)}, but the ONNX network given was made for '
            f'{network.precision}: set precision={network.precision!r}, or make the network for {precision_name(dtype)}'
        )


def prepare(engine: Engine, config: TrackerConfig, image_size: tuple[int, int] | None) -> None:
    """Export, build and load what images of a size (H, W) need, before there are any; torch needs nothing.

    image_size: None stands for the size that these weights ran on last, where they did. Raises `FrameError`,
    `EngineError`, `OutputError`.
    """
    if not isinstance(engine, OnnxNetwork):
        return
    if image_size is None:
        size = engine.newest_size(config.size)
    else:
        size = FrameGeometry.of(image_size, config.size).padded_size
    if size is not None:
        engine.prepare(size, config.max_objects)


def fingerprint_of(engine: Engine) -> str:
    """SHA-256 of the weights as they are now."""
    if isinstance(engine, OnnxNetwork):
        return engine.fingerprint
    network = engine.network if isinstance(engine, GraphedNetwork) else engine
    return fingerprint(network.state_dict())
