# SPDX-License-Identifier: MIT
"""Decoder: image features, memory readout and sensory memory to a logit per object and pixel."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmem_ros.network.blocks import Fuser, UpBlock, conv3x3
from xmem_ros.network.config import NetworkConfig
from xmem_ros.network.sensory import SensoryUpdate


class Decoder(nn.Module):
    """Fuser at stride 16, two up-blocks, prediction."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        c16, c8, c4 = config.feature_widths
        w16, w8, w4 = config.decoder_widths
        self.fuser = Fuser(c16, config.value_dim + config.sensory_dim, w16, config.gate_reduction)
        self.hidden_update = None
        if config.sensory_dim:
            self.hidden_update = SensoryUpdate(config.decoder_widths, config.sensory_mid, config.sensory_dim)
        self.up_16_8 = UpBlock(c8, w16, w8)
        self.up_8_4 = UpBlock(c4, w8, w4)
        self.pred = conv3x3(w4, 1)

    def forward(
        self, features: tuple[Tensor, Tensor, Tensor], readout: Tensor, sensory: Tensor | None, update: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Decode every object.

        features: f16, f8, f4; readout: B×O×CV×h×w; sensory: B×O×CS×h×w. Returns float32 logits
        B×O×H×W at the image's size, and the sensory memory, updated if `update`.
        """
        f16, f8, f4 = features
        batch, objects = readout.shape[:2]
        read, before = readout.flatten(0, 1), None if sensory is None else sensory.flatten(0, 1)
        if self.hidden_update is not None and before is not None:
            read = torch.cat([read, before.to(read.dtype)], 1)
        g16 = self.fuser(f16, read)
        g8 = self.up_16_8(f8, g16)
        g4 = self.up_8_4(f4, g8)
        logits = self.pred(F.relu(g4))
        if update and self.hidden_update is not None and before is not None:
            sensory = self.hidden_update(g16, g8, g4, logits, before).view(batch, objects, *before.shape[1:])
        logits = logits.float().view(batch, objects, *logits.shape[2:])
        return F.interpolate(logits, scale_factor=4, mode='bilinear', align_corners=False), sensory
