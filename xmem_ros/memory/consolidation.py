# SPDX-License-Identifier: MIT
"""Consolidation: working memory → a few prototypes (XMem, section 3.3.2; "memory potentiation")."""

import torch
from torch import Tensor

from xmem_ros.memory.matching import memory_rows, query_rows
from xmem_ros.memory.store import Positions


def consolidate(candidates: Positions, score: Tensor, prototypes: int) -> Positions:
    """Choose the most used candidates and give each what the candidates around it hold.

    candidates: n positions; score: n, their usage; prototypes: how many to make (all n where fewer are there). A
    prototype's key is its candidate's own; its values and shrinkage are averages over all candidates, weighted by the
    softmax of their similarity to it. An object's average runs over the candidates that it has values for.
    """
    chosen = score.topk(min(prototypes, score.numel())).indices
    key, selection = candidates.key[chosen], candidates.selection[chosen]
    similarity = query_rows(key, selection) @ memory_rows(candidates.key, candidates.shrinkage).T  # P×n
    shrinkage = torch.softmax(similarity, 1) @ candidates.shrinkage
    valid = candidates.valid[:, chosen]  # O×P
    values = torch.zeros(*valid.shape, candidates.values.shape[2], device=key.device)
    for i in range(valid.shape[0]):
        allowed = similarity.masked_fill(~candidates.valid[i], float('-inf'))
        # an object without any candidate has no valid prototype either; its row of NaN is never read
        affinity = torch.softmax(allowed, 1).nan_to_num(0.0)
        held = candidates.values[i].float().masked_fill(~candidates.valid[i][:, None], 0.0)
        values[i] = affinity @ held
    return Positions(key, shrinkage, selection, values, valid)


def least_used(score: Tensor, count: int) -> Tensor:
    """Offsets that survive when exactly `count` of the least used positions go, ascending."""
    if count <= 0:
        return torch.arange(score.numel(), device=score.device)
    if count >= score.numel():
        return torch.empty(0, dtype=torch.int64, device=score.device)
    return score.topk(score.numel() - count).indices.sort().values
