# SPDX-License-Identifier: MIT
"""Networks of a few channels, for tests in which weights and widths do not matter."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from xmem_ros.network.config import COMPACT, LikenessThresholds, NetworkConfig
from xmem_ros.network.model import XMemNetwork
from xmem_ros.weights.checkpoint import save_network

TINY = dataclasses.replace(
    COMPACT,
    key_widths=(8, 8, 8, 16),
    key_depths=(1, 1, 1),
    value_widths=(8, 8, 8, 16),
    key_dim=8,
    value_dim=16,
    sensory_dim=8,
    sensory_mid=8,
    decoder_widths=(16, 16, 16),
)
# With thresholds, as the default policy of memory needs them.
TINY_CALIBRATED = dataclasses.replace(TINY, likeness=LikenessThresholds(0.25, 0.6))
# Bottlenecks and batch norms of XMem, which training leaves as they are.
TINY_XMEM = dataclasses.replace(TINY, key_bottleneck=True, train_norm=False)
# An EfficientNet-Lite as the key encoder, beside the ResNet or in place of it.
TINY_JOINED = dataclasses.replace(TINY, lite_widths=(8,) * 5, lite_depths=(1,) * 5, lite_laterals=(16, 8, 8))
TINY_LITE = dataclasses.replace(TINY_JOINED, key_widths=(), key_depths=())


def save_untrained(config: NetworkConfig, path: Path) -> Path:
    """Write an untrained network of this shape, the same each time; return the path."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_network(XMemNetwork(config), path)
    return path
