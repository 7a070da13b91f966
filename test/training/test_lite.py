# SPDX-License-Identifier: MIT
"""Initial weights with EfficientNet-Lite0: mapping of entries, and joining trained weights."""

import copy

import torch
import torch.nn.functional as F

from xmem_ros.network.config import COMPACT_JOINED, COMPACT_LITE
from xmem_ros.network.model import XMemNetwork, image_statistics
from xmem_ros.training import lite
from xmem_ros.weights.checkpoint import load_network
from xmem_ros.weights.files import find_weights


def published_lite0() -> dict[str, torch.Tensor]:
    """Make entries like those of the published weights, with random values."""
    network = XMemNetwork(COMPACT_LITE).key_encoder.lite
    state, number = {}, 0

    def put(module: torch.nn.Module, conv: str, norm: str) -> None:
        state[f'{conv}.weight'] = torch.randn_like(module.conv.weight) / module.conv.weight[0].numel() ** 0.5
        state.update({f'{norm}.{name}': value.clone() for name, value in module.norm.state_dict().items()})

    put(network.stem, '_conv_stem', '_bn0')
    for stage in network.stages:
        for block in stage:
            if hasattr(block.expand, 'conv'):
                put(block.expand, f'_blocks.{number}._expand_conv', f'_blocks.{number}._bn0')
            put(block.filter, f'_blocks.{number}._depthwise_conv', f'_blocks.{number}._bn1')
            put(block.project, f'_blocks.{number}._project_conv', f'_blocks.{number}._bn2')
            number += 1
    return state


def test_a_joined_trunk_starts_with_the_features_of_the_weights_it_joins() -> None:
    rest = load_network(find_weights('compact-permissive'))
    joined = lite.starting_network(rest, published_lite0(), joined=True)
    assert joined.config == COMPACT_JOINED
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(joined.key_encoder(image), rest.key_encoder(image), strict=True):
            assert torch.equal(ours, theirs)


def test_the_stem_is_adapted_to_the_image_normalisation_of_xmem() -> None:
    published = published_lite0()
    trunk = XMemNetwork(COMPACT_LITE).key_encoder.lite.eval()
    lite.trunk_from_published(trunk, published)
    pixels = torch.rand(1, 3, 32, 32)
    mean, std = image_statistics(torch.device('cpu'))
    convolved = F.conv2d((pixels - 127 / 255) / (128 / 255), published['_conv_stem.weight'], stride=2, padding=1)
    expected = (convolved / (1 + 1e-3) ** 0.5).clamp(0, 6)
    with torch.no_grad():
        found = trunk.stem((pixels - mean) / std)
    assert torch.allclose(
        found[:, :, 1:, 1:], expected[:, :, 1:, 1:], atol=1e-5
    )  # without the borders: the padding values differ


def test_laterals_are_fitted_to_the_features_of_another_trunk() -> None:
    torch.manual_seed(0)
    trunk = XMemNetwork(COMPACT_LITE).key_encoder.lite.eval()
    wanted = copy.deepcopy(trunk)
    for lateral in trunk.laterals:
        torch.nn.init.zeros_(lateral.weight)
    images = [torch.randn(1, 3, 64, 64) for _ in range(4)]
    explained = lite.fit_laterals(trunk, wanted, images)
    assert min(explained) > 0.99
    with torch.no_grad():
        for found, expected in zip(trunk(images[0]), wanted(images[0]), strict=True):
            assert (found - expected).norm() < 0.05 * (expected - expected.mean()).norm()
