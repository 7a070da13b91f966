# SPDX-License-Identifier: MIT
"""Differentiable pass over clips; every frame is memorised and read with a full softmax."""

import torch
from torch import Tensor

from xmem_ros.memory.matching import memory_rows, query_rows
from xmem_ros.network.aggregation import aggregate_logits
from xmem_ros.network.model import EncodedImage, XMemNetwork


def _positions(x: Tensor) -> Tensor:
    """B×C×h×w → B×hw×C."""
    return x.flatten(2).transpose(1, 2)


def _frame(encoded: EncodedImage, step: int, batch: int) -> EncodedImage:
    """Select one frame of a time-major batch (T·B×…)."""
    part = slice(step * batch, (step + 1) * batch)
    f16, f8, f4 = encoded.features
    return EncodedImage(
        encoded.key[part], encoded.shrinkage[part], encoded.selection[part], (f16[part], f8[part], f4[part])
    )


def _drawn(count: int, most: int, generator: torch.Generator) -> list[int]:
    """Draw the memory frames to read: all of `count`, or the first and random others."""
    if not most or count <= most:
        return list(range(count))
    others = torch.randperm(count - 1, generator=generator)[: most - 1] + 1
    return [0, *sorted(others.tolist())]


def track_clip(
    network: XMemNetwork,
    images: Tensor,
    first: Tensor,
    valid: Tensor,
    deep_update: float,
    generator: torch.Generator,
    reference_frames: int = 0,
) -> Tensor:
    """Track the first frame's masks through each clip.

    Arguments:
        images: B×T×3×H×W.
        first: masks of frame 0, B×O×H×W.
        valid: used object slots, B×O bool.
        deep_update: chance of the deep update on frames after the first.
        generator: source of random numbers.
        reference_frames: maximum number of frames to read, the first and random others; 0: all.

    Returns:
        Aggregated logits B×(T−1)×(1+O)×H×W, −inf in empty slots.
    """
    batch, length = images.shape[:2]
    objects = first.shape[1]
    encoded = network.encode_image(images.transpose(0, 1).flatten(0, 1))
    selector = valid[:, :, None, None].float()
    empty = torch.cat([torch.zeros_like(valid[:, :1]), ~valid], 1)[:, :, None, None]
    masks = first.float() * selector
    frame = _frame(encoded, 0, batch)
    height, width = frame.key.shape[-2:]
    sensory = network.zero_sensory(batch, objects, (height, width))
    rows: list[Tensor] = []
    values: list[Tensor] = []
    logits = []
    for step in range(length):
        frame = _frame(encoded, step, batch)
        if step:
            read = _drawn(step, reference_frames, generator)
            with torch.autocast(images.device.type, enabled=False):
                query = query_rows(_positions(frame.key), _positions(frame.selection))
                affinity = torch.softmax(query @ torch.cat([rows[i] for i in read], 1).transpose(1, 2), -1)  # B×Q×N
            memory = torch.cat([values[i] for i in read], 1)  # B×N×(O·CV)
            readout = (affinity.to(memory.dtype) @ memory).transpose(1, 2)
            readout = readout.reshape(batch, objects, -1, height, width)
            last = step == length - 1
            raw, sensory = network.decode(frame.features, readout, sensory, update=not last)
            joint = aggregate_logits(torch.sigmoid(raw) * selector, 1).masked_fill(empty, float('-inf'))
            logits.append(joint)
            masks = torch.softmax(joint, 1)[:, 1:]
            if last:
                break
        deep = step == 0 or torch.rand((), generator=generator).item() < deep_update
        value, sensory = network.encode_value(images[:, step], frame.features[0], masks, sensory, deep)
        rows.append(memory_rows(_positions(frame.key), _positions(frame.shrinkage)))
        values.append(_positions(value.flatten(1, 2)))
    return torch.stack(logits, 1)
