# SPDX-License-Identifier: MIT
"""Updates of the sensory memory: a recurrent state per object at stride 16 (XMem, section 3.4)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmem_ros.network.blocks import conv3x3


def gated_update(gates: Tensor, sensory: Tensor) -> Tensor:
    """Apply forget and update gates to a state.

    gates: BO×3C×H×W in the order forget, update, new; sensory: BO×C×H×W. No reset gate applies to
    the candidate. Always float32, because the state lives for hours.
    """
    forget, update, new = gates.float().chunk(3, dim=1)
    update = torch.sigmoid(update)
    return torch.sigmoid(forget) * sensory * (1 - update) + update * torch.tanh(new)


class SensoryUpdate(nn.Module):
    """Update on every frame, from the decoder's features at three scales."""

    def __init__(self, widths: tuple[int, int, int], mid: int, sensory_dim: int):
        super().__init__()
        w16, w8, w4 = widths
        self.g16_conv = nn.Conv2d(w16, mid, 1)
        self.g8_conv = nn.Conv2d(w8, mid, 1)
        self.g4_conv = nn.Conv2d(w4 + 1, mid, 1)
        self.transform = conv3x3(mid + sensory_dim, 3 * sensory_dim)

    def forward(self, g16: Tensor, g8: Tensor, g4: Tensor, logits: Tensor, sensory: Tensor) -> Tensor:
        """Update sensory BO×C×H×W from g16; g8 has twice, g4 and logits four times its size."""
        # pooling before concatenation is equal, and g4 is large
        finest = torch.cat([F.avg_pool2d(g4, 4), F.avg_pool2d(logits, 4)], 1)
        x = self.g16_conv(g16) + self.g8_conv(F.avg_pool2d(g8, 2)) + self.g4_conv(finest)
        return gated_update(self.transform(torch.cat([x, sensory.to(x.dtype)], 1)), sensory)


class DeepUpdate(nn.Module):
    """Update on memory frames, from the new value."""

    def __init__(self, value_dim: int, sensory_dim: int):
        super().__init__()
        self.transform = conv3x3(value_dim + sensory_dim, 3 * sensory_dim)

    def forward(self, value: Tensor, sensory: Tensor) -> Tensor:
        """Update sensory BO×CS×H×W from value BO×CV×H×W."""
        return gated_update(self.transform(torch.cat([value, sensory.to(value.dtype)], 1)), sensory)
