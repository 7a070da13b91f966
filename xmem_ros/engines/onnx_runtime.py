# SPDX-License-Identifier: MIT
"""ONNX Runtime engine: TensorRT if available, else CUDA, else the CPU."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from xmem_ros.engines.buckets import in_buckets
from xmem_ros.engines.built_engines import note_built, remove_unknown
from xmem_ros.engines.onnx_export import OBJECTS, export
from xmem_ros.engines.onnx_files import ExportKey, find_models, models_folder, newest_size, note_use, read_manifest
from xmem_ros.engines.onnx_session import build_engines, open_session
from xmem_ros.errors import EngineError, OutputError
from xmem_ros.network.model import EncodedImage

if TYPE_CHECKING:
    from xmem_ros.network.config import NetworkConfig
    from xmem_ros.network.model import XMemNetwork

TENSORRT, CUDA, CPU = 'TensorrtExecutionProvider', 'CUDAExecutionProvider', 'CPUExecutionProvider'
SIZES_KEPT = 2  # image sizes whose models stay loaded
TYPES: dict[str, tuple[Any, torch.dtype]] = {
    'tensor(float)': (np.float32, torch.float32),
    'tensor(float16)': (np.float16, torch.float16),
}
# onnxruntime's errors for an unusable file; others may mean a lack of memory
UNUSABLE = ('InvalidArgument', 'InvalidGraph', 'InvalidProtobuf', 'NoModel', 'NoSuchFile', 'NotImplemented')

log = logging.getLogger(__name__)


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(
            'engine onnxruntime needs onnxruntime, which is not installed: pip install onnxruntime, or '
            'onnxruntime-gpu for CUDA and TensorRT, on a Jetson as in docs/jetson_install.md; or use engine torch'
        ) from error
    return onnxruntime


def pick_providers(available: Sequence[str], device: torch.device) -> list[str]:
    """Return providers, best first; raises `EngineError` if none runs on the requested GPU."""
    if device.type == 'cpu':
        return [CPU]
    chosen = [name for name in (TENSORRT, CUDA) if name in available]
    if not chosen:
        raise EngineError(
            f'this onnxruntime cannot use device {device}, it offers only {", ".join(available)}: install '
            'onnxruntime-gpu, on a Jetson as in docs/jetson_install.md; or use device cpu or engine torch'
        )
    return [*chosen, CPU]


def provider_options(name: str, device: torch.device, cache: Path, precision: str) -> dict[str, Any]:
    """Return the options of a provider."""
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
    """Return the TensorRT cache folder of a model for a number of objects.

    Each number has its own folder, because TensorRT names its files after the model alone and would
    load an engine for another number.
    """
    return model.parent / f'{model.stem}-{objects}'


def _make_folder(cache: Path) -> None:
    try:
        cache.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(
            f'{cache}: cannot be created for TensorRT engines ({error.strerror}); make {models_folder()} writable, or '
            'set the variable XMEM_ROS_ONNX to a copy of it'
        ) from error


class _Model:
    """An ONNX model, loaded once per number of objects, with static shapes."""

    def __init__(self, path: Path, device: torch.device, precision: str, size: tuple[int, int]):
        self.path, self.device, self.precision = path, device, precision
        self.name = f'{path.stem} at {size[0]}×{size[1]} px'
        self._sessions: dict[int, Any] = {}

    def load(self, objects: int, progress: str) -> None:
        """Load the model for a number of objects; on a GPU, also run it once to warm up.

        progress: position among the models to load, as in '2 of 7'.
        """
        session = self._session(objects, progress)
        if self.device.type != 'cpu':
            inputs = session.get_inputs()
            shapes = {i.name: (tuple(i.shape), TYPES[i.type][1]) for i in inputs}
            self(objects, **{n: torch.zeros(s, dtype=d, device=self.device) for n, (s, d) in shapes.items()})
            if (cache := engine_cache(self.path, objects)).is_dir():
                note_built(cache)

    def _session(self, objects: int, progress: str = '') -> Any:
        if objects not in self._sessions:
            self._sessions[objects] = self._new_session(objects, progress)
        return self._sessions[objects]

    def _new_session(self, objects: int, progress: str) -> Any:
        runtime = _runtime()
        names = pick_providers(runtime.get_available_providers(), self.device)
        cache = engine_cache(self.path, objects)
        what, begun = f'{self.name}, {objects} object{"s" * (objects != 1)}', time.monotonic()
        if TENSORRT in names:
            remove_unknown(cache)
            _make_folder(cache)
        building = TENSORRT in names and not any(cache.glob('*.engine'))
        if building:
            log.info(
                'TensorRT is building %s%s; this takes minutes, and nothing is tracked meanwhile. The engine is kept '
                'in %s',
                what,
                f' ({progress})' if progress else '',
                cache,
            )
        arguments: dict[str, Any] = {
            'model': str(self.path),
            'objects': objects,
            'axis': OBJECTS,
            'threads': torch.get_num_threads(),
            'providers': [(n, provider_options(n, self.device, cache, self.precision)) for n in names],
        }
        if building:
            build_engines(**arguments)  # if it fails, the engine is built here
        try:
            session = open_session(runtime, **arguments)
        except Exception as error:
            if type(error).__module__.startswith('onnxruntime') and type(error).__name__ in UNUSABLE:
                raise EngineError(
                    f'onnxruntime {runtime.__version__} cannot load {self.path} ({str(error).splitlines()[0]}): '
                    f'onnxruntime may be too old; install a newer one, or remove {self.path.parent} to export the '
                    'models again'
                ) from error
            raise
        if self.device.type != 'cpu' and session.get_providers()[0] == CPU:
            raise EngineError(
                f'onnxruntime could not load {" or ".join(names[:-1])} for device {self.device}: install the '
                'missing library that its log names; or use device cpu or engine torch'
            )
        if TENSORRT in names:
            note_built(cache)
        log.log(
            logging.INFO if building else logging.DEBUG,
            '%s: loaded in %.1f s on %s',
            what,
            time.monotonic() - begun,
            session.get_providers()[0],
        )
        return session

    def __call__(self, objects: int, **inputs: Tensor) -> dict[str, Tensor]:
        """Run on device tensors for a number of objects, without copies to or from the host."""
        session = self._session(objects)
        binding = session.io_binding()
        kind, index = self.device.type, self.device.index or 0
        inputs_alive, outputs = [], {}
        for wanted in session.get_inputs():
            numpy_type, torch_type = TYPES[wanted.type]
            tensor = inputs[wanted.name].to(torch_type).contiguous()
            inputs_alive.append(tensor)  # until the run ends
            binding.bind_input(wanted.name, kind, index, numpy_type, tuple(tensor.shape), tensor.data_ptr())
        for given in session.get_outputs():
            numpy_type, torch_type = TYPES[given.type]
            tensor = torch.empty(tuple(given.shape), dtype=torch_type, device=self.device)
            outputs[given.name] = tensor
            binding.bind_output(given.name, kind, index, numpy_type, tuple(tensor.shape), tensor.data_ptr())
        if kind == 'cuda':  # the runtime has its own stream
            torch.cuda.current_stream(self.device).synchronize()
        session.run_with_iobinding(binding)
        return outputs


class OnnxNetwork:
    """Replacement for `XMemNetwork` in a tracker, run by ONNX Runtime; batch size 1.

    Models are exported for the first image of a new size, or by `prepare`, and kept on disk.

    Arguments:
        config: configuration of the network.
        fingerprint: fingerprint of the weights.
        source: factory of the network, for exporting it.
        device: device to run on.
        precision: float32 or float16.
    """

    def __init__(
        self,
        config: NetworkConfig,
        fingerprint: str,
        source: Callable[[], XMemNetwork],
        device: torch.device,
        precision: str,
    ):
        pick_providers(_runtime().get_available_providers(), device)  # fail now, not at the first frame
        self.config, self.fingerprint, self.device, self.precision = config, fingerprint, device, precision
        self._source = source
        self.sizes_kept = SIZES_KEPT
        self._loaded: dict[tuple[int, int], tuple[dict[str, _Model], list[int]]] = {}

    def _models(self, height: int, width: int) -> tuple[dict[str, _Model], list[int]]:
        """Return models and buckets for an image size."""
        size = height, width
        if size in self._loaded:
            self._loaded[size] = self._loaded.pop(size)  # now the most recently used
            return self._loaded[size]
        while len(self._loaded) >= self.sizes_kept:  # before loading, because both may not fit
            evicted = next(iter(self._loaded))
            log.info('unloading models for images of %d×%d px, loading those for %d×%d px', *evicted, height, width)
            del self._loaded[evicted]
        key = ExportKey(self.fingerprint, *size, self.precision)
        folder = find_models(key)
        if folder is None:
            log.info('exporting ONNX models for images of %d×%d px into %s', height, width, models_folder())
            folder = export(self._source(), key, models_folder())
        note_use(folder)
        manifest = read_manifest(folder)
        models = {
            name: _Model(folder / entry.file, self.device, self.precision, size)
            for name, entry in manifest.models.items()
        }
        self._loaded[size] = models, sorted(manifest.objects)
        return self._loaded[size]

    def newest_size(self, shorter_side: int) -> tuple[int, int] | None:
        """Return H, W of the most recently used models, as `onnx_files.newest_size`."""
        return newest_size(self.fingerprint, self.precision, shorter_side)

    def prepare(self, size: tuple[int, int], objects: int) -> None:
        """Export, build and load the models for up to `objects` objects.

        size: H, W of the network's input, multiples of 16. The first TensorRT build takes minutes;
        the log shows its progress.
        """
        begun = time.monotonic()
        models, buckets = self._models(*size)
        largest = next((bucket for bucket in buckets if bucket >= objects), buckets[-1])
        several = [bucket for bucket in buckets if bucket <= largest]
        wanted = [(models['key_encoder'], 1)]
        wanted += [(models[name], bucket) for bucket in several for name in ('value_encoder', 'decoder')]
        for number, (model, count) in enumerate(wanted, 1):
            model.load(count, f'{number} of {len(wanted)}')
        log.info(
            'loaded ONNX models for images of %d×%d px and %s objects in %.1f s',
            *size,
            ', '.join(map(str, several)),
            time.monotonic() - begun,
        )

    def encode_image(self, image: Tensor) -> EncodedImage:
        """Encode an image 1×3×H×W, normalised, H and W multiples of 16."""
        models, _ = self._models(*image.shape[-2:])
        out = models['key_encoder'](1, image=image)
        return EncodedImage(out['key'], out['shrinkage'], out['selection'], (out['f16'], out['f8'], out['f4']))

    def encode_value(
        self, image: Tensor, f16: Tensor, masks: Tensor, sensory: Tensor | None, deep_update: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Encode masks 1×O×H×W to values 1×O×CV×h×w and sensory memory 1×O×CS×h×w."""
        models, buckets = self._models(*image.shape[-2:])
        per_object = {'masks': masks, 'others': masks.sum(1, keepdim=True) - masks}
        out = _run(models['value_encoder'], buckets, {'image': image, 'f16': f16}, per_object, sensory)
        return out['value'], out.get('new_sensory', sensory) if deep_update else sensory

    def decode(
        self, features: tuple[Tensor, Tensor, Tensor], readout: Tensor, sensory: Tensor | None, update: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Decode a readout 1×O×CV×h×w to logits 1×O×H×W and sensory memory 1×O×CS×h×w."""
        f16, f8, f4 = features
        models, buckets = self._models(f4.shape[2] * 4, f4.shape[3] * 4)
        shared = {'f16': f16, 'f8': f8, 'f4': f4}
        out = _run(models['decoder'], buckets, shared, {'readout': readout}, sensory)
        return out['logits'], out.get('new_sensory', sensory) if update else sensory

    def zero_sensory(self, batch: int, objects: int, size: tuple[int, int]) -> Tensor | None:
        """Return a new object's sensory memory, B×O×CS×h×w; None for a model without one."""
        if not self.config.sensory_dim:
            return None
        return torch.zeros(batch, objects, self.config.sensory_dim, *size, device=self.device)


def _run(
    model: _Model,
    buckets: list[int],
    shared: Mapping[str, Tensor],
    per_object: Mapping[str, Tensor],
    sensory: Tensor | None,
) -> dict[str, Tensor]:
    """Run for O objects, the second axis of per_object and sensory."""
    tensors = {**per_object, **({} if sensory is None else {'sensory': sensory})}
    return in_buckets(lambda bucket, padded: model(bucket, **shared, **padded), buckets, tensors)
