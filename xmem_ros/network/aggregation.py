# SPDX-License-Identifier: MIT
"""Soft aggregation of independent object probabilities (XMem, section 3.1, after STM)."""

import torch
from torch import Tensor


def aggregate_logits(prob: Tensor, dim: int) -> Tensor:
    """Object probabilities (O of them along `dim`) → logits of background and objects (1+O), float32.

    In float16 the clamp would round to 1 and the logit be infinite, so the arithmetic is float32 whatever comes in.
    """
    prob = prob.float()
    background = torch.prod(1 - prob, dim=dim, keepdim=True)
    return torch.logit(torch.cat([background, prob], dim).clamp(1e-7, 1 - 1e-7))


def aggregate(prob: Tensor, dim: int) -> Tensor:
    """Object probabilities → probabilities of background and objects that sum to 1 along `dim`."""
    return torch.softmax(aggregate_logits(prob, dim), dim)
