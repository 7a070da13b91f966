# SPDX-License-Identifier: MIT
"""Engines that run a tracker's network: torch, CUDA graphs or ONNX Runtime."""

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
    """Cache of engines that several trackers share, so that weights are on the device once.

    Loading is thread-safe. Only one tracker may use an engine at a time. An engine is freed with
    the last tracker that uses it.

    Arguments:
        trackers: expected number of trackers; ONNX models for as many image sizes stay loaded.
    """

    def __init__(self, trackers: int = 1) -> None:
        self._trackers = trackers
        self._kept: weakref.WeakValueDictionary[tuple[Any, ...], Engine] = weakref.WeakValueDictionary()
        self._fingerprints: dict[tuple[Any, ...], str] = {}
        self._lock = threading.Lock()

    def load(self, path: Path, config: TrackerConfig, device: torch.device) -> tuple[Engine, str]:
        """Return a cached engine of the same file and settings, or load it with `load_engine`."""
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
    """Load weights as an engine; returns it and the weights' SHA-256. Raises `WeightsError`."""
    network = load_network(path)
    weights = fingerprint(network.state_dict())
    dtype = pick_precision(config.precision, device, config.engine)
    if config.engine == 'onnxruntime':
        onnx = OnnxNetwork(network.config, weights, lambda: load_network(path), device, precision_name(dtype))
        return onnx, weights
    return engine_for(deployed(network, dtype, device), config, device, dtype), weights


def engine_for(network: Engine, config: TrackerConfig, device: torch.device, dtype: torch.dtype) -> Engine:
    """Make an engine of a network; a network that is an engine already is returned.

    Raises `ParameterError` or `DeviceError` if an ONNX network does not suit the settings.
    """
    if isinstance(network, OnnxNetwork):
        _check_onnx_network(network, config, device, dtype)
    if not isinstance(network, XMemNetwork):
        return network
    if config.engine == 'onnxruntime':
        source = network
        weights = fingerprint(source.state_dict())
        return OnnxNetwork(source.config, weights, lambda: source, device, precision_name(dtype))
    network = network.to(device).to(memory_format=torch.channels_last).eval()
    return GraphedNetwork(network) if config.cuda_graphs and device.type == 'cuda' else network


def _check_onnx_network(network: OnnxNetwork, config: TrackerConfig, device: torch.device, dtype: torch.dtype) -> None:
    """Raise if the tracker's engine, device or precision is not the ONNX network's."""
    if config.engine != 'onnxruntime':
        raise ParameterError(
            f"engine is {config.engine}, but the network is an ONNX network: set engine='onnxruntime', or pass the "
            'XMemNetwork that it was made from'
        )
    if (network.device.type, network.device.index or 0) != (device.type, device.index or 0):
        raise DeviceError(
            f'device is {device}, but the ONNX network was made for {network.device}: set '
            f'device={str(network.device)!r}, or make the network for {device}'
        )
    if network.precision != precision_name(dtype):
        raise ParameterError(
            f'precision is {config.precision}, here {precision_name(dtype)}, but the ONNX network was made for '
            f'{network.precision}: set precision={network.precision!r}, or make the network for {precision_name(dtype)}'
        )


def load_models(engine: Engine, config: TrackerConfig, image_size: tuple[int, int] | None) -> None:
    """Export, build and load the ONNX models for an image size; other engines need none.

    image_size: H, W in px; None: the size that these weights last ran on, if any.
    Raises `FrameError`, `EngineError`, `OutputError`.
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
    """Return the SHA-256 of the engine's current weights."""
    if isinstance(engine, OnnxNetwork):
        return engine.fingerprint
    network = engine.network if isinstance(engine, GraphedNetwork) else engine
    return fingerprint(network.state_dict())
