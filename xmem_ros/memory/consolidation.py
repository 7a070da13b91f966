# SPDX-License-Identifier: MIT
"""Consolidation of working memory to prototypes (XMem, section 3.3.2, "memory potentiation")."""

import torch
from torch import Tensor

from xmem_ros.memory.matching import memory_rows, query_rows
from xmem_ros.memory.store import Positions
from xmem_ros.memory.usage import UNREAD


def consolidate(candidates: Positions, chosen: Tensor, *, inherit: bool = False) -> Positions:
    """Make prototypes of chosen candidates.

    A prototype has the key of its candidate. Its values and shrinkage are averages over all
    candidates, weighted by the softmax of their similarity to it. The average of an object's values
    includes only the candidates at which it has values.

    Arguments:
        candidates: n positions.
        chosen: P offsets.
        inherit: whether prototypes keep the usage of their candidates, instead of starting at zero.
    """
    key, selection = candidates.key[chosen], candidates.selection[chosen]
    similarity = query_rows(key, selection) @ memory_rows(candidates.key, candidates.shrinkage).T  # P×n
    shrinkage = torch.softmax(similarity, 1) @ candidates.shrinkage
    valid = candidates.valid[:, chosen]  # O×P
    values = torch.zeros(*valid.shape, candidates.values.shape[2], device=key.device)
    for i in range(valid.shape[0]):
        allowed = similarity.masked_fill(~candidates.valid[i], float('-inf'))
        # Without values at any candidate, an object's softmax is NaN. It becomes 0, which is never
        # read: the object has no valid prototype.
        affinity = torch.softmax(allowed, 1).nan_to_num(0.0)
        held = candidates.values[i].float().masked_fill(~candidates.valid[i][:, None], 0.0)
        values[i] = affinity @ held
    use = candidates.use[chosen] if inherit else torch.zeros_like(candidates.use[chosen])
    life = candidates.life[chosen] if inherit else torch.full_like(candidates.life[chosen], UNREAD)
    return Positions(key, shrinkage, selection, values, valid, candidates.owner[chosen], use, life)
