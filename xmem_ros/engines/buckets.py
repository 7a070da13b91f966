# SPDX-License-Identifier: MIT
"""Buckets: objects are padded to one of a few fixed numbers, so that tensors have static shapes."""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

BUCKETS = (1, 2, 4, 8, 16)


def in_buckets(
    run: Callable[[int, Mapping[str, Tensor]], Mapping[str, Tensor]],
    buckets: Sequence[int],
    per_object: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Run in chunks of the largest bucket; the last chunk is zero-padded to the next bucket.

    Arguments:
        run: function of a bucket and tensors 1×bucket×…, with outputs 1×bucket×….
        buckets: numbers of objects, ascending.
        per_object: tensors 1×O×….

    Returns:
        Outputs of `run`, 1×O×…, without the padding.
    """
    total = next(iter(per_object.values())).shape[1]
    parts = []
    for begin in range(0, total, buckets[-1]):
        count = min(total - begin, buckets[-1])
        bucket = next(size for size in buckets if size >= count)
        padded = {
            name: F.pad(tensor[:, begin : begin + count], (0, 0) * (tensor.ndim - 2) + (0, bucket - count))
            for name, tensor in per_object.items()
        }
        parts.append({name: tensor[:, :count] for name, tensor in run(bucket, padded).items()})
    if len(parts) == 1:
        return parts[0]
    return {name: torch.cat([part[name] for part in parts], 1) for name in parts[0]}
