# SPDX-License-Identifier: MIT
"""Loading of untrusted `torch.save` files: they are inspected first, sizes in them checked."""

import pickletools
import re
import stat
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xmem_ros.errors import WeightsError, summary_of

LARGEST_FILE = 2 << 30  # bytes; enough for training checkpoints of a network four times XMem's size
LARGEST_PICKLE = 2 << 20  # bytes; names, shapes and settings, without the tensors
MOST_RECORDS = 10_000
MOST_VALUES = 100_000  # entries of all dictionaries and lists
DEEPEST = 16  # nested dictionaries and lists
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32)
_RECORD = re.compile(
    r'[^/]+/(data\.pkl|data/\d+|version|byteorder|\.data/serialization_id|\.format_version|\.storage_alignment)'
)
_STORAGES = ('Float', 'Half', 'BFloat16', 'Double', 'Long', 'Int')
_GLOBALS = {
    'collections OrderedDict',
    'torch._utils _rebuild_tensor_v2',
    'torch._utils _rebuild_parameter',
    *(f'torch {name}Storage' for name in _STORAGES),
}


def load(path: Path) -> Any:
    """Load a file of tensors, numbers, strings, and dictionaries and lists of them.

    Returns a copy on the CPU. Raises `WeightsError` with the file and the reason.
    """
    try:
        check_size(path)
        _inspect(path)
        # mapped: a storage cannot exceed the file, whatever the pickle claims
        found = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
        return _Copy(path.stat().st_size).of(found)
    except WeightsError as error:
        raise WeightsError(f'{path}: {error}') from error
    except (OSError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise WeightsError(
            f'{path}: cannot be read as weights ({summary_of(error)}); it may be truncated: download it again'
        ) from error
    except Exception as error:  # pickle errors have no common base class
        raise WeightsError(f'{path}: {_refused(type(error).__name__)}') from error


def check_size(path: Path) -> None:
    """Raise `WeightsError` for a file larger than any weights, and for a pipe or device."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise WeightsError('refused, it is not a regular file')
    if (size := found.st_size) > LARGEST_FILE:
        raise WeightsError(f'refused, too large ({size / 1e9:.1f} GB); at most {LARGEST_FILE / 1e9:.1f} GB are allowed')


def check_tensor(name: object, tensor: Tensor) -> None:
    """Raise `WeightsError` for anything but a dense tensor of numbers."""
    plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided and not tensor.is_quantized
    if not plain or tensor.dtype not in DTYPES or tensor.device.type != 'cpu':
        raise WeightsError(
            f'refused, the entry {str(name)!r:.80} is {tensor.dtype} ({tensor.layout}); it must be a dense tensor of '
            'floating-point or whole numbers'
        )


def _inspect(path: Path) -> None:
    """Raise `WeightsError` unless the file is a `torch.save` of tensors; reads only its pickle."""
    with path.open('rb') as file:
        head = file.read(16)
    if head.startswith(b'\x80'):  # a bare pickle, as before torch 1.6, can allocate any size
        raise WeightsError(_refused('a pickle outside a zip archive'))
    if not head.startswith(b'PK\x03\x04'):
        raise WeightsError(
            f'not a PyTorch file (it begins with {head!r}); download the checkpoint itself, not its web page'
        )
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        names = [record.filename for record in records]
        strange = [name for name in names if not _RECORD.fullmatch(name)]
        if strange or len(set(names)) < len(names) or len({name.split('/')[0] for name in names}) != 1:
            raise WeightsError(_refused(f'an archive with {(strange or names)[0]!r:.80}'))
        if archive.comment or len(records) > MOST_RECORDS:
            raise WeightsError(_refused(f'an archive of {len(records)} records, or with a comment'))
        packed = [r for r in records if r.compress_type != zipfile.ZIP_STORED or r.compress_size != r.file_size]
        if packed or sum(record.file_size for record in records) > path.stat().st_size:
            raise WeightsError('refused, its archive is compressed or claims more bytes than the file has')
        content = {name.split('/', 1)[1]: record for name, record in zip(names, records, strict=True)}
        pickle, order = content.get('data.pkl'), content.get('byteorder')
        if pickle is None or pickle.file_size > LARGEST_PICKLE:
            raise WeightsError(_refused('a missing or oversized pickle'))
        if order is not None and (order.file_size > 16 or archive.read(order) != b'little'):
            raise WeightsError('refused, its numbers are big-endian; save it on a little-endian machine')
        used = {str(arg) for code, arg, _ in pickletools.genops(archive.read(pickle)) if code.name == 'GLOBAL'}
    if used - _GLOBALS:
        raise WeightsError(_refused(min(used - _GLOBALS).replace(' ', '.')[:80]))


def _refused(what: str) -> str:
    return (
        f'refused, it contains more than tensors and might run code when loaded ({what}); save only its state dict, '
        'preferably as .safetensors'
    )


class _Copy:
    """Copier of loaded values; raises `WeightsError` for oversized tensors and other types.

    Arguments:
        room: largest total size of the tensors [bytes].
    """

    def __init__(self, room: int) -> None:
        self._room, self._values = room, MOST_VALUES

    def of(self, value: Any, name: object = '', depth: int = 0) -> Any:
        """Return a copy of a value under a name."""
        self._values -= 1
        if self._values < 0 or depth > DEEPEST:
            raise WeightsError(f'refused, more than {MOST_VALUES} values or {DEEPEST} nested levels')
        if isinstance(value, Tensor):
            check_tensor(name, value)
            self._room -= value.nbytes
            if self._room < 0:
                raise WeightsError('refused, its tensors claim more bytes than the file has')
            return value.detach().clone(memory_format=torch.contiguous_format)
        if isinstance(value, dict) and all(isinstance(key, str | int) for key in value):
            return {key: self.of(item, key, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.of(item, name, depth + 1) for item in value)
        if value is None or type(value) in (bool, int, float, str):
            return value
        raise WeightsError(_refused(type(value).__name__))
