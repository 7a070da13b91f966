# SPDX-License-Identifier: MIT
"""Losses of XMem's paper: bootstrapped cross-entropy on the aggregated logits, and dice."""

import torch
import torch.nn.functional as F
from torch import Tensor


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
