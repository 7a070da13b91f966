# SPDX-License-Identifier: MIT
"""3×3 convolutions by Winograd's minimal filtering (Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks").

F(4×4, 3×3): a tile of 4×4 outputs takes 36 products for every pair of channels where the definition takes 144. The same
function up to rounding, whose error is some six times that of a direct convolution in float32; lower precisions would
lose too much. torch's own convolutions on a CPU are direct ones, at the limit of the processor's arithmetic.
"""

import torch
from torch import Tensor, nn

TILE, PATCH = 4, 6  # px to a side of a tile of outputs, and of the inputs that it needs
CHUNK_BYTES = 6 << 20  # of transformed inputs at a time: they are to stay in the processor's cache
LEAST_CHANNELS = 64  # below, transforming costs more than it saves

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
    """Whether a convolution is one that this does, and does faster."""
    plain = conv.kernel_size == (3, 3) and conv.stride == (1, 1) and conv.padding == (1, 1)
    plain &= conv.dilation == (1, 1) and conv.groups == 1
    return plain and min(conv.in_channels, conv.out_channels) >= LEAST_CHANNELS


class WinogradConv2d(nn.Module):
    """A biased or unbiased 3×3 convolution that keeps the size; for inference in float32.

    Holds the transformed kernels alone, four times as large as the kernels.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        g = torch.tensor(_KERNEL, dtype=torch.float64)
        kernels = torch.einsum('ia,ocab,jb->ijco', g, conv.weight.detach().double().cpu(), g)
        inputs, outputs = (torch.tensor(rows, dtype=torch.float64) for rows in (_INPUT, _OUTPUT))
        kernels = kernels.reshape(PATCH**2, conv.in_channels, conv.out_channels)
        self.register_buffer('kernels', kernels.to(conv.weight.device, torch.float32).contiguous())
        self.register_buffer('inputs', torch.kron(inputs, inputs).to(conv.weight.device, torch.float32))
        self.register_buffer('outputs', torch.kron(outputs, outputs).to(conv.weight.device, torch.float32))
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
        self.register_buffer('bias', bias.to(conv.weight.device, torch.float32).clone())
        self.kernels: Tensor
        self.inputs: Tensor
        self.outputs: Tensor
        self.bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """x: B×C×H×W → B×C'×H×W, channels-last."""
        batch, channels, height, width = x.shape
        down, across = -(-height // TILE), -(-width // TILE)
        rows = max(1, min(down, CHUNK_BYTES // (4 * PATCH**2 * across * channels)))
        images = x.permute(0, 2, 3, 1)
        out = x.new_empty(batch, down * TILE, across * TILE, self.kernels.shape[2])
        framed = x.new_zeros(rows * TILE + 2, across * TILE + 2, channels)  # a chunk with a border of zeros
        for image, result in zip(images, out, strict=True):
            for begin in range(0, down, rows):
                count = min(rows, down - begin)
                first, last = begin * TILE - 1, (begin + count) * TILE + 1  # px, rows that these tiles need
                top, bottom = max(first, 0), min(last, height)
                framed[: top - first] = 0
                framed[bottom - first :] = 0
                framed[top - first : bottom - first, 1 : width + 1] = image[top:bottom]
                tiles = self._tiles(framed, count, across)
                place = result[begin * TILE : (begin + count) * TILE].view(count, TILE, across, TILE, -1)
                torch.add(tiles.permute(2, 0, 3, 1, 4), self.bias, out=place)
        return out[:, :height, :width].permute(0, 3, 1, 2)

    def _tiles(self, framed: Tensor, count: int, across: int) -> Tensor:
        """Rows of pixels, H×W×C with their border → 4×4×count×across×C' outputs of each tile."""
        step, side, _ = framed.stride()
        shape = (PATCH, PATCH, count, across, framed.shape[2])
        patches = framed.as_strided(shape, (step, side, TILE * step, TILE * side, 1))
        transformed = torch.mm(self.inputs, patches.reshape(PATCH**2, -1)).view(PATCH**2, count * across, -1)
        products = torch.bmm(transformed, self.kernels)
        done = torch.mm(self.outputs, products.view(PATCH**2, -1))
        return done.view(TILE, TILE, count, across, -1)


def with_winograd(network: nn.Module) -> None:
    """Replace every convolution that it suits, in place."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d) and suits(child):
                setattr(module, name, WinogradConv2d(child))
