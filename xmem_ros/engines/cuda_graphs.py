# SPDX-License-Identifier: MIT
"""CUDA graphs of the network: the kernels of a function are recorded once per shape and replayed.

A step of a small network has several hundred kernels; launching them takes longer than running
them.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from xmem_ros.engines.buckets import BUCKETS, in_buckets
from xmem_ros.network.model import EncodedImage

if TYPE_CHECKING:
    from xmem_ros.network.config import NetworkConfig
    from xmem_ros.network.model import XMemNetwork

Tensors = Mapping[str, Tensor]
Function = Callable[[Tensors], dict[str, Tensor]]
# Records a function of tensors at fixed addresses; returns the replay and its output tensors.
Recorder = Callable[[Function, Tensors], tuple[Callable[[], Any], dict[str, Tensor]]]

WARM_UP = 3  # calls before recording, while libraries select kernels
GRAPHS_KEPT = 32  # enough for two image sizes with all functions and buckets

log = logging.getLogger(__name__)


class CudaRecorder:
    """Recorder of CUDA graphs. They share a memory pool, but each keeps its own outputs."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, function: Function, inputs: Tensors) -> tuple[Callable[[], Any], dict[str, Tensor]]:
        """Record a function; see `Recorder`."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                function(inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        # other threads may use CUDA meanwhile
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode='thread_local'):
            outputs = function(inputs)
        return graph.replay, outputs


@dataclass
class _Recorded:
    inputs: dict[str, Tensor]  # static inputs of the graph
    copied: list[str]  # names of inputs that are copied before a replay
    outputs: dict[str, Tensor]  # static outputs of the graph
    replay: Callable[[], Any]


class GraphedNetwork:
    """Replacement for `XMemNetwork` in a tracker, run by CUDA graphs; batch size 1.

    A call overwrites the outputs of the previous call with the same function and shapes. If
    recording fails, the log gives the reason, and the network runs without graphs from then on.

    Arguments:
        network: network on its device; its weights must stay in place.
        record: recorder of graphs.
    """

    def __init__(self, network: XMemNetwork, record: Recorder | None = None):
        self.network = network
        self.fault = ''  # why the network runs without graphs
        self._record = record or CudaRecorder()
        self._recorded: OrderedDict[Hashable, _Recorded] = OrderedDict()
        self._owned: set[int] = set()  # addresses of graph outputs

    @property
    def config(self) -> NetworkConfig:
        """Configuration of the network."""
        return self.network.config

    def encode_image(self, image: Tensor) -> EncodedImage:
        """Encode an image 1×3×H×W, normalised, H and W multiples of 16."""

        def function(given: Tensors) -> dict[str, Tensor]:
            encoded = self.network.encode_image(given['image'])
            f16, f8, f4 = encoded.features
            named = {'key': encoded.key, 'shrinkage': encoded.shrinkage, 'selection': encoded.selection}
            return named | {'f16': f16, 'f8': f8, 'f4': f4}

        out = self._run('image', function, {'image': image})
        return EncodedImage(out['key'], out['shrinkage'], out['selection'], (out['f16'], out['f8'], out['f4']))

    def encode_value(
        self, image: Tensor, f16: Tensor, masks: Tensor, sensory: Tensor | None, deep_update: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Encode masks 1×O×H×W to values 1×O×CV×h×w and sensory memory 1×O×CS×h×w."""

        def function(given: Tensors) -> dict[str, Tensor]:
            value, new = self.network.value_encoder.encode(
                given['image'], given['f16'], given['masks'], given['others'], given.get('sensory'), deep_update
            )
            return {'value': value} if new is None else {'value': value, 'sensory': new}

        per_object = {'masks': masks, 'others': masks.sum(1, keepdim=True) - masks}
        out = self._in_buckets(f'value {deep_update}', function, {'image': image, 'f16': f16}, per_object, sensory)
        return out['value'], out.get('sensory')

    def decode(
        self, features: tuple[Tensor, Tensor, Tensor], readout: Tensor, sensory: Tensor | None, update: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Decode a readout 1×O×CV×h×w to logits 1×O×H×W and sensory memory 1×O×CS×h×w."""

        def function(given: Tensors) -> dict[str, Tensor]:
            logits, new = self.network.decode(
                (given['f16'], given['f8'], given['f4']), given['readout'], given.get('sensory'), update
            )
            return {'logits': logits} if new is None else {'logits': logits, 'sensory': new}

        f16, f8, f4 = features
        shared = {'f16': f16, 'f8': f8, 'f4': f4}
        out = self._in_buckets(f'decode {update}', function, shared, {'readout': readout}, sensory)
        return out['logits'], out.get('sensory')

    def zero_sensory(self, batch: int, objects: int, size: tuple[int, int]) -> Tensor | None:
        """Return a new object's sensory memory, B×O×CS×h×w; None for a model without one."""
        return self.network.zero_sensory(batch, objects, size)

    def _in_buckets(
        self, name: str, function: Function, shared: Tensors, per_object: dict[str, Tensor], sensory: Tensor | None
    ) -> dict[str, Tensor]:
        if sensory is not None:
            per_object = per_object | {'sensory': sensory}
        if self.fault:
            return function({**shared, **per_object})
        several = next(iter(per_object.values())).shape[1] > BUCKETS[-1]

        def run(_: int, part: Tensors) -> dict[str, Tensor]:
            out = self._run(name, function, {**shared, **part})
            # the next chunk overwrites these outputs
            return {key: tensor.clone() for key, tensor in out.items()} if several else out

        return in_buckets(run, BUCKETS, per_object)

    def _run(self, name: str, function: Function, inputs: Tensors) -> dict[str, Tensor]:
        if self.fault:
            return function(inputs)
        try:
            recorded = self._find(name, function, inputs)
        except Exception as error:
            self.fault = f'{type(error).__name__}: {error}'
            self._recorded.clear()
            log.warning('CUDA graphs cannot be recorded (%s); the network runs without them', self.fault)
            return function(inputs)
        for key in recorded.copied:
            recorded.inputs[key].copy_(inputs[key])
        recorded.replay()
        return recorded.outputs

    def _find(self, name: str, function: Function, inputs: Tensors) -> _Recorded:
        """Return the graph for these shapes; record it on first use."""
        # graph outputs are read in place; other inputs are copied to static tensors
        places = {key: tensor.data_ptr() for key, tensor in inputs.items() if tensor.data_ptr() in self._owned}
        kind = next(iter(inputs.values())).device.type
        key = (
            name,
            tuple((n, tuple(t.shape), t.dtype, t.stride(), places.get(n)) for n, t in inputs.items()),
            torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None,
        )
        if key in self._recorded:
            self._recorded.move_to_end(key)
            return self._recorded[key]
        static = {n: t if n in places else t.clone() for n, t in inputs.items()}
        # a weight cast by autocast outside the graph would be freed before the graph reads it
        cached = torch.is_autocast_cache_enabled()
        torch.clear_autocast_cache()
        torch.set_autocast_cache_enabled(False)
        try:
            replay, outputs = self._record(function, static)
        finally:
            torch.set_autocast_cache_enabled(cached)
        while len(self._recorded) >= GRAPHS_KEPT:
            self._recorded.popitem(last=False)
        recorded = _Recorded(static, [n for n in static if n not in places], outputs, replay)
        self._recorded[key] = recorded
        self._owned = {t.data_ptr() for kept in self._recorded.values() for t in kept.outputs.values()}
        return recorded
