# SPDX-License-Identifier: MIT
"""XMem network as one module: encode an image, encode values, decode."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xmem_ros.network.config import NetworkConfig
from xmem_ros.network.decoder import Decoder
from xmem_ros.network.encoders import KeyEncoder, KeyProjection, ValueEncoder

IMAGE_MEAN = (0.485, 0.456, 0.406)  # ImageNet's, RGB
IMAGE_STD = (0.229, 0.224, 0.225)
STRIDE = 16


@functools.lru_cache(maxsize=8)
def image_statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ImageNet's mean and standard deviation, 3×1×1 each, on a device."""
    with torch.inference_mode(False):  # cached tensors serve training, too
        mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    return mean, std


@dataclass
class EncodedImage:
    """Output of the key encoder and key projection."""

    key: Tensor  # B×CK×h×w, float32
    shrinkage: Tensor  # B×1×h×w, float32
    selection: Tensor  # B×CK×h×w, float32
    features: tuple[Tensor, Tensor, Tensor]  # f16, f8, f4: B×C×(H/s)×(W/s)


class XMemNetwork(nn.Module):
    """Key encoder, value encoder and decoder; stateless between frames."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.config = config
        self.key_encoder = KeyEncoder(config)
        self.key_proj = KeyProjection(config.feature_widths[0], config.key_dim)
        self.value_encoder = ValueEncoder(config)
        self.decoder = Decoder(config)

    def train(self, mode: bool = True) -> 'XMemNetwork':
        """Set training mode; batch norms follow only if the configuration trains them."""
        super().train(mode)
        if not self.config.train_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def encode_image(self, image: Tensor) -> EncodedImage:
        """Encode an image B×3×H×W, normalised; H and W multiples of 16."""
        features = self.key_encoder(image)
        key, shrinkage, selection = self.key_proj(features[0])
        return EncodedImage(key, shrinkage, selection, features)

    def encode_value(
        self, image: Tensor, f16: Tensor, masks: Tensor, sensory: Tensor | None, deep_update: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Encode masks B×O×H×W to values B×O×CV×h×w.

        Also returns the sensory memory B×O×CS×h×w, updated if `deep_update`.
        """
        return self.value_encoder(image, f16, masks, sensory, deep_update)

    def decode(
        self,
        features: tuple[Tensor, Tensor, Tensor],
        readout: Tensor,
        sensory: Tensor | None,
        update: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """Decode a readout B×O×CV×h×w to logits B×O×H×W, before the sigmoid.

        Also returns the sensory memory B×O×CS×h×w, updated if `update`.
        """
        return self.decoder(features, readout, sensory, update)

    def zero_sensory(self, batch: int, objects: int, size: tuple[int, int]) -> Tensor | None:
        """Make the sensory memory of new objects, B×O×CS×h×w; None for a network without one.

        size: h, w.
        """
        if not self.config.sensory_dim:
            return None
        device = next(self.parameters()).device
        return torch.zeros(batch, objects, self.config.sensory_dim, *size, device=device)
