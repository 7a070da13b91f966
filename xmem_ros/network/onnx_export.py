# SPDX-License-Identifier: MIT
"""The network as three ONNX models for images of one size: key encoder, value encoder, decoder.

Image sizes are static. The number of objects is an axis named `objects`, meant to be fixed to a few values (buckets)
when a model is loaded: an engine that needs static shapes has them then, and the weights are on disk once.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xmem_ros.errors import EngineError
from xmem_ros.network.checkpoint import user_folder
from xmem_ros.network.deployment import deployed
from xmem_ros.network.model import STRIDE, XMemNetwork
from xmem_ros.network.winograd import WinogradConv2d

FORMAT = 1  # of the models' inputs and outputs; another one makes other files
OPSET = 18
OBJECTS = 'objects'
BUCKETS = (1, 2, 4, 8, 16)
EXPORTED = {'float32': torch.float32, 'float16': torch.float16}
MANIFEST = 'manifest.json'


class _KeyEncoder(nn.Module):
    names = (('image',), ('key', 'shrinkage', 'selection', 'f16', 'f8', 'f4'))

    def __init__(self, network: XMemNetwork, dtype: torch.dtype):
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        encoded = self.network.encode_image(image.to(self.dtype))
        return encoded.key, encoded.shrinkage, encoded.selection, *encoded.features


class _ValueEncoder(nn.Module):
    names = (('image', 'f16', 'masks', 'others', 'sensory'), ('value', 'new_sensory'))

    def __init__(self, network: XMemNetwork, dtype: torch.dtype):
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(
        self, image: Tensor, f16: Tensor, masks: Tensor, others: Tensor, sensory: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        encode = self.network.value_encoder.encode
        value, new = encode(image.to(self.dtype), f16, masks, others, sensory, sensory is not None)
        return (value,) if new is None else (value, new)


class _Decoder(nn.Module):
    names = (('f16', 'f8', 'f4', 'readout', 'sensory'), ('logits', 'new_sensory'))

    def __init__(self, network: XMemNetwork, dtype: torch.dtype):
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(
        self, f16: Tensor, f8: Tensor, f4: Tensor, readout: Tensor, sensory: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        logits, new = self.network.decode((f16, f8, f4), readout, sensory, sensory is not None)
        return (logits,) if new is None else (logits, new)


PARTS: dict[str, Any] = {'key_encoder': _KeyEncoder, 'value_encoder': _ValueEncoder, 'decoder': _Decoder}


@dataclass(frozen=True)
class ExportKey:
    """What decides which models serve."""

    weights: str  # fingerprint
    height: int  # px that the network sees, multiples of 16
    width: int
    precision: str  # float32 or float16

    @property
    def folder(self) -> str:
        """Name of the folder that they lie in."""
        return f'{self.weights[:16]}-{self.height}x{self.width}-{self.precision}-{FORMAT}'


def models_folder() -> Path:
    """Where exported models are kept: $XMEM_ROS_ONNX, or the user's cache."""
    return Path(os.environ.get('XMEM_ROS_ONNX') or user_folder() / 'onnx')


def find_models(key: ExportKey) -> Path | None:
    """The folder of models exported before, if they are there and whole."""
    folder = models_folder() / key.folder
    return folder if (folder / MANIFEST).is_file() else None


def export(network: XMemNetwork, key: ExportKey, into: Path, objects: Sequence[int] = BUCKETS) -> Path:
    """Write the three models and a manifest; returns their folder in `into`, which appears once they are whole.

    network: stays as it is. objects: numbers of objects that the models are meant to be loaded for. Raises
    `EngineError` where what exports them is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise EngineError(
            f'exporting ONNX models needs {error.name}, which is not installed: pip install onnx onnxscript; or export '
            "on another machine, with `xmem-ros export --onnx DIR`, and copy DIR's content into "
            f'{models_folder()}'
        ) from error
    target = into / key.folder
    into.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f'.{key.folder}.', dir=into))
    try:
        with torch.inference_mode(False), torch.no_grad(), _quiet():
            models = _export_parts(network, key, part)
        manifest = {
            'format': FORMAT,
            'weights': key.weights,
            'height': key.height,
            'width': key.width,
            'precision': key.precision,
            'opset': OPSET,
            'objects': sorted(set(objects)),
            'models': models,
        }
        (part / MANIFEST).write_text(json.dumps(manifest, indent=2) + '\n')
        part.chmod(0o755)
        put(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def put(part: Path, target: Path) -> None:
    """Move what was exported to its place, unless another process was first; what TensorRT built there stays."""
    if target.exists() and not (target / MANIFEST).is_file():  # a leftover that is not whole
        shutil.rmtree(target, ignore_errors=True)
    try:
        part.rename(target)
    except OSError:
        if not (target / MANIFEST).is_file():
            raise
        # the models are equal, by their key; the buckets may be others
        (part / MANIFEST).replace(target / MANIFEST)


def _export_parts(network: XMemNetwork, key: ExportKey, folder: Path) -> dict[str, Any]:
    """Write the models; returns what the manifest says of each."""
    dtype = EXPORTED[key.precision]
    if any(isinstance(module, WinogradConv2d) for module in network.modules()):
        raise EngineError('this network was made for torch on a CPU; export it as it was loaded')
    network = deployed(copy.deepcopy(network).cpu().float()).to(dtype)
    config, described = network.config, {}
    h, w = key.height // STRIDE, key.width // STRIDE
    c16, c8, c4 = config.feature_widths
    count = 2  # of the example; one would be taken for a constant
    examples = {
        'image': torch.zeros(1, 3, key.height, key.width),
        'f16': torch.zeros(1, c16, h, w, dtype=dtype),
        'f8': torch.zeros(1, c8, 2 * h, 2 * w, dtype=dtype),
        'f4': torch.zeros(1, c4, 4 * h, 4 * w, dtype=dtype),
        'masks': torch.zeros(1, count, key.height, key.width),
        'others': torch.zeros(1, count, key.height, key.width),
        'readout': torch.zeros(1, count, config.value_dim, h, w, dtype=dtype),
        'sensory': torch.zeros(1, count, config.sensory_dim, h, w),
    }
    axis = torch.export.Dim(OBJECTS, min=1, max=254)
    for name, part in PARTS.items():
        inputs, outputs = ([n for n in names if config.sensory_dim or 'sensory' not in n] for names in part.names)
        shapes = tuple({1: axis} if examples[n].shape[1] == count and n != 'image' else None for n in inputs)
        program = torch.onnx.export(
            part(network, dtype).eval(),
            tuple(examples[n] for n in inputs),
            dynamo=True,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=shapes,
            opset_version=OPSET,
            verbose=False,
        )
        assert program is not None
        program.save(str(folder / f'{name}.onnx'))
        described[name] = {'file': f'{name}.onnx', 'inputs': inputs, 'outputs': outputs}
    return described


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about what is meant to be as it is."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
