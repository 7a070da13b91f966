# SPDX-License-Identifier: MIT
"""The network, run by ONNX Runtime instead of torch: TensorRT where it offers that, else CUDA, else the CPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xmem_ros.errors import EngineError
from xmem_ros.network.model import EncodedImage
from xmem_ros.network.onnx_export import MANIFEST, OBJECTS, ExportKey, export, find_models, models_folder

if TYPE_CHECKING:
    from xmem_ros.network.config import NetworkConfig
    from xmem_ros.network.model import XMemNetwork

TENSORRT, CUDA, CPU = 'TensorrtExecutionProvider', 'CUDAExecutionProvider', 'CPUExecutionProvider'
SIZES_KEPT = 2  # sizes of image whose models stay loaded
TYPES: dict[str, tuple[Any, torch.dtype]] = {
    'tensor(float)': (np.float32, torch.float32),
    'tensor(float16)': (np.float16, torch.float16),
}


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(
            'engine onnxruntime was asked for, but onnxruntime is not installed: pip install onnxruntime, '
            "onnxruntime-gpu for CUDA and TensorRT, or NVIDIA's wheel for your JetPack; or use engine torch"
        ) from error
    return onnxruntime


def pick_providers(available: Sequence[str], device: torch.device) -> list[str]:
    """The best first; raises `EngineError` where a GPU was asked for and none of them runs on it."""
    if device.type == 'cpu':
        return [CPU]
    chosen = [name for name in (TENSORRT, CUDA) if name in available]
    if not chosen:
        raise EngineError(
            f'device {device} was asked for, but this onnxruntime offers only {", ".join(available)}: install '
            "onnxruntime-gpu, or NVIDIA's wheel for your JetPack; or use device cpu, or engine torch"
        )
    return [*chosen, CPU]


def provider_options(name: str, device: torch.device, cache: Path, precision: str) -> dict[str, Any]:
    """What a provider is told."""
    if name == CPU:
        return {}
    options: dict[str, Any] = {'device_id': device.index or 0}
    if name == TENSORRT:
        options['trt_engine_cache_enable'] = True
        options['trt_engine_cache_path'] = str(cache)
        options['trt_timing_cache_enable'] = True
        options['trt_timing_cache_path'] = str(cache)
        options['trt_fp16_enable'] = precision == 'float16'
    return options


def engine_cache(model: Path, objects: int) -> Path:
    """Where TensorRT keeps what it builds of a model for a number of objects.

    A folder for each: it names its files by the model alone, and takes one that was built for another number.
    """
    return model.parent / f'{model.stem}-{objects}'


class _Model:
    """One ONNX model, loaded once for each number of objects, with static shapes."""

    def __init__(self, path: Path, device: torch.device, precision: str):
        self.path, self.device, self.precision = path, device, precision
        self._sessions: dict[int, Any] = {}

    def _session(self, objects: int) -> Any:
        if objects not in self._sessions:
            runtime = _runtime()
            options = runtime.SessionOptions()
            options.log_severity_level = 3  # errors
            options.intra_op_num_threads = torch.get_num_threads()
            # as torch's own, see `threads`
            options.add_session_config_entry('session.intra_op.allow_spinning', '0')
            options.add_free_dimension_override_by_name(OBJECTS, objects)
            names = pick_providers(runtime.get_available_providers(), self.device)
            cache = engine_cache(self.path, objects)
            if TENSORRT in names:
                cache.mkdir(exist_ok=True)
            providers = [(n, provider_options(n, self.device, cache, self.precision)) for n in names]
            session = runtime.InferenceSession(str(self.path), options, providers=providers)
            if self.device.type != 'cpu' and session.get_providers()[0] == CPU:
                raise EngineError(
                    f'device {self.device} was asked for, but onnxruntime could not load {" or ".join(names[:-1])}: '
                    'its log names the library that is missing; or use device cpu, or engine torch'
                )
            self._sessions[objects] = session
        return self._sessions[objects]

    def __call__(self, objects: int, **inputs: Tensor) -> dict[str, Tensor]:
        """Run it on tensors that lie on the device, for a number of objects; nothing is copied to or from the host."""
        session = self._session(objects)
        binding = session.io_binding()
        kind, index = self.device.type, self.device.index or 0
        held, outputs = [], {}
        for wanted in session.get_inputs():
            numpy_type, torch_type = TYPES[wanted.type]
            tensor = inputs[wanted.name].to(torch_type).contiguous()
            held.append(tensor)  # until the run is over
            binding.bind_input(wanted.name, kind, index, numpy_type, tuple(tensor.shape), tensor.data_ptr())
        for given in session.get_outputs():
            numpy_type, torch_type = TYPES[given.type]
            tensor = torch.empty(tuple(given.shape), dtype=torch_type, device=self.device)
            outputs[given.name] = tensor
            binding.bind_output(given.name, kind, index, numpy_type, tuple(tensor.shape), tensor.data_ptr())
        if kind == 'cuda':  # the runtime has a stream of its own
            torch.cuda.current_stream(self.device).synchronize()
        session.run_with_iobinding(binding)
        return outputs


class OnnxNetwork:
    """What `XMemNetwork` does for a tracker, by ONNX Runtime. Letters as there; B is 1.

    Models are exported when images of a new size come, and kept for the next time.

    Arguments:
        config: of the network.
        fingerprint: of the weights.
        source: gives the network itself, where it has to be exported.
        device, precision: to run on and in.
    """

    def __init__(
        self,
        config: NetworkConfig,
        fingerprint: str,
        source: Callable[[], XMemNetwork],
        device: torch.device,
        precision: str,
    ):
        pick_providers(_runtime().get_available_providers(), device)  # fails now rather than at the first frame
        self.config, self.fingerprint, self.device, self.precision = config, fingerprint, device, precision
        self._source = source
        self._loaded: dict[tuple[int, int], tuple[dict[str, _Model], list[int]]] = {}

    def _models(self, height: int, width: int) -> tuple[dict[str, _Model], list[int]]:
        """Models and buckets for images of this size."""
        size = height, width
        if size in self._loaded:
            return self._loaded[size]
        while len(self._loaded) >= SIZES_KEPT:  # first: the old and the new may not fit together
            del self._loaded[next(iter(self._loaded))]
        key = ExportKey(self.fingerprint, *size, self.precision)
        folder = find_models(key) or export(self._source(), key, models_folder())
        manifest = json.loads((folder / MANIFEST).read_text())
        models = {
            name: _Model(folder / what['file'], self.device, self.precision)
            for name, what in manifest['models'].items()
        }
        self._loaded[size] = models, sorted(manifest['objects'])
        return self._loaded[size]

    def encode_image(self, image: Tensor) -> EncodedImage:
        """image: 1×3×H×W normalised, H and W multiples of 16."""
        models, _ = self._models(*image.shape[-2:])
        out = models['key_encoder'](1, image=image)
        return EncodedImage(out['key'], out['shrinkage'], out['selection'], (out['f16'], out['f8'], out['f4']))

    def encode_value(
        self, image: Tensor, f16: Tensor, masks: Tensor, sensory: Tensor | None, deep_update: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """masks: 1×O×H×W → value 1×O×CV×h×w and the (deeply updated) sensory memory 1×O×CS×h×w."""
        models, buckets = self._models(*image.shape[-2:])
        per_object = {'masks': masks, 'others': masks.sum(1, keepdim=True) - masks}
        out = _in_buckets(models['value_encoder'], buckets, {'image': image, 'f16': f16}, per_object, sensory)
        return out['value'], out.get('new_sensory', sensory) if deep_update else sensory

    def decode(
        self, features: tuple[Tensor, Tensor, Tensor], readout: Tensor, sensory: Tensor | None, update: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """readout: 1×O×CV×h×w → logits 1×O×H×W (before the sigmoid) and the sensory memory."""
        f16, f8, f4 = features
        models, buckets = self._models(f4.shape[2] * 4, f4.shape[3] * 4)
        shared = {'f16': f16, 'f8': f8, 'f4': f4}
        out = _in_buckets(models['decoder'], buckets, shared, {'readout': readout}, sensory)
        return out['logits'], out.get('new_sensory', sensory) if update else sensory

    def zero_sensory(self, batch: int, objects: int, size: tuple[int, int]) -> Tensor | None:
        """A new object's sensory memory, B×O×CS×h×w; None for a model without one."""
        if not self.config.sensory_dim:
            return None
        return torch.zeros(batch, objects, self.config.sensory_dim, *size, device=self.device)


def _in_buckets(
    model: _Model,
    buckets: list[int],
    shared: dict[str, Tensor],
    per_object: dict[str, Tensor],
    sensory: Tensor | None,
) -> dict[str, Tensor]:
    """Run for any number of objects: in parts of the largest bucket, the rest padded with zeros to the next one.

    per_object, sensory: 1×O×…. What comes of the padding is cut off.
    """
    if sensory is not None:
        per_object = per_object | {'sensory': sensory}
    total = next(iter(per_object.values())).shape[1]
    parts = []
    for begin in range(0, total, buckets[-1]):
        count = min(total - begin, buckets[-1])
        bucket = next(size for size in buckets if size >= count)
        padded = {
            name: F.pad(tensor[:, begin : begin + count], (0, 0) * (tensor.ndim - 2) + (0, bucket - count))
            for name, tensor in per_object.items()
        }
        out = model(bucket, **shared, **padded)
        parts.append({name: tensor[:, :count] for name, tensor in out.items()})
    if len(parts) == 1:
        return parts[0]
    return {name: torch.cat([part[name] for part in parts], 1) for name in parts[0]}
