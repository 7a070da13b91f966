# SPDX-License-Identifier: MIT
"""Matching of queries with memory: similarity, top-k affinity, readout.

The anisotropic L2 similarity (XMem, eq. 3; n: memory position, q: query position)

    S(n, q) = s_n / √C_k · [ −Σ_c e_c k_c² + 2 Σ_c k_c (e_c q_c) − Σ_c e_c q_c² ]

is one matrix product. Its rows s/√C_k·[−k², 2k, −1] are computed once, when a position is stored;
its columns are [e; e⊙q; Σ e q²]. The arithmetic is float32, because the terms nearly cancel.
"""

import math

import torch
from torch import Tensor

GROUP = 32  # positions of a group in `_topk`


def memory_rows(key: Tensor, shrinkage: Tensor) -> Tensor:
    """Augment memory positions: key …×N×CK, shrinkage …×N×1 → …×N×(2·CK+1)."""
    scale = shrinkage / math.sqrt(key.shape[-1])
    return torch.cat([-key.square() * scale, 2 * key * scale, -scale], -1)


def query_rows(query: Tensor, selection: Tensor) -> Tensor:
    """Augment queries: query, selection …×Q×CK → …×Q×(2·CK+1).

    The similarity is S = query_rows · memory_rowsᵀ, Q×N.
    """
    selected = selection * query
    return torch.cat([selection, selected, (selected * query).sum(-1, keepdim=True)], -1)


def topk_affinity(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Apply softmax over the k most similar memory positions of each query.

    similarity: Q×N, −inf for positions that must not be read. Returns weights Q×k' that sum to 1
    and positions Q×k' (int64), k' = min(k, N). Weights of −inf positions are exactly 0, so a query
    without allowed positions gets zeros.
    """
    best, positions = _topk(similarity, min(k, similarity.shape[1]))
    peak = best.amax(1, keepdim=True)
    weights = torch.exp(best - torch.where(peak.isneginf(), torch.zeros_like(peak), peak))
    return weights / weights.sum(1, keepdim=True).clamp_min(1e-30), positions


def _topk(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest values of each row of Q×N, unsorted, and their columns; exact.

    A CPU does this in two stages, which is faster: the k largest values lie in the k groups with
    the largest maxima, and finding the maxima takes one pass.
    """
    q, n = similarity.shape
    whole = n // GROUP
    if similarity.device.type != 'cpu' or whole < 4 * k:
        return similarity.topk(k, dim=1, sorted=False)
    grouped = similarity[:, : whole * GROUP].view(q, whole, GROUP)
    groups = grouped.amax(2).topk(k, dim=1, sorted=False).indices
    candidates = grouped.gather(1, groups[:, :, None].expand(-1, -1, GROUP)).flatten(1)
    candidates = torch.cat([candidates, similarity[:, whole * GROUP :]], 1)
    best, place = candidates.topk(k, dim=1, sorted=False)
    places = torch.arange(GROUP, device=similarity.device)
    columns = (groups[:, :, None] * GROUP + places).flatten(1)
    rest = torch.arange(whole * GROUP, n, device=similarity.device).expand(q, -1)
    return best, torch.cat([columns, rest], 1).gather(1, place)


def readout(values: Tensor, weights: Tensor, positions: Tensor) -> Tensor:
    """Sum gathered values by weight: values N×CV, weights and positions Q×k → Q×CV."""
    return torch.nn.functional.embedding_bag(positions, values, per_sample_weights=weights.to(values.dtype), mode='sum')
