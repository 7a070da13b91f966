# SPDX-License-Identifier: MIT
"""EfficientNet-Lite to stride 16 as a key encoder.

The architecture is from Tan & Le, ICML 2019; its blocks are from Sandler et al., CVPR 2018. The
Lite variants have no squeeze-and-excitation and use ReLU6. Strided convolutions are padded
symmetrically, so that the features are aligned with those of a ResNet. At each scale, a 1×1
convolution (lateral, as in feature pyramids) maps the features to the widths that the rest of the
network expects.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

EPSILON = 1e-3  # batch norms, as published
STEM = 32  # channels


@dataclass(frozen=True)
class Stage:
    """Stage of blocks of one width; the first block has the stride."""

    kernel: int
    stride: int
    expansion: int


STAGES = (Stage(3, 1, 1), Stage(3, 2, 6), Stage(5, 2, 6), Stage(3, 2, 6), Stage(5, 1, 6))
TAPS = (4, 2, 1)  # stages whose outputs are f16, f8 and f4


class ConvNormAct(nn.Module):
    """Convolution without bias, batch norm, and ReLU6 if `activation`."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1, activation: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out, eps=EPSILON)
        self.act = nn.ReLU6(inplace=True) if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """x: B×C×H×W."""
        return self.act(self.norm(self.conv(x)))


class InvertedResidual(nn.Module):
    """Inverted residual block: expansion, depthwise convolution, projection.

    The input is added if the shapes are equal.
    """

    def __init__(self, channels: int, out: int, stage: Stage, stride: int):
        super().__init__()
        hidden = channels * stage.expansion
        self.expand = ConvNormAct(channels, hidden, 1) if stage.expansion > 1 else nn.Identity()
        self.filter = ConvNormAct(hidden, hidden, stage.kernel, stride, groups=hidden)
        self.project = ConvNormAct(hidden, out, 1, activation=False)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        """x: B×C×H×W."""
        out = self.project(self.filter(self.expand(x)))
        return out.add_(x) if self.residual else out


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite trunk with the features f16, f8 and f4.

    Arguments:
        widths, depths: channels and blocks of each of the five stages.
        laterals: channels of f16, f8 and f4.
    """

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], laterals: tuple[int, ...]):
        super().__init__()
        self.stem = ConvNormAct(3, STEM, 3, 2)
        stages, channels = [], STEM
        for stage, width, depth in zip(STAGES, widths, depths, strict=True):
            blocks = [InvertedResidual(channels, width, stage, stage.stride)]
            blocks += [InvertedResidual(width, width, stage, 1) for _ in range(depth - 1)]
            stages.append(nn.Sequential(*blocks))
            channels = width
        self.stages = nn.ModuleList(stages)
        self.laterals = nn.ModuleList(nn.Conv2d(widths[tap], out, 1) for tap, out in zip(TAPS, laterals, strict=True))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute f16, f8 and f4, each B×C×(H/s)×(W/s).

        image: B×3×H×W, normalised; H and W multiples of 16.
        """
        x, outputs = self.stem(image), []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        f16, f8, f4 = (lateral(outputs[tap]) for lateral, tap in zip(self.laterals, TAPS, strict=True))
        return f16, f8, f4
