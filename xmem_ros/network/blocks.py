# SPDX-License-Identifier: MIT
"""Blocks of the fusers and the decoder (XMem, section 3.3 and its supplement).

Tensors of objects are BO×C×H×W, the objects of a batch element one after another. Tensors of the
image alone are B×C×H×W. With four dimensions they stay channels-last; with a fifth one of size 1
torch would copy them. Additions are in place if the summand is not needed later. Attribute names
are those of the official checkpoints.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Make a 3×3 convolution with bias that keeps the size."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def add_shared(of_objects: Tensor, of_image: Tensor) -> Tensor:
    """Add the image's tensor B×C×H×W to every object's in BO×C×H×W, in place."""
    if of_image.shape[0] == 1:
        return of_objects.add_(of_image)
    by_image = of_objects.view(of_image.shape[0], -1, *of_objects.shape[1:])
    return by_image.add_(of_image.unsqueeze(1)).view_as(of_objects)


class SharedConv(nn.Module):
    """Convolution of [image ‖ g], split into one of the image and one of g."""

    def __init__(self, conv: nn.Conv2d, image_channels: int):
        super().__init__()
        width, device = conv.out_channels, conv.weight.device
        parts = conv.weight[:, :image_channels], conv.weight[:, image_channels:]
        self.of_image, self.of_objects = (
            nn.Conv2d(part.shape[1], width, 3, padding=1, bias=bias, device=device)
            for part, bias in zip(parts, (True, False), strict=True)
        )
        with torch.no_grad():
            assert self.of_image.bias is not None
            assert conv.bias is not None
            self.of_image.weight.copy_(parts[0])
            self.of_image.bias.copy_(conv.bias)
            self.of_objects.weight.copy_(parts[1])


def shared_conv(conv: nn.Conv2d | SharedConv, image: Tensor, g: Tensor) -> Tensor:
    """Convolve [image ‖ g], with the image's part computed once for all objects.

    image: B×C₁×H×W, g: BO×C₂×H×W, conv: of C₁ + C₂ input channels → BO×C×H×W. The result equals
    that of the concatenation up to rounding.
    """
    if isinstance(conv, SharedConv):
        return add_shared(conv.of_objects(g), conv.of_image(image))
    split = image.shape[1]
    of_image = F.conv2d(image, conv.weight[:, :split], conv.bias, padding=conv.padding)
    return add_shared(F.conv2d(g, conv.weight[:, split:], padding=conv.padding), of_image)


class ResidualBlock(nn.Module):
    """Pre-activation block without normalisation; a 3×3 shortcut if widths differ."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.downsample = conv3x3(in_channels, out_channels) if in_channels != out_channels else None
        self.conv1 = conv3x3(in_channels, out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)

    def forward(self, g: Tensor, image: Tensor | None = None) -> Tensor:
        """Apply to g BO×C×H×W, or to [image ‖ g] of every object with image B×C'×H×W."""
        if image is None:
            hidden = self.conv1(F.relu(g))
            shortcut = g if self.downsample is None else self.downsample(g)
        else:
            hidden = shared_conv(self.conv1, F.relu(image), F.relu(g))
            if self.downsample is None:
                objects = g.shape[0] // image.shape[0]
                shortcut = torch.cat([image.repeat_interleave(objects, 0), g], 1)
            else:
                shortcut = shared_conv(self.downsample, image, g)
        return self.conv2(F.relu_(hidden)).add_(shortcut)


class ChannelGate(nn.Module):
    """Channel attention of CBAM: one perceptron of mean and maximum."""

    def __init__(self, channels: int, reduction: int):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels, channels // reduction),
            nn.ReLU(),
            nn.Linear(channels // reduction, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply to x: B×C×H×W."""
        gate = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
        return x * torch.sigmoid(gate)[:, :, None, None]


class SpatialGate(nn.Module):
    """Spatial attention of CBAM: a 7×7 convolution of (maximum, mean) over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Sequential(OrderedDict(conv=nn.Conv2d(2, 1, 7, padding=3)))

    def forward(self, x: Tensor) -> Tensor:
        """Apply to x: B×C×H×W."""
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.spatial(pooled))


class ChannelSpatialAttention(nn.Module):
    """CBAM (Woo et al., ECCV 2018)."""

    def __init__(self, channels: int, reduction: int):
        super().__init__()
        self.ChannelGate = ChannelGate(channels, reduction)
        self.SpatialGate = SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        """Apply to x: B×C×H×W."""
        return self.SpatialGate(self.ChannelGate(x))


class Fuser(nn.Module):
    """Fusion of the image's and every object's feature: block, x + attention(x), block."""

    def __init__(self, image_channels: int, object_channels: int, out_channels: int, reduction: int):
        super().__init__()
        self.image_channels = image_channels
        self.block1 = ResidualBlock(image_channels + object_channels, out_channels)
        self.attention = ChannelSpatialAttention(out_channels, reduction)
        self.block2 = ResidualBlock(out_channels, out_channels)

    def forward(self, image: Tensor, g: Tensor) -> Tensor:
        """Fuse image B×C₁×H×W and g BO×C₂×H×W to BO×C×H×W."""
        g = self.block1(g, image)
        return self.block2(g + self.attention(g))


class UpBlock(nn.Module):
    """Upsampling by 2 with the image's skip feature."""

    def __init__(self, skip_channels: int, in_channels: int, out_channels: int):
        super().__init__()
        self.skip_conv = conv3x3(skip_channels, in_channels)
        self.out_conv = ResidualBlock(in_channels, out_channels)

    def forward(self, skip: Tensor, g: Tensor) -> Tensor:
        """Upsample g BO×C₂×H×W with skip B×C₁×2H×2W to BO×C×2H×2W."""
        up = F.interpolate(g, scale_factor=2, mode='bilinear', align_corners=False)
        return self.out_conv(add_shared(up, self.skip_conv(skip)))
