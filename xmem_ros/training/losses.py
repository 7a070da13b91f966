# SPDX-License-Identifier: MIT
"""Losses of XMem's paper: bootstrapped cross-entropy on the aggregated logits, and dice."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from xmem_ros.network.model import XMemNetwork
from xmem_ros.training.config import TrainingConfig
from xmem_ros.training.forward import track_clip


def hardest_share(iteration: int, start: float, end: float, final: float) -> float:
    """Return the share of pixels in the loss: linear from 1 at `start` to `final` at `end`."""
    progress = min(max((iteration - start) / max(end - start, 1), 0.0), 1.0)
    return 1 - progress * (1 - final)


def bootstrapped_cross_entropy(logits: Tensor, labels: Tensor, share: float) -> Tensor:
    """Return the mean cross-entropy of each image's hardest pixels.

    logits: B×(1+O)×H×W, −inf where an object slot is empty; labels: B×H×W int64; share: 0…1 of the
        pixels.
    """
    loss = F.cross_entropy(logits, labels, reduction='none').flatten(1)
    if share >= 1:
        return loss.mean()
    return loss.topk(max(int(share * loss.shape[1]), 1), dim=1, sorted=False).values.mean()


def dice_loss(prob: Tensor, labels: Tensor, valid: Tensor, objects: Tensor | None = None) -> Tensor:
    """Return 1 − soft dice, averaged over valid objects.

    prob: B×O×H×W, labels: B×H×W int64 (object o is o+1), valid: B×O bool; objects: divisor of the
    mean (default: number of valid objects).
    """
    slots = torch.arange(1, prob.shape[1] + 1, device=prob.device).view(1, -1, 1, 1)
    truth = (labels.unsqueeze(1) == slots).flatten(2).float()
    prob = prob.flatten(2)
    dice = (2 * (prob * truth).sum(2) + 1) / (prob.sum(2) + truth.sum(2) + 1)
    return ((1 - dice) * valid).sum() / (valid.sum().clamp_min(1) if objects is None else objects)


class ClipLoss(nn.Module):
    """Network and losses in one module, so that DistributedDataParallel averages the gradients.

    images B×T×3×H×W, labels B×T×H×W, valid B×O → cross-entropy, dice, and the aggregated logits.
    """

    def __init__(self, network: XMemNetwork, config: TrainingConfig):
        super().__init__()
        self.network, self.config = network, config

    def forward(
        self, images: Tensor, labels: Tensor, valid: Tensor, iteration: int, draw: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Track the first frame's objects; draw: source of random numbers."""
        c = self.config
        objects = valid.sum().clamp_min(1).float()
        if dist.is_initialized():  # the mean, so that averaged gradients equal those of one process
            dist.all_reduce(objects)
            objects /= dist.get_world_size()
        slots = torch.arange(1, valid.shape[1] + 1, device=labels.device).view(1, -1, 1, 1)
        first = (labels[:, :1] == slots).float()
        logits = track_clip(self.network, images, first, valid, c.deep_update, draw, c.reference_frames)
        share = hardest_share(iteration, *c.bootstrap)
        frames = range(logits.shape[1])
        cross = torch.stack([bootstrapped_cross_entropy(logits[:, t], labels[:, t + 1], share) for t in frames]).mean()
        prob = torch.softmax(logits, 2)[:, :, 1:]
        dice = torch.stack([dice_loss(prob[:, t], labels[:, t + 1], valid, objects) for t in frames]).mean()
        return cross, dice, logits
