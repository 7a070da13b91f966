# SPDX-License-Identifier: MIT
"""Weights on disk: .safetensors or .pth. Nothing in a file is ever executed."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from xmem_ros import atomic
from xmem_ros.errors import OutputError, WeightsError, quoted, summary_of
from xmem_ros.network.config import LikenessThresholds, config_from_state_dict
from xmem_ros.network.model import XMemNetwork
from xmem_ros.weights import torch_files

STEM = 'value_encoder.conv1.weight'
UNLIKE, SURE = 'likeness_unlike', 'likeness_sure'  # in the metadata of a file


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint's entries; raises `WeightsError` with the file and the reason."""
    state = _read_safetensors(path) if path.suffix == '.safetensors' else torch_files.load(path)
    if isinstance(state, Mapping) and isinstance(state.get('ema'), Mapping):
        state = state['ema']  # a training checkpoint: use its averaged weights
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise WeightsError(f'{path}: expected a dictionary of tensors')
    return dict(state)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read the entries into memory, so that the file is no longer needed."""
    try:
        torch_files.check_size(path)
        state = {}
        with atomic.utf8_name(path) as name, safe_open(name, framework='pt') as file:
            for key in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(key)
                torch_files.check_tensor(key, tensor)
                state[key] = tensor.clone()
    except WeightsError as error:
        raise WeightsError(f'{path}: {error}') from error
    except Exception as error:  # unknown types raise various errors
        raise WeightsError(
            f'{path}: cannot be read as weights ({summary_of(error)}); it may be truncated: download it again'
        ) from error
    return state


def load_network(path: Path) -> XMemNetwork:
    """Build the network that the weights describe, in evaluation mode, float32, on the CPU.

    A 4-channel value stem (from the single-object stage of training) gets a zero channel appended.
    Raises `WeightsError`.
    """
    state = {name: t.float() if t.is_floating_point() else t for name, t in read_state_dict(path).items()}
    try:
        config = config_from_state_dict(state)
    except WeightsError as error:
        raise WeightsError(f'{path}: {error}') from error
    stem = state.get(STEM)
    if stem is not None and stem.ndim == 4 and stem.shape[1] == 4:
        state[STEM] = torch.cat([stem, torch.zeros_like(stem[:, :1])], 1)
    with torch.device('meta'):  # shapes only; memory is allocated for the file's tensors alone
        network = XMemNetwork(replace(config, likeness=read_likeness(path)))
    expected = network.state_dict()
    missing, extra = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    wrong = [name for name in expected if name in state and state[name].shape != expected[name].shape]
    other = [name for name in expected if name in state and state[name].dtype != expected[name].dtype]
    for what, names in (
        ('lacks', missing),
        ('has unknown', extra),
        ('has entries of a wrong shape', wrong),
        ('has entries of a wrong type', other),
    ):
        if names:
            shown = ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')
            raise WeightsError(f'{path}: not the weights of an XMem network: it {what} {shown:.300}')
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise WeightsError(f'{path}: the entry {name} holds values that are not finite')
    network.load_state_dict(state, assign=True)
    return network.eval()


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of a state dict."""
    return digest(sorted(weights.items()))


def digest(tensors: Iterable[tuple[str, Tensor]], text: str = '') -> str:
    """SHA-256 of a text and of named tensors, with their types and shapes."""
    sha = hashlib.sha256(text.encode())
    for name, tensor in tensors:
        sha.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def save_network(network: XMemNetwork, path: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write weights as safetensors; batch-norm statistics stay float32. Raises `OutputError`."""
    state = {}
    for name, tensor in network.state_dict().items():
        small = tensor.is_floating_point() and 'running_' not in name
        state[name] = tensor.detach().to('cpu', dtype if small else tensor.dtype).contiguous()
    metadata = {'format': 'pt', **_written(network.config.likeness)}
    try:
        atomic.write_bytes(path, save(state, metadata=metadata))
    except OSError as error:
        raise OutputError(f'{path}: weights cannot be written ({error.strerror}); name another file') from error


def _written(thresholds: LikenessThresholds | None) -> dict[str, str]:
    """Format likeness thresholds as metadata of a weights file."""
    return {} if thresholds is None else {UNLIKE: f'{thresholds.unlike:.3f}', SURE: f'{thresholds.sure:.3f}'}


def read_likeness(path: Path) -> LikenessThresholds | None:
    """Read the likeness thresholds of a weights file; None if it has none (.pth files have none).

    Raises `WeightsError` for an unreadable file and for invalid thresholds.
    """
    if path.suffix != '.safetensors':
        return None
    try:
        torch_files.check_size(path)
        with atomic.utf8_name(path) as name, safe_open(name, framework='pt') as file:
            metadata = file.metadata() or {}
    except Exception as error:  # of various types, as in `_read_safetensors`
        raise WeightsError(
            f'{path}: cannot be read as weights ({summary_of(error)}); it may be truncated: download it again'
        ) from error
    if not metadata.keys() & {UNLIKE, SURE}:
        return None
    try:
        return LikenessThresholds(float(metadata[UNLIKE]), float(metadata[SURE]))
    except (KeyError, ValueError) as error:
        given = ' and '.join(quoted(metadata.get(key)) for key in (UNLIKE, SURE))
        raise WeightsError(
            f'{path}: its metadata must hold {UNLIKE} and {SURE}, two numbers from -1 to 1, the first below the '
            f'second, or neither; it holds {given}. `xmem-ros weights calibrate` writes them'
        ) from error
