# SPDX-License-Identifier: MIT
"""Network that segments an object from a box, points and a first mask.

Like SAM (Kirillov et al., ICCV 2023) it has an encoder, which sees the image once, and a small
decoder, which runs again for each prompt and gives several candidates with their predicted IoU.
Unlike SAM it is convolutional and works on a crop around the prompt (zoom-in, Sofiiuk et al.,
ICIP 2022). The encoder is EfficientNet-Lite. The decoder also sees how similar each position is to
the mean feature of each prompt.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmem_ros.network.efficientnet_lite import EfficientNetLite

PROMPTS = 5
"""Channels of the prompt maps: box, points on the object, points not on it, mask, mask is given."""

STRIDE = 4  # of the prompt maps
MASK_STRIDE = 2  # of the candidates
CANDIDATES = 3
LITE0 = {'widths': (16, 24, 40, 80, 112), 'depths': (1, 2, 2, 3, 3)}
WIDTHS = (128, 64, 32)  # channels at strides 16, 8 and 4
FINE = 16  # channels at stride 2
BLOCKS = (4, 2, 2)  # at strides 16, 8 and 4
PROTOTYPES = 6


class Features(NamedTuple):
    """Image features at strides 16, 8, 4 and 2, each B×C×h×w."""

    f16: Tensor
    f8: Tensor
    f4: Tensor
    f2: Tensor


class Block(nn.Module):
    """Residual block: depthwise convolution, context of the whole image, two 1×1 convolutions."""

    def __init__(self, width: int, kernel: int):
        super().__init__()
        self.filter = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.context = nn.Linear(width, width)
        self.expand = nn.Conv2d(width, 3 * width, 1)
        self.project = nn.Conv2d(3 * width, width, 1)
        for parameter in self.project.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """x: B×C×h×w."""
        y = self.norm(self.filter(x))
        y = y + self.context(y.mean((2, 3)))[:, :, None, None]
        return x + self.project(F.relu(self.expand(y)))


def prompt_level(channels: int, out: int, stride: int) -> nn.Sequential:
    """Make the layers that carry prompt maps to the next scale."""
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(), nn.Conv2d(out, out, 1)
    )


class PromptNetwork(nn.Module):
    """Encoder `features` and decoder `forward`."""

    def __init__(self) -> None:
        super().__init__()
        wide, middle, narrow = WIDTHS
        self.trunk = EfficientNetLite(LITE0['widths'], LITE0['depths'], WIDTHS)
        self.fine = nn.Sequential(nn.Conv2d(3, FINE, 3, 2, 1), nn.ReLU())
        self.prompt4 = prompt_level(PROMPTS, narrow, 1)
        self.prompt8 = prompt_level(narrow, middle, 2)
        self.prompt16 = prompt_level(middle, wide, 2)
        self.like16 = nn.Conv2d(PROTOTYPES, wide, 1)
        self.like8 = nn.Conv2d(PROTOTYPES, middle, 1)
        self.blocks16 = nn.Sequential(*(Block(wide, 7) for _ in range(BLOCKS[0])))
        self.up8 = nn.Conv2d(wide, middle, 1)
        self.blocks8 = nn.Sequential(*(Block(middle, 5) for _ in range(BLOCKS[1])))
        self.up4 = nn.Conv2d(middle, narrow, 1)
        self.blocks4 = nn.Sequential(*(Block(narrow, 5) for _ in range(BLOCKS[2])))
        self.up2 = nn.Conv2d(narrow, FINE, 1)
        self.mix2 = nn.Conv2d(2 * FINE, FINE, 3, padding=1)
        self.mask = nn.Conv2d(FINE, CANDIDATES, 1)
        self.quality = nn.Sequential(nn.Linear(2 * narrow + wide + 1, 64), nn.ReLU(), nn.Linear(64, 1))

    def features(self, image: Tensor) -> Features:
        """Compute the image features.

        image: B×3×H×W, normalised as for XMem; H and W multiples of 16.
        """
        f16, f8, f4 = self.trunk(image)
        return Features(f16, f8, f4, self.fine(image))

    def forward(self, features: Features, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Compute candidates.

        prompts: B×5×H/4×W/4, values 0…1, see `PROMPTS`; a mask that is not given is 0.

        Returns:
            Mask logits B×3×H/2×W/2, and the logits of the predicted IoU, B×3.
        """
        p4 = self.prompt4(prompts)
        p8 = self.prompt8(p4)
        p16 = self.prompt16(p8)
        weights = prototype_weights(prompts)
        x = features.f16 + p16 + self.like16(similarity(features.f16, weights))
        x16 = self.blocks16(x)
        x = enlarged(self.up8(x16)) + features.f8 + p8 + self.like8(similarity(features.f8, weights))
        x = self.blocks8(x)
        x4 = self.blocks4(enlarged(self.up4(x)) + features.f4 + p4)
        x = torch.cat([enlarged(self.up2(x4)), features.f2], 1)
        masks = self.mask(F.relu(self.mix2(x)))
        return masks, self._quality(masks.detach(), x4, x16)

    def _quality(self, masks: Tensor, x4: Tensor, x16: Tensor) -> Tensor:
        inside = F.avg_pool2d(torch.sigmoid(masks), 2)
        count = inside.sum((2, 3), keepdim=True)
        whole = x16.mean((2, 3))[:, None].expand(-1, CANDIDATES, -1)
        mean = torch.einsum('bkhw,bchw->bkc', inside / (count + 1), x4)
        edge = inside * (1 - inside)
        outline = torch.einsum('bkhw,bchw->bkc', edge / (edge.sum((2, 3), keepdim=True) + 1), x4)
        sharpness = edge.sum((2, 3)) / (count[:, :, 0, 0] + 1)
        return self.quality(torch.cat([mean, outline, whole, sharpness[:, :, None]], 2))[:, :, 0]


def enlarged(x: Tensor) -> Tensor:
    """Double the height and width."""
    return F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)


def prototype_weights(prompts: Tensor) -> Tensor:
    """Make the weights of the means: points on and off, inside and outside of box and mask.

    B×5×h×w → B×6×h×w.
    """
    box, on, off, mask, given = prompts.unbind(1)
    boxed = (box.amax((1, 2), keepdim=True) > 0).to(box.dtype)
    return torch.stack([on, off, box, (1 - box) * boxed, mask, (1 - mask) * given], 1)


def similarity(features: Tensor, weights: Tensor) -> Tensor:
    """Compute the cosine similarity of each position to each weighted mean of the features.

    features: B×C×h×w, weights: B×6×H×W at stride 4 → B×6×h×w; 0 where the weights are 0.
    """
    weights = F.adaptive_avg_pool2d(weights, (features.shape[-2], features.shape[-1]))
    unit = F.normalize(features, dim=1)
    means = torch.einsum('bkhw,bchw->bkc', weights, unit)
    return torch.einsum('bkc,bchw->bkhw', F.normalize(means, dim=2, eps=1e-6), unit)
