# SPDX-License-Identifier: MIT
"""Which positions are worth keeping: how often each is read, whose it is, and what share of the room its owner has.

Every position belongs to an owner: the row of the object whose mask covered it, or the background. `all` counts as
published: every query adds to what it reads, in every frame. `own` counts the queries inside the owner alone, and only
in frames in which it is visible, so that what is out of sight does not fade.
"""

import torch
from torch import Tensor

BACKGROUND = -1
UNREAD = 1e-7  # a position's life before its first read, as published: no division by zero

POLICIES = ('own', 'all')


def owners(presence: Tensor, rows: list[int], least: float = 0.25) -> Tensor:
    """Whose each position of a frame is: n int16.

    presence: O×n, the share of each position that an object covers, in the order of `rows`; zeros where it is not
    visible. A position is an object's if it covers `least` of it, or as much as of any other.
    """
    out = torch.full(presence.shape[1:], BACKGROUND, dtype=torch.int16, device=presence.device)
    if not rows:
        return out
    share, first = presence.max(0)
    threshold = presence.amax(1).clamp(max=least)[first]
    names = torch.tensor(rows, dtype=torch.int16, device=presence.device)
    return torch.where((share > 0) & (share >= threshold), names[first], out)


def own_shares(presence: Tensor, rows: list[int], total_rows: int) -> tuple[Tensor, Tensor]:
    """Owner-major tables, the background first: shares of the queries (1+R)×Q, and who is visible (1+R).

    presence: O×Q, in the order of `rows`.
    """
    shares = presence.new_zeros(1 + total_rows, presence.shape[1])
    shares[0] = (1 - presence.sum(0)).clamp_min(0)
    shares[[row + 1 for row in rows]] = presence
    visible = shares.amax(1) > 0
    visible[0] = True
    return shares, visible


def most_worth(score: Tensor, count: int, owner: Tensor | None = None, objects: int = 0) -> Tensor:
    """Offsets of exactly `count` positions (all where fewer are there), best first.

    score: n, use / life. With `owner` (n) each owner has a quota: the background one half, each of `objects` objects
    an equal part of the other, and what one does not need goes to the others. That is one ranking, by a position's
    rank within its owner over its owner's weight.
    """
    count = min(max(count, 0), score.numel())
    by_score = torch.argsort(score, descending=True, stable=True)  # of equals the older: the same on every run
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
