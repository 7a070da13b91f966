# SPDX-License-Identifier: MIT
"""What was predicted of a frame's objects and the masks that were given of some, made one."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from xmem_ros.network.aggregation import aggregate
from xmem_ros.tracker.segmenter import Prediction


def join_masks(ids: Iterable[int], prob: Tensor | None, existing: list[int], given: Mapping[int, Tensor]) -> Tensor:
    """Predictions and given masks → probabilities (1+O)×H×W at the padded working size, the background first.

    Where a mask is set, predictions are zeroed; a corrected object is its mask alone.

    Arguments:
        ids: of all objects, in the order that is wanted.
        prob: O'×H×W, of the objects that there were before this frame; None only where all have masks.
        existing: their ids, in that order.
        given: id → H×W 0/1.
    """
    if not given:
        assert prob is not None
        return torch.cat([1 - prob.sum(0, keepdim=True), prob])
    covered = torch.stack(list(given.values())).any(0)
    planes = []
    for object_id in ids:
        if object_id in given:
            planes.append(given[object_id])
        else:
            assert prob is not None
            planes.append(prob[existing.index(object_id)] * ~covered)
    return aggregate(torch.stack(planes), 0)


def judge(
    ids: Iterable[int], found: Prediction | None, existing: list[int], given: Mapping[int, Tensor], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Confidence O and visibility O bool of all objects; those of a given mask are beyond doubt.

    Arguments as of `join_masks`; found: of the objects `existing`.
    """
    wanted = list(ids)
    sure = torch.ones(len(wanted), device=device)
    visible = torch.ones(len(wanted), device=device, dtype=torch.bool)
    for i, object_id in enumerate(wanted):
        if found is not None and object_id not in given:
            place = existing.index(object_id)
            sure[i], visible[i] = found.confidence[place], found.visible[place]
    return sure, visible
