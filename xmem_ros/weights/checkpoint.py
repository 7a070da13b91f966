# SPDX-License-Identifier: MIT
"""Weights on disk: ours as safetensors, the official ones as .pth. Nothing in a file is ever executed."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from xmem_ros.checks import checked_path
from xmem_ros.errors import OutputError, WeightsError
from xmem_ros.network.config import LikenessThresholds, config_from_state_dict
from xmem_ros.network.model import XMemNetwork
from xmem_ros.weights.official import OFFICIAL, RELEASE, official_name

WEIGHT_SUFFIXES = ('.pth', '.pt', '.safetensors')
STEM = 'value_encoder.conv1.weight'
UNLIKE, SURE = 'likeness_unlike', 'likeness_sure'  # in the metadata of a file


def bundled_folder() -> Path:
    """Where the weights lie that come with the package."""
    return Path(__file__).resolve().parent


def user_folder() -> Path:
    """Where fetched weights lie: $XMEM_ROS_WEIGHTS, or the user's cache."""
    import os

    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    return Path(os.environ.get('XMEM_ROS_WEIGHTS') or cache / 'xmem_ros')


def find_weights(name: str | Path) -> Path:
    """Turn a name (`compact`) or a path into the file; raises `WeightsError` saying what there is and what to do."""
    path = checked_path('weights', name, WeightsError).expanduser()
    if path.suffix or len(path.parts) > 1:
        if not path.is_file():
            raise WeightsError(f'{path}: no such weights file')
        if path.suffix not in WEIGHT_SUFFIXES:
            raise WeightsError(f'{path}: weights are files ending in {", ".join(WEIGHT_SUFFIXES)}')
        return path
    official = official_name(str(name))
    file = OFFICIAL[official].file if official else f'{name}.pth'
    for candidate in (bundled_folder() / f'{name}.safetensors', user_folder() / file):
        if candidate.is_file():
            return candidate
    if official:
        raise WeightsError(
            f'the official weights {official} are not here yet: fetch them with `xmem-ros weights fetch {official}`, '
            f'or download {file} from {RELEASE} and put it into {user_folder()}'
        )
    raise _unknown(str(name))


def check_name(name: str) -> None:
    """Raise `WeightsError` for what can be no weights: neither a name that there is nor a path of a fitting suffix."""
    path = Path(name)
    known = official_name(name) or (bundled_folder() / f'{name}.safetensors').is_file()
    if not known and path.suffix not in WEIGHT_SUFFIXES and not (user_folder() / f'{name}.pth').is_file():
        raise _unknown(name)


def _unknown(name: str) -> WeightsError:
    bundled = ', '.join(sorted(p.stem for p in bundled_folder().glob('*.safetensors'))) or 'none'
    return WeightsError(
        f'unknown weights {name!r}; bundled: {bundled}; official: {", ".join(OFFICIAL)}; or give the path '
        'of a .pth or .safetensors file'
    )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint's entries; raises `WeightsError` naming the file and what is wrong with it."""
    try:
        if path.suffix == '.safetensors':
            with safe_open(path, framework='pt') as file:
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        else:
            _check_is_checkpoint(path)
            state = torch.load(path, map_location='cpu', weights_only=True)
            if isinstance(state, Mapping) and isinstance(state.get('ema'), Mapping):
                state = state['ema']  # the checkpoint of a training run: its averaged weights
    except WeightsError:
        raise
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise WeightsError(f'{path}: not readable as weights; it may be cut off: fetch it again ({error})') from error
    except Exception as error:  # pickle errors have no common base
        raise WeightsError(
            f'{path}: refused, it holds more than tensors and might run code when loaded ({type(error).__name__}); '
            'save its state dict alone, best as .safetensors'
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f'{path}: expected a dictionary of tensors')
    return dict(state)


def _check_is_checkpoint(path: Path) -> None:
    """Raise `WeightsError` for a file that no `torch.save` wrote, a web page, say."""
    with path.open('rb') as file:
        head = file.read(16)
    if not head.startswith((b'PK\x03\x04', b'\x80')):  # a zip archive, or a bare pickle as before torch 1.6
        raise WeightsError(
            f'{path}: not a PyTorch file, it begins with {head!r}; download the checkpoint itself, not its page'
        )


def load_network(path: Path) -> XMemNetwork:
    """Build the network that the weights describe, in evaluation mode, float32, on the CPU.

    A 4-channel value stem (the single-object stage of training) gets a zero channel appended. Raises `WeightsError`.
    """
    state = {name: t.float() if t.is_floating_point() else t for name, t in read_state_dict(path).items()}
    try:
        config = config_from_state_dict(state)
    except WeightsError as error:
        raise WeightsError(f'{path}: {error}') from error
    if state.get(STEM) is not None and state[STEM].shape[1] == 4:
        state[STEM] = torch.cat([state[STEM], torch.zeros_like(state[STEM][:, :1])], 1)
    network = XMemNetwork(replace(config, likeness=read_likeness(path)))
    expected = network.state_dict()
    missing, extra = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    wrong = [name for name in expected if name in state and state[name].shape != expected[name].shape]
    for what, names in (('lacks', missing), ('has unknown', extra), ('has entries of a wrong shape', wrong)):
        if names:
            shown = ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')
            raise WeightsError(f'{path}: not the weights of an XMem network: it {what} {shown}')
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise WeightsError(f'{path}: the entry {name} holds values that are not finite')
    network.load_state_dict(state)
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
    """Write weights as safetensors; statistics of batch norms stay float32. Raises `OutputError`."""
    state = {}
    for name, tensor in network.state_dict().items():
        small = tensor.is_floating_point() and 'running_' not in name
        state[name] = tensor.detach().to('cpu', dtype if small else tensor.dtype).contiguous()
    # safetensors' own writing leaves a file that its owner alone can read; the node may run as somebody else
    part = path.with_name(f'{path.name}.part')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(save(state, metadata={'format': 'pt', **_written(network.config.likeness)}))
        part.replace(path)  # the file that was read may be the one that is written
    except OSError as error:
        raise OutputError(f'{path}: the weights cannot be written there ({error.strerror or error})') from error


def _written(thresholds: LikenessThresholds | None) -> dict[str, str]:
    """Likeness thresholds as a file's metadata has them."""
    return {} if thresholds is None else {UNLIKE: f'{thresholds.unlike:.3f}', SURE: f'{thresholds.sure:.3f}'}


def read_likeness(path: Path) -> LikenessThresholds | None:
    """The likeness thresholds that a weights file holds; None where it holds none, as .pth files do.

    Raises `WeightsError` for a file that cannot be read, and for thresholds that cannot be.
    """
    if path.suffix != '.safetensors':
        return None
    try:
        with safe_open(path, framework='pt') as file:
            metadata = file.metadata() or {}
        if not metadata.keys() & {UNLIKE, SURE}:
            return None
        return LikenessThresholds(float(metadata[UNLIKE]), float(metadata[SURE]))
    except (SafetensorError, OSError) as error:
        raise WeightsError(f'{path}: not readable as weights; it may be cut off: fetch it again ({error})') from error
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f'{path}: its metadata must hold {UNLIKE} and {SURE}, two numbers, or neither ({error}); '
            '`xmem-ros weights calibrate` writes them'
        ) from error
