# SPDX-License-Identifier: MIT
"""Residual blocks and stages of a ResNet (He et al., "Deep Residual Learning", figure 5).

Names of entries are those of the official checkpoints, which are torchvision's. As there, the
stride of a bottleneck is in its 3×3 convolution. Importing torchvision for them would double the
time that a process takes to start.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn


class _Residual(nn.Module):
    """Convolutions with batch norms and ReLU between them, beside a shortcut."""

    expansion: ClassVar[int]  # channels of the output per plane

    def __init__(self, layers: list[nn.Conv2d], shortcut: nn.Module | None):
        super().__init__()
        self.count = len(layers)
        for number, conv in enumerate(layers, 1):
            self.add_module(f'conv{number}', conv)
            self.add_module(f'bn{number}', nn.BatchNorm2d(conv.out_channels))
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Apply to x: B×C×H×W."""
        out = x
        for number in range(1, self.count + 1):
            out = self.get_submodule(f'bn{number}')(self.get_submodule(f'conv{number}')(out))
            if number < self.count:
                out = F.relu_(out)
        out += x if self.downsample is None else self.downsample(x)
        return F.relu_(out)


class BasicBlock(_Residual):
    """Two 3×3 convolutions."""

    expansion = 1

    def __init__(self, channels: int, planes: int, stride: int, shortcut: nn.Module | None):
        first = nn.Conv2d(channels, planes, 3, stride, 1, bias=False)
        super().__init__([first, nn.Conv2d(planes, planes, 3, 1, 1, bias=False)], shortcut)


class Bottleneck(_Residual):
    """A 3×3 convolution between 1×1 convolutions, to a fourth of the channels and back."""

    expansion = 4

    def __init__(self, channels: int, planes: int, stride: int, shortcut: nn.Module | None):
        narrow = nn.Conv2d(channels, planes, 1, bias=False)
        middle = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        super().__init__([narrow, middle, nn.Conv2d(planes, 4 * planes, 1, bias=False)], shortcut)


def residual_stage(
    block: type[BasicBlock] | type[Bottleneck], channels: int, planes: int, depth: int, stride: int
) -> nn.Sequential:
    """Make one stage of a ResNet: `depth` blocks, of which the first has the stride."""
    out = planes * block.expansion
    shortcut = None
    if stride != 1 or channels != out:
        shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
    blocks = [block(channels, planes, stride, shortcut)]
    blocks += [block(out, planes, 1, None) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)
