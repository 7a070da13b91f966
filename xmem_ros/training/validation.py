# SPDX-License-Identifier: MIT
"""Validation: mean IoU on held-back footage."""

from __future__ import annotations

import copy

import numpy as np
import torch

from xmem_ros.memory.config import MemoryConfig
from xmem_ros.network.model import XMemNetwork
from xmem_ros.tracker import SeedMask, Tracker, TrackerConfig
from xmem_ros.training.footage import Footage


def follow(network: XMemNetwork, footage: Footage, device: torch.device) -> float:
    """Track the objects of the first frame that shows any; return their mean IoU over all frames.

    The masks of that frame are the seeds. Returns NaN if there is nothing to track.
    """
    labels = [footage.labels[i] for i in range(len(footage.labels))]
    first = next((i for i, label in enumerate(labels) if label.any()), None)
    if first is None or first == len(labels) - 1:
        return float('nan')
    values = [int(value) for value in np.unique(labels[first]) if value]
    # likeness thresholds, which the default policy needs, are calibrated after training
    tracker = Tracker(
        network, TrackerConfig(max_objects=len(values), precision='float32', memory=MemoryConfig().published()), device
    )
    seeds = [SeedMask(labels[first] == value, name=str(value)) for value in values]
    overlaps = []
    for number in range(first, len(labels)):
        result = tracker.step(footage.frames[number], seeds if number == first else ())
        if number == first:
            continue
        for value, item in zip(values, result.objects, strict=True):
            truth, found = labels[number] == value, result.labels == item.label
            union = (truth | found).sum()
            overlaps.append(float((truth & found).sum() / union) if union else 1.0)
    return float(np.mean(overlaps))


def validate(network: XMemNetwork, held: list[Footage], device: torch.device) -> dict[str, float]:
    """Return the mean IoU of each held-back video, 0…1; the network is not changed."""
    network = copy.deepcopy(network).eval()
    return {footage.name: follow(network, footage, device) for footage in held}


def mean(scores: dict[str, float]) -> float:
    """Return the mean over the videos with a score."""
    return float(np.nanmean(list(scores.values())))


def before_after(before: dict[str, float], after: dict[str, float]) -> str:
    """Format two validations as a table."""
    width = max(len('held back'), *(len(name) for name in before))
    lines = [f'{"held back":{width}}  {"before":>7}  {"after":>7}   (mean IoU, percent)']
    rows = [*before.items(), ('mean', mean(before))]
    later = after | {'mean': mean(after)}
    lines += [f'{name:{width}}  {100 * value:7.1f}  {100 * later[name]:7.1f}' for name, value in rows]
    return '\n'.join(lines)
