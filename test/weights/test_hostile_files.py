# SPDX-License-Identifier: MIT
"""Untrusted weights: refused with `WeightsError` before memory is allocated for them."""

from __future__ import annotations

import io
import pickle
import resource
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from xmem_ros.cli.main import main
from xmem_ros.errors import WeightsError
from xmem_ros.network.config import COMPACT
from xmem_ros.network.model import XMemNetwork
from xmem_ros.weights import torch_files
from xmem_ros.weights.checkpoint import load_network, read_state_dict
from xmem_ros.weights.files import find_weights

SMALL = replace(COMPACT, key_widths=(8, 8, 8, 8), value_widths=(8, 8, 8, 8), decoder_widths=(8, 8, 8))
HUGE = 10**12


pytestmark = pytest.mark.filterwarnings('ignore')  # torch warns about hostile files


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """Limit memory, so that trusting a claimed size raises MemoryError instead of swapping."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (6 << 30), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def small() -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {name: tensor.clone() for name, tensor in XMemNetwork(SMALL).state_dict().items()}


def refused(path: Path, says: str) -> None:
    with pytest.raises(WeightsError, match=says) as raised:
        load_network(path)
    assert path.name in str(raised.value)
    assert len(str(raised.value)) < 1500


def test_the_unmodified_weights_are_accepted(tmp_path: Path) -> None:
    save_file(small(), tmp_path / 'w.safetensors')
    torch.save(small(), tmp_path / 'w.pth')
    for name in ('w.safetensors', 'w.pth'):
        assert load_network(tmp_path / name).config.key_widths == SMALL.key_widths


ENTRIES = {
    'blocks without end': {'key_encoder.res2.999999999.conv1.weight': torch.zeros(1)},
    'blocks with a gap': {'key_encoder.layer3.9.conv1.weight': torch.zeros(8, 8, 3, 3)},
    'a scalar': {'key_encoder.conv1.weight': torch.tensor(1.0)},
    'a scalar where a second dimension is read': {'value_encoder.conv1.weight': torch.tensor(1.0)},
    'no channels': {'key_encoder.conv1.weight': torch.zeros(0, 3, 7, 7)},
    'no channels of attention': {'value_encoder.fuser.attention.ChannelGate.mlp.1.weight': torch.zeros(0, 128)},
    'too many channels': {'key_proj.key_proj.weight': torch.zeros(100_000, 1)},
    'too many channels of attention': {'value_encoder.fuser.attention.ChannelGate.mlp.1.weight': torch.zeros(4000, 1)},
    'a sensory memory of no channel': {'decoder.hidden_update.transform.weight': torch.zeros(2, 1)},
    'another shape': {'decoder.pred.weight': torch.zeros(1, 8)},
    'numbers of another kind': {'decoder.pred.bias': torch.zeros(1, dtype=torch.int64)},
    'numbers of eight bits': {'decoder.pred.bias': torch.zeros(1, dtype=torch.float8_e4m3fn)},
    'flags': {'decoder.pred.bias': torch.zeros(1, dtype=torch.bool)},
    'complex numbers': {'decoder.pred.bias': torch.zeros(1, dtype=torch.complex64)},
    'numbers beyond float32': {'decoder.pred.bias': torch.full((1,), 1e300, dtype=torch.float64)},
    'a name of a hundred thousand characters': {'x' * 100_000: torch.zeros(1)},
}


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
@pytest.mark.parametrize('name', ENTRIES)
def test_entries_that_do_not_form_a_network_are_refused(tmp_path: Path, name: str, suffix: str) -> None:
    path, state = tmp_path / f'w{suffix}', small() | ENTRIES[name]
    save_file(state, path) if suffix == '.safetensors' else torch.save(state, path)
    refused(path, 'weights of an XMem network|refused|not finite')


SAVED = {
    'terabytes of one number': {'decoder.pred.weight': torch.zeros(1).expand(1, HUGE)},
    'sparse entries': {'decoder.pred.weight': torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1), (HUGE,))},
    'quantised entries': {'decoder.pred.weight': torch.quantize_per_tensor(torch.zeros(4), 0.1, 0, torch.qint8)},
    'entries without storage': {'decoder.pred.weight': torch.zeros(HUGE, device='meta')},
    'entries that are no tensors': {'decoder.pred.weight': {'weight': torch.zeros(1)}},
    'names that are no text': {5: torch.zeros(1)},
}


@pytest.mark.parametrize('name', SAVED)
def test_tensors_that_are_not_dense_are_refused(tmp_path: Path, name: str) -> None:
    torch.save({**small(), **SAVED[name]}, tmp_path / 'w.pth')
    refused(tmp_path / 'w.pth', 'refused|expected a dictionary of tensors')


class _Calls:
    """Object that is pickled as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def archive(path: Path, content: bytes, records: dict[str, bytes] | None = None, **options) -> Path:
    with zipfile.ZipFile(path, 'w', **options) as file:
        file.writestr('w/data.pkl', content)
        file.writestr('w/version', b'3\n')
        for name, data in (records or {}).items():
            file.writestr(name, data)
    return path


@pytest.mark.parametrize(
    'call',
    [_Calls(bytearray, HUGE), _Calls(torch.Tensor, 1000, HUGE), _Calls(print, 'executed'), _Calls(torch.Size, [1])],
    ids=['bytearray', 'torch.Tensor', 'print', 'torch.Size'],
)
def test_a_pickle_that_calls_anything_is_refused(tmp_path: Path, call: _Calls, capsys) -> None:
    refused(archive(tmp_path / 'w.pth', pickle.dumps({'a': call}, 2)), 'refused, it contains more than tensors')
    assert 'executed' not in capsys.readouterr().out


def claiming(elements: int) -> bytes:
    """A pickle of one float tensor whose storage claims so many elements."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ('storage', torch.FloatStorage, '0', 'cpu', elements) if obj is Ellipsis else None

    out = io.BytesIO()
    rebuild = torch._utils._rebuild_tensor_v2
    Pickler(out, 2).dump({'a': _Calls(rebuild, ..., 0, (elements,), (1,), False, OrderedDict())})
    return out.getvalue()


@pytest.mark.parametrize('elements', [1000, HUGE, 2**62])
def test_a_storage_larger_than_its_file_is_refused(tmp_path: Path, elements: int) -> None:
    path = archive(tmp_path / 'w.pth', claiming(elements), {'w/data/0': bytes(8)})
    refused(path, 'cannot be read as weights|refused')


def test_a_storage_within_its_file_is_read(tmp_path: Path) -> None:
    path = archive(tmp_path / 'w.pth', claiming(2), {'w/data/0': struct.pack('<2f', 1, 2)})
    assert read_state_dict(path)['a'].tolist() == [1, 2]


def test_pickles_outside_an_archive_are_refused(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / 'w.pth', _use_new_zipfile_serialization=False)
    refused(tmp_path / 'w.pth', 'a pickle outside a zip archive')


ARCHIVES = {
    'a compressed record': ({}, {'compression': zipfile.ZIP_DEFLATED}),
    'a record elsewhere': ({'w/../../x': b''}, {}),
    'a script': ({'w/code/__torch__.py': b'pass'}, {}),
    'a second archive': ({'v/data/0': b''}, {}),
    'numbers in the other order': ({'w/byteorder': b'big'}, {}),
}


@pytest.mark.parametrize('name', ARCHIVES)
def test_an_archive_that_torch_did_not_write_is_refused(tmp_path: Path, name: str) -> None:
    records, options = ARCHIVES[name]
    records = {'w/data/0': bytes(8), **records}
    refused(archive(tmp_path / 'w.pth', claiming(2), records, **options), 'refused')


def test_a_pickle_with_too_many_or_too_deeply_nested_values_is_refused(tmp_path: Path) -> None:
    deep: list = []
    for _ in range(200):
        deep = [deep]
    torch.save({'a': deep}, tmp_path / 'deep.pth')
    refused(tmp_path / 'deep.pth', 'refused')
    wide: list = [0]
    for _ in range(15):
        wide = [wide] * 4
    torch.save({'a': wide}, tmp_path / 'wide.pth')
    refused(tmp_path / 'wide.pth', 'refused')
    refused(archive(tmp_path / 'long.pth', b'\x80\x02' + b'N0' * 3_000_000 + b'N.'), 'a missing or oversized pickle')


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_a_file_beyond_the_size_limit_is_refused_unread(tmp_path: Path, suffix: str) -> None:
    with (tmp_path / f'w{suffix}').open('wb') as file:
        file.truncate(torch_files.LARGEST_FILE + 1)  # a sparse file
    refused(tmp_path / f'w{suffix}', 'at most 2.1 GB are allowed')


@pytest.mark.parametrize('name', ['x' * 5000, 'x' * 5000 + '.pth', 'a\0b.pth', '~nobody-of-that-name/w.pth', '', '/'])
def test_an_invalid_path_is_refused(name: str) -> None:
    with pytest.raises(WeightsError) as raised:
        find_weights(name)
    assert len(str(raised.value)) < 6000


def test_the_command_line_reports_the_refusal_with_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({'key_encoder.res2.999999999.conv1.weight': torch.zeros(1)}, tmp_path / 'w.safetensors')
    arguments = ['--weights', str(tmp_path / 'w.safetensors'), '--onnx', str(tmp_path / 'out'), '--size', '96', '160']
    assert main(['export', *arguments]) == 2
    assert 'not the weights of an XMem network' in capsys.readouterr().err
