# SPDX-License-Identifier: MIT
"""Usage of memory positions, their owners, and the choice of positions to keep.

A position's owner is the object whose mask covered it, or the background. With the policy `all`,
that of the paper, every query of every frame adds to the usage of the positions that it reads. The
policy `own` counts only queries inside the owner, and only frames in which the owner is visible.
The memory of an object out of sight therefore does not fade.
"""

import torch
from torch import Tensor

BACKGROUND = -1
UNREAD = 1e-7  # life before the first read, as published; prevents a division by zero


def owners(presence: Tensor, rows: list[int], least: float = 0.25) -> Tensor:
    """Return the owner of each position of a frame: n int16.

    presence: O×n, share of each position that an object covers, in the order of `rows`; zeros for
    an object that is not visible. An object owns a position if it covers at least `least` of it. A
    small object that covers no position that much owns the positions that it covers most.
    """
    out = torch.full(presence.shape[1:], BACKGROUND, dtype=torch.int16, device=presence.device)
    if not rows:
        return out
    share, first = presence.max(0)
    threshold = presence.amax(1).clamp(max=least)[first]
    names = torch.tensor(rows, dtype=torch.int16, device=presence.device)
    return torch.where((share > 0) & (share >= threshold), names[first], out)


def own_shares(presence: Tensor, rows: list[int], total_rows: int) -> tuple[Tensor, Tensor]:
    """Return each owner's share of the queries (1+R)×Q, and its visibility (1+R); background first.

    presence: O×Q, in the order of `rows`.
    """
    shares = presence.new_zeros(1 + total_rows, presence.shape[1])
    shares[0] = (1 - presence.sum(0)).clamp_min(0)
    shares[[row + 1 for row in rows]] = presence
    visible = shares.amax(1) > 0
    visible[0] = True
    return shares, visible


def most_worth(score: Tensor, count: int, owner: Tensor | None = None, objects: int = 0) -> Tensor:
    """Choose exactly `count` positions (all, if there are fewer); returns offsets, best first.

    score: n, use / life. With `owner` (n), each owner has a quota: one half for the background, the
    other half in equal parts for `objects` objects; unused parts go to other owners. For this,
    positions are sorted by their rank among those of their owner, divided by the owner's weight.
    """
    count = min(max(count, 0), score.numel())
    by_score = torch.argsort(score, descending=True, stable=True)  # of equals, the older comes first
    if owner is None:
        return by_score[:count]
    group = owner[by_score].long() + 1
    by_group = torch.argsort(group, stable=True)
    grouped = group[by_group]
    sizes = torch.zeros(int(torch.iinfo(torch.uint8).max) + 1, dtype=torch.int64, device=score.device)
    sizes.index_add_(0, grouped, torch.ones_like(grouped))
    rank = torch.arange(score.numel(), device=score.device) - (sizes.cumsum(0) - sizes)[grouped]
    weight = torch.where(grouped == 0, float(max(objects, 1)), 1.0)
    priority = torch.empty_like(score)
    priority[by_group] = (rank + 1) / weight
    return by_score[torch.argsort(priority, stable=True)[:count]]
