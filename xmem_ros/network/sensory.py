# SPDX-License-Identifier: MIT
"""Updates of the sensory memory: a recurrent state per object at stride 16 (XMem, section 3.4)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmem_ros.network.blocks import conv3x3, per_object


def gated_update(gates: Tensor, sensory: Tensor) -> Tensor:
    """Apply forget and update gates to a state.

    gates: B×O×3C×H×W in the order forget, update, new; sensory: B×O×C×H×W. The candidate does not see a reset state.
    Always in float32: the state lives for hours.
    """
    forget, update, new = gates.float().chunk(3, dim=2)
    update = torch.sigmoid(update)
    return torch.sigmoid(forget) * sensory * (1 - update) + update * torch.tanh(new)


class SensoryUpdate(nn.Module):
    """The update on every frame, from the decoder's features at three scales."""

    def __init__(self, widths: tuple[int, int, int], mid: int, sensory_dim: int):
        super().__init__()
        w16, w8, w4 = widths
        self.g16_conv = nn.Conv2d(w16, mid, 1)
        self.g8_conv = nn.Conv2d(w8, mid, 1)
        self.g4_conv = nn.Conv2d(w4 + 1, mid, 1)
        self.transform = conv3x3(mid + sensory_dim, 3 * sensory_dim)

    def forward(self, g16: Tensor, g8: Tensor, g4: Tensor, sensory: Tensor) -> Tensor:
        """g16: B×O×C×H×W, g8 at twice and g4 ([feature ‖ logit]) at four times its size; sensory: B×O×C×H×W."""
        x = (
            self.g16_conv(g16.flatten(0, 1))
            + self.g8_conv(F.avg_pool2d(g8.flatten(0, 1), 2))
            + self.g4_conv(F.avg_pool2d(g4.flatten(0, 1), 4))
        )
        gates = self.transform(torch.cat([x, sensory.flatten(0, 1).to(x.dtype)], 1))
        return gated_update(gates.view(*g16.shape[:2], *gates.shape[1:]), sensory)


class DeepUpdate(nn.Module):
    """The update on memory frames, from the new value."""

    def __init__(self, value_dim: int, sensory_dim: int):
        super().__init__()
        self.transform = conv3x3(value_dim + sensory_dim, 3 * sensory_dim)

    def forward(self, value: Tensor, sensory: Tensor) -> Tensor:
        """value: B×O×CV×H×W, sensory: B×O×CS×H×W."""
        gates = per_object(self.transform, torch.cat([value, sensory.to(value.dtype)], 2))
        return gated_update(gates, sensory)
