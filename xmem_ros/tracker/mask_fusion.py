# SPDX-License-Identifier: MIT
"""Merging of predicted and user-given masks of a frame."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from xmem_ros.network.aggregation import aggregate
from xmem_ros.tracker.segmenter import Prediction


def merge_masks(ids: Iterable[int], prob: Tensor | None, existing: list[int], seeded: Mapping[int, Tensor]) -> Tensor:
    """Merge to probabilities (1+O)×H×W at the padded working size, the background first.

    Predictions are 0 under a seed's mask. A corrected object is its mask alone.

    Arguments:
        ids: all objects, in the order of the result.
        prob: O'×H×W, predictions of `existing`; None only if every object has a mask.
        existing: ids of the objects before this frame.
        seeded: id → H×W mask, 0 or 1.
    """
    if prob is not None and not seeded:
        return torch.cat([1 - prob.sum(0, keepdim=True), prob])
    covered = torch.stack(list(seeded.values())).any(0)
    planes = []
    for object_id in ids:
        if object_id in seeded:
            planes.append(seeded[object_id])
        elif prob is not None:
            planes.append(prob[existing.index(object_id)] * ~covered)
        else:
            raise ValueError(f'object {object_id} has neither a mask nor a prediction')
    return aggregate(torch.stack(planes), 0)


def merge_confidence(
    ids: Iterable[int],
    prediction: Prediction | None,
    existing: list[int],
    seeded: Mapping[int, Tensor],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Return confidence O and visibility O bool of all objects; seeded ones have 1 and True.

    Arguments as for `merge_masks`; prediction: of the objects `existing`.
    """
    wanted = list(ids)
    sure = torch.ones(len(wanted), device=device)
    visible = torch.ones(len(wanted), device=device, dtype=torch.bool)
    for i, object_id in enumerate(wanted):
        if prediction is not None and object_id not in seeded:
            place = existing.index(object_id)
            sure[i], visible[i] = prediction.confidence[place], prediction.visible[place]
    return sure, visible
