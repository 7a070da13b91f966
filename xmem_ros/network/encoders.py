# SPDX-License-Identifier: MIT
"""Key encoder, key projection and value encoder."""

import torch
from torch import Tensor, nn

from xmem_ros.network.blocks import Fuser, conv3x3
from xmem_ros.network.config import NetworkConfig
from xmem_ros.network.efficientnet_lite import EfficientNetLite
from xmem_ros.network.residual import BasicBlock, Bottleneck, residual_stage
from xmem_ros.network.sensory import DeepUpdate


class KeyEncoder(nn.Module):
    """Key encoder: features f16, f8 and f4 from a ResNet, an EfficientNet-Lite, or their sum.

    The entries of the ResNet have the official names; those of the EfficientNet-Lite are in `lite`.
    """

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.has_resnet = bool(config.key_widths)
        if self.has_resnet:
            block = Bottleneck if config.key_bottleneck else BasicBlock
            stem, w4, w8, w16 = config.key_widths
            d4, d8, d16 = config.key_depths
            self.conv1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(stem)
            self.relu = nn.ReLU(inplace=True)
            self.maxpool = nn.MaxPool2d(3, 2, 1)
            self.res2 = residual_stage(block, stem, w4, d4, 1)
            self.layer2 = residual_stage(block, w4 * block.expansion, w8, d8, 2)
            self.layer3 = residual_stage(block, w8 * block.expansion, w16, d16, 2)
        self.lite = None
        if config.lite_widths:
            self.lite = EfficientNetLite(config.lite_widths, config.lite_depths, config.lite_laterals)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode image B×3×H×W, normalised, to f16, f8, f4, each B×C×(H/s)×(W/s)."""
        if not self.has_resnet:
            assert self.lite is not None
            return self.lite(image)
        f4 = self.res2(self.maxpool(self.relu(self.bn1(self.conv1(image)))))
        f8 = self.layer2(f4)
        f16 = self.layer3(f8)
        if self.lite is None:
            return f16, f8, f4
        l16, l8, l4 = self.lite(image)
        return f16 + l16, f8 + l8, f4 + l4


class KeyProjection(nn.Module):
    """Projection of f16 to key, shrinkage (of memory) and selection (of a query)."""

    def __init__(self, channels: int, key_dim: int):
        super().__init__()
        self.key_proj = conv3x3(channels, key_dim)
        self.d_proj = conv3x3(channels, 1)
        self.e_proj = conv3x3(channels, key_dim)
        if self.d_proj.weight.is_meta:  # without values; initialising it would import torch._dynamo
            return
        # Small keys and little shrinkage: training from scratch must start with a soft affinity.
        # Through a sharp one the softmax passes no gradient, and matching is never learned.
        nn.init.orthogonal_(self.key_proj.weight, gain=0.2)
        nn.init.normal_(self.d_proj.weight, std=1e-3)
        for layer in (self.key_proj, self.d_proj):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, f16: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project f16: B×C×h×w.

        Returns, in float32, key B×CK×h×w, shrinkage B×1×h×w ≥ 1 and selection B×CK×h×w in 0…1.
        """
        shrinkage = self.d_proj(f16).float() ** 2 + 1
        return self.key_proj(f16).float(), shrinkage, torch.sigmoid(self.e_proj(f16).float())


class ValueEncoder(nn.Module):
    """Value encoder: a ResNet over image and masks, fused with f16, and the deep sensory update."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        stem, w4, w8, w16 = config.value_widths
        d4, d8, d16 = config.value_depths
        self.conv1 = nn.Conv2d(5, stem, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = residual_stage(BasicBlock, stem, w4, d4, 1)
        self.layer2 = residual_stage(BasicBlock, w4, w8, d8, 2)
        self.layer3 = residual_stage(BasicBlock, w8, w16, d16, 2)
        self.fuser = Fuser(config.feature_widths[0], w16, config.value_dim, config.gate_reduction)
        self.hidden_reinforce = DeepUpdate(config.value_dim, config.sensory_dim) if config.sensory_dim else None

    def trunk(self, x: Tensor) -> Tensor:
        """Encode B×5×H×W (RGB, the object's mask, the others' masks) to g16 B×C×(H/16)×(W/16)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer3(self.layer2(self.layer1(x)))

    def forward(
        self, image: Tensor, f16: Tensor, masks: Tensor, sensory: Tensor | None, deep_update: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Encode the value of every object.

        image: B×3×H×W, f16: B×C×h×w, masks: B×O×H×W probabilities, sensory: B×O×CS×h×w.
        Returns the value B×O×CV×h×w and the sensory memory, updated if `deep_update`.
        """
        return self.encode(image, f16, masks, masks.sum(1, keepdim=True) - masks, sensory, deep_update)

    def encode(
        self, image: Tensor, f16: Tensor, masks: Tensor, others: Tensor, sensory: Tensor | None, deep_update: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Encode some objects; others: B×O×H×W, sum of the masks of each object's other objects."""
        rgb = image.unsqueeze(1).expand(-1, masks.shape[1], -1, -1, -1)
        stacked = torch.cat([rgb, masks.unsqueeze(2).to(rgb.dtype), others.unsqueeze(2).to(rgb.dtype)], 2)
        batch, objects = masks.shape[:2]
        value = self.fuser(f16, self.trunk(stacked.flatten(0, 1)))
        if deep_update and self.hidden_reinforce is not None and sensory is not None:
            sensory = self.hidden_reinforce(value, sensory.flatten(0, 1)).view(sensory.shape)
        return value.view(batch, objects, *value.shape[1:]), sensory
