# SPDX-License-Identifier: MIT
"""Soft aggregation of independent object probabilities (XMem, section 3.1, after STM)."""

import torch
from torch import Tensor


def aggregate_logits(prob: Tensor, dim: int) -> Tensor:
    """Return logits of background and objects (1+O along `dim`, float32) of O object probabilities.

    The arithmetic is float32: in float16 the clamp would round to 1 and the logit would be
    infinite.
    """
    prob = prob.float()
    background = torch.prod(1 - prob, dim=dim, keepdim=True)
    return torch.logit(torch.cat([background, prob], dim).clamp(1e-7, 1 - 1e-7))


def aggregate(prob: Tensor, dim: int) -> Tensor:
    """Return probabilities of background and objects (1+O) that sum to 1 along `dim`."""
    return torch.softmax(aggregate_logits(prob, dim), dim)
