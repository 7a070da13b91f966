# SPDX-License-Identifier: MIT
"""Winograd convolutions, 3×3 with F(4×4, 3×3).

Source: Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks". A tile of 4×4 outputs
takes 36 products per pair of channels instead of 144. The result equals a direct convolution up to
rounding; in float32 the error is about six times larger, and lower precisions lose too much.
torch's own convolutions on a CPU are direct and already run at the processor's peak rate.
"""

import torch
from torch import Tensor, nn

TILE, PATCH = 4, 6  # px, sides of an output tile and of its input patch
CHUNK_BYTES = 6 << 20  # transformed inputs per chunk, so that they stay in the CPU cache
MIN_CHANNELS = 64  # below, the transforms cost more than they save

# With points 0, ±1, ±2 and ∞: output = A · [(G · kernel · Gᵀ) ∘ (B · input · Bᵀ)] · Aᵀ
_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


def suits(conv: nn.Conv2d) -> bool:
    """Whether a convolution is supported and gets faster."""
    plain = conv.kernel_size == (3, 3) and conv.stride == (1, 1) and conv.padding == (1, 1)
    plain &= conv.dilation == (1, 1) and conv.groups == 1
    return plain and min(conv.in_channels, conv.out_channels) >= MIN_CHANNELS


class WinogradConv2d(nn.Module):
    """Size-preserving 3×3 convolution, with or without bias, for inference in float32.

    Holds only the transformed kernels, four times as large as the original ones.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        g = torch.tensor(_KERNEL, dtype=torch.float64)
        weights = conv.weight.detach().cpu().permute(2, 3, 1, 0).reshape(9, -1)
        inputs, outputs = (torch.tensor(rows, dtype=torch.float64) for rows in (_INPUT, _OUTPUT))
        kernels = (torch.kron(g, g) @ weights.double()).float().view(PATCH**2, conv.in_channels, conv.out_channels)
        self.register_buffer('kernels', kernels.to(conv.weight.device))
        self.register_buffer('inputs', torch.kron(inputs, inputs).to(conv.weight.device, torch.float32))
        self.register_buffer('outputs', torch.kron(outputs, outputs).to(conv.weight.device, torch.float32))
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
        self.register_buffer('bias', bias.to(conv.weight.device, torch.float32).clone())
        self.kernels: Tensor
        self.inputs: Tensor
        self.outputs: Tensor
        self.bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x, B×C×H×W, to B×C'×H×W, channels-last."""
        batch, channels, height, width = x.shape
        down, across = -(-height // TILE), -(-width // TILE)
        rows = max(1, min(down, CHUNK_BYTES // (4 * PATCH**2 * across * channels)))
        images = x.permute(0, 2, 3, 1)
        out = x.new_empty(batch, down * TILE, across * TILE, self.kernels.shape[2])
        framed = x.new_zeros(rows * TILE + 2, across * TILE + 2, channels)  # a chunk with a border of zeros
        for image, result in zip(images, out, strict=True):
            for begin in range(0, down, rows):
                count = min(rows, down - begin)
                first, last = begin * TILE - 1, (begin + count) * TILE + 1  # px, input rows of these tiles
                top, bottom = max(first, 0), min(last, height)
                framed[: top - first] = 0
                framed[bottom - first :] = 0
                framed[top - first : bottom - first, 1 : width + 1] = image[top:bottom]
                tiles = self._tiles(framed, count, across)
                place = result[begin * TILE : (begin + count) * TILE].view(count, TILE, across, TILE, -1)
                torch.add(tiles.permute(2, 0, 3, 1, 4), self.bias, out=place)
        return out[:, :height, :width].permute(0, 3, 1, 2)

    def _tiles(self, framed: Tensor, count: int, across: int) -> Tensor:
        """Convolve bordered rows H×W×C; returns the tiles' outputs 4×4×count×across×C'."""
        step, side, _ = framed.stride()
        shape = (PATCH, PATCH, count, across, framed.shape[2])
        patches = framed.as_strided(shape, (step, side, TILE * step, TILE * side, 1))
        transformed = torch.mm(self.inputs, patches.reshape(PATCH**2, -1)).view(PATCH**2, count * across, -1)
        products = torch.bmm(transformed, self.kernels)
        done = torch.mm(self.outputs, products.view(PATCH**2, -1))
        return done.view(TILE, TILE, count, across, -1)


def with_winograd(network: nn.Module) -> None:
    """Replace suitable convolutions of a network, in place."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d) and suits(child):
                setattr(module, name, WinogradConv2d(child))
