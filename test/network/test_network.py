# SPDX-License-Identifier: MIT
"""The network: official names and shapes, variants of checkpoints, refused files."""

import copy
import dataclasses
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from parity import generated_network
from safetensors.torch import save_file
from tiny_networks import TINY, TINY_JOINED, TINY_LITE
from torch import nn

from xmem_ros.engines.deployment import deployed
from xmem_ros.engines.winograd import WinogradConv2d, suits
from xmem_ros.errors import WeightsError
from xmem_ros.network.aggregation import aggregate
from xmem_ros.network.blocks import Fuser
from xmem_ros.network.config import COMPACT, COMPACT_JOINED, COMPACT_LITE, XMEM, config_from_state_dict
from xmem_ros.network.model import XMemNetwork
from xmem_ros.weights.checkpoint import load_network, save_network
from xmem_ros.weights.files import find_weights

COMPACT_BOTTLENECKS = dataclasses.replace(COMPACT, key_bottleneck=True, train_norm=False)
SHAPES = Path(__file__).parents[3] / 'shared' / 'parity' / 'shapes.json'


@pytest.fixture(scope='module')
def xmem() -> XMemNetwork:
    return generated_network(3)


def test_xmem_has_412_entries_and_62_million_parameters(xmem: XMemNetwork) -> None:
    assert len(xmem.state_dict()) == 412
    assert sum(p.numel() for p in xmem.parameters()) == pytest.approx(62.19e6, rel=1e-3)


@pytest.mark.skipif(not SHAPES.is_file(), reason='the list of official names and shapes is not beside the checkout')
def test_names_and_shapes_are_the_official_ones(xmem: XMemNetwork) -> None:
    assert {name: list(t.shape) for name, t in xmem.state_dict().items()} == json.loads(SHAPES.read_text())


def test_compact_has_at_most_8_million_parameters() -> None:
    assert sum(p.numel() for p in XMemNetwork(COMPACT).parameters()) <= 8e6


@pytest.mark.parametrize('config', [XMEM, COMPACT, COMPACT_LITE, COMPACT_JOINED])
def test_every_width_is_inferred_from_the_weights(config) -> None:
    assert config_from_state_dict(XMemNetwork(config).state_dict()) == config


def test_a_pth_file_gives_the_same_network(xmem: XMemNetwork, tmp_path: Path) -> None:
    torch.save(xmem.state_dict(), tmp_path / 'XMem.pth')
    loaded = load_network(tmp_path / 'XMem.pth')
    assert loaded.config == XMEM
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), xmem.state_dict().values(), strict=True))


def test_a_four_channel_stem_gets_a_zero_channel_last(xmem: XMemNetwork, tmp_path: Path) -> None:
    state = dict(xmem.state_dict())
    stem = state['value_encoder.conv1.weight'][:, :4].clone()
    torch.save(state | {'value_encoder.conv1.weight': stem}, tmp_path / 's0.pth')
    loaded = load_network(tmp_path / 's0.pth').state_dict()['value_encoder.conv1.weight']
    assert torch.equal(loaded[:, :4], stem)
    assert loaded.shape[1] == 5
    assert not loaded[:, 4].any()


def test_a_model_without_sensory_memory_loads_and_runs(tmp_path: Path) -> None:
    network = XMemNetwork(dataclasses.replace(COMPACT, sensory_dim=0, sensory_mid=0))
    assert not any('hidden' in name for name in network.state_dict())
    torch.save(network.state_dict(), tmp_path / 'no-sensory.pth')
    loaded = load_network(tmp_path / 'no-sensory.pth')
    assert loaded.config.sensory_dim == 0
    image = loaded.encode_image(torch.zeros(1, 3, 32, 48))
    value, sensory = loaded.encode_value(torch.zeros(1, 3, 32, 48), image.features[0], torch.ones(1, 2, 32, 48), None)
    assert sensory is None
    logits, sensory = loaded.decode(image.features, value, None)
    assert logits.shape == (1, 2, 32, 48)
    assert sensory is None


def test_the_shared_fuser_equals_concatenation() -> None:
    torch.manual_seed(0)
    fuser = Fuser(6, 10, 8, 4)
    for batch in (1, 2):
        image, g = torch.randn(batch, 6, 5, 7), torch.randn(batch * 3, 10, 5, 7)
        together = torch.cat([image.repeat_interleave(3, 0), g], 1)
        block = fuser.block1(together)
        expected = fuser.block2(block + fuser.attention(block))
        assert torch.allclose(fuser(image, g), expected, atol=1e-5)


def test_aggregation_is_finite_for_probabilities_of_0_and_1() -> None:
    prob = torch.tensor([1.0, 0.0]).half().view(2, 1, 1)
    joint = aggregate(prob, 0)
    assert joint.dtype == torch.float32
    assert torch.isfinite(joint).all()
    assert joint[1].item() > 0.99
    assert joint.sum().item() == pytest.approx(1)


@pytest.mark.parametrize('config', [TINY, TINY_LITE, TINY_JOINED])
def test_saved_weights_are_restored_to_half_precision(config, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = XMemNetwork(config)
    save_network(network, tmp_path / 'ours.safetensors')
    for name, tensor in load_network(tmp_path / 'ours.safetensors').state_dict().items():
        assert torch.allclose(tensor.float(), network.state_dict()[name].float(), rtol=1e-3, atol=1e-6), name


class _Surprise:
    def __reduce__(self):
        return print, ('executed',)


def test_files_that_are_not_weights_of_an_xmem_network_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(path: Path, text: str) -> None:
        with pytest.raises(WeightsError, match=text) as error:
            load_network(path)
        assert path.name in str(error.value)

    torch.save({'layer.weight': torch.zeros(3)}, tmp_path / 'other.pth')
    refused(tmp_path / 'other.pth', 'not the weights of an XMem network')

    state = XMemNetwork(COMPACT).state_dict()
    torch.save({k: v for k, v in state.items() if k != 'decoder.pred.bias'}, tmp_path / 'lacking.pth')
    refused(tmp_path / 'lacking.pth', 'lacks decoder.pred.bias')

    (tmp_path / 'page.pth').write_text('<!DOCTYPE html><html>')
    refused(tmp_path / 'page.pth', 'not a PyTorch file')
    (tmp_path / 'empty.pth').write_bytes(b'')
    refused(tmp_path / 'empty.pth', 'not a PyTorch file')

    save_file(state, tmp_path / 'whole.safetensors')
    data = (tmp_path / 'whole.safetensors').read_bytes()
    (tmp_path / 'cut.safetensors').write_bytes(data[: len(data) // 2])
    refused(tmp_path / 'cut.safetensors', 'truncated')

    (tmp_path / 'code.pth').write_bytes(pickle.dumps(_Surprise()))
    refused(tmp_path / 'code.pth', 'refused, it contains more than tensors')
    assert 'executed' not in capsys.readouterr().out

    torch.save(state | {'decoder.pred.bias': torch.tensor([float('nan')])}, tmp_path / 'nan.pth')
    refused(tmp_path / 'nan.pth', 'not finite')


def test_unknown_weights_are_refused_with_the_known_names() -> None:
    with pytest.raises(WeightsError, match=r"unknown weights 'compakt'; give a name .bundled: .*compact"):
        find_weights('compakt')
    with pytest.raises(
        WeightsError, match=r'missing\.pth: no such weights file; give a name .bundled: .*compact.*; official: xmem'
    ):
        find_weights('missing.pth')


@pytest.mark.parametrize('config', [COMPACT, COMPACT_JOINED])
def test_a_network_in_reduced_precision_stores_its_weights_in_it(config) -> None:
    network = deployed(XMemNetwork(config), torch.bfloat16, 'cpu')
    assert {p.dtype for m in network.modules() if isinstance(m, nn.Conv2d) for p in m.parameters()} == {torch.bfloat16}


# Winograd's rounding is some six times that of a direct convolution
@pytest.mark.parametrize(('device', 'rounding'), [(None, 1e-5), ('cpu', 1e-4)])
@pytest.mark.parametrize('config', [COMPACT_BOTTLENECKS, COMPACT, COMPACT_LITE, COMPACT_JOINED])
def test_a_deployed_network_gives_the_same_results(config, device: str | None, rounding: float) -> None:
    generator = torch.Generator().manual_seed(4)
    network = XMemNetwork(config)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low in ((module.weight, 0.5), (module.running_var, 0.5), (module.bias, -0.5)):
                values.data.copy_(low + torch.rand(values.shape, generator=generator))
    network.eval()
    folded = deployed(copy.deepcopy(network), device=device)
    assert any(isinstance(module, WinogradConv2d) for module in folded.modules()) == (device == 'cpu')
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    lite = bool(config.lite_widths)
    fused = lite and device == 'cpu' and torch.backends.mkldnn.is_available()
    assert any(isinstance(module, nn.ReLU6) for module in folded.modules()) == (lite and not fused)
    image = torch.randn(1, 3, 64, 96, generator=generator)
    masks = torch.rand(1, 2, 64, 96, generator=generator)
    with torch.inference_mode():
        outs = []
        for net in (network, folded):
            encoded = net.encode_image(image)
            value, _ = net.encode_value(image, encoded.features[0], masks, net.zero_sensory(1, 2, (4, 6)))
            logits, _ = net.decode(encoded.features, value, net.zero_sensory(1, 2, (4, 6)))
            outs.append([*encoded.features, encoded.key, value, logits])
    for expected, given in zip(*outs, strict=True):
        # float32, through up to 60 convolutions
        assert (given - expected).abs().max() <= rounding * expected.abs().max()


@pytest.mark.parametrize('size', [(30, 54), (7, 9), (4, 3), (16, 1)])
@pytest.mark.parametrize('bias', [True, False])
def test_a_winograd_convolution_equals_the_plain_convolution(size: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(96, 64, 3, padding=1, bias=bias)
    x = torch.randn(3, 96, *size)
    exact = conv.double()(x.double())
    error = (WinogradConv2d(conv.float())(x) - exact).abs().max()
    # F(4×4, 3×3) in float32: about six times the error of adding up 96 · 9 products one by one
    assert error < 2e-5 * exact.abs().max()


def test_winograd_replaces_only_large_3x3_convolutions_that_keep_the_size() -> None:
    assert suits(nn.Conv2d(64, 64, 3, padding=1))
    for other in (
        nn.Conv2d(64, 64, 3, stride=2, padding=1),
        nn.Conv2d(64, 64, 1),
        nn.Conv2d(64, 64, 3),
        nn.Conv2d(64, 1, 3, padding=1),
        nn.Conv2d(64, 64, 3, padding=2, dilation=2),
        nn.Conv2d(64, 64, 3, padding=1, groups=2),
    ):
        assert not suits(other)


def test_a_weights_file_is_readable_by_other_users(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        save_network(XMemNetwork(COMPACT), tmp_path / 'w.safetensors')
    finally:
        os.umask(mask)
    assert (tmp_path / 'w.safetensors').stat().st_mode & 0o777 == 0o644
