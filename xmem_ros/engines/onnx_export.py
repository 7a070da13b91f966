# SPDX-License-Identifier: MIT
"""ONNX export of the network for one image size: key encoder, value encoder, decoder.

Image sizes are static. The number of objects is the axis `objects`. Loading fixes it to a bucket,
so engines have static shapes, and one file serves all buckets.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xmem_ros.engines.buckets import BUCKETS
from xmem_ros.engines.deployment import deployed
from xmem_ros.engines.onnx_files import TRACKER, ExportKey, models_folder, move_into_place, write_manifest
from xmem_ros.engines.winograd import WinogradConv2d
from xmem_ros.errors import EngineError, OutputError
from xmem_ros.network.model import STRIDE, XMemNetwork

OPSET = 18
MIN_TORCH = (2, 5)  # first version whose `torch.onnx.export(dynamo=True)` supports a dynamic axis
OBJECTS = 'objects'
EXPORTED = {'float32': torch.float32, 'float16': torch.float16}


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


def export(
    network: XMemNetwork, key: ExportKey, into: Path, objects: Sequence[int] = BUCKETS, exported_by: str = TRACKER
) -> Path:
    """Export the three models and a manifest; returns their folder in `into`.

    The folder appears once it is complete.

    Arguments:
        network: network to export; it is not modified.
        key: weights, size and precision of the models.
        into: folder of exported models.
        objects: numbers of objects (buckets) to load the models for.
        exported_by: origin in the manifest; it decides whether damaged models are re-exported.

    Raises:
        EngineError: the exporter is not installed or too old.
        OutputError: the models cannot be written.
    """
    problem = exporter_problem()
    if problem:
        raise EngineError(
            f'exporting ONNX models {problem}; or export on another machine with `xmem-ros export --onnx DIR` and '
            f'copy the content of DIR into {models_folder()}'
        )
    target = into / key.folder
    part = None
    try:
        into.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f'.{key.folder}.', dir=into))
        with torch.inference_mode(False), torch.no_grad(), _quiet():
            models = _export_parts(network, key, part)
        write_manifest(part, key, models, opset=OPSET, objects=sorted(set(objects)), exported_by=exported_by)
        part.chmod(0o755)
        move_into_place(part, target, key)
    except OSError as error:
        raise OutputError(
            f'{into}: exported models cannot be written ({error.strerror}); free some space or choose another folder '
            '(for trackers: the variable XMEM_ROS_ONNX)'
        ) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
    return target


def exporter_problem() -> str:
    """Return the missing requirement and its remedy, as in 'needs torch …'; '' if none."""
    version = tuple(int(part) for part in torch.__version__.split('+')[0].split('.')[:2])
    if version < MIN_TORCH:
        return (
            f'needs torch {".".join(map(str, MIN_TORCH))} or newer, and this is torch {torch.__version__}: install a '
            'newer one, or use engine torch'
        )
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        return f'needs {error.name}, which is not installed: pip install onnx onnxscript'
    return ''


def _export_parts(network: XMemNetwork, key: ExportKey, folder: Path) -> dict[str, Any]:
    """Write the models; returns their manifest entries."""
    dtype = EXPORTED[key.precision]
    if any(isinstance(module, WinogradConv2d) for module in network.modules()):
        raise EngineError('this network is optimised for torch on a CPU; export the network as loaded from its weights')
    network = deployed(copy.deepcopy(network).cpu().float()).to(dtype)
    config, described = network.config, {}
    h, w = key.height // STRIDE, key.width // STRIDE
    c16, c8, c4 = config.feature_widths
    count = 2  # objects of the example; 1 would become a constant
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
        program.save(str(folder / f'{name}.onnx'), external_data=False)
        described[name] = {'file': f'{name}.onnx', 'inputs': inputs, 'outputs': outputs}
    return described


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence exporter warnings about intended behaviour."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
