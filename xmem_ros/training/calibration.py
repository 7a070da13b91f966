# SPDX-License-Identifier: MIT
"""Calibration of the guard's likeness thresholds on labelled footage.

The guard hides an object whose appearance has changed too much (`memory.gallery`). Likeness depends
on the network's features, so each weights file needs its own thresholds. Calibration replays the
gallery on the true masks at the rate of memory frames. As in tracking, an appearance below the
threshold is hidden and not remembered. The chosen threshold minimises a weighted sum of two shares:
hidden frames of the object itself, and accepted frames of other objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xmem_ros.memory.gallery import NEARBY, Gallery, appearance, colours_of
from xmem_ros.network.config import LikenessThresholds
from xmem_ros.network.model import XMemNetwork
from xmem_ros.progress import Bar
from xmem_ros.tracker.config import TrackerConfig
from xmem_ros.tracker.geometry import FrameGeometry, image_to_tensor, mask_to_tensor
from xmem_ros.tracker.segmenter import presence
from xmem_ros.training.footage import Footage, FootageError

COST_OF_HIDING = 3.0  # relative to accepting a frame of another object; a hidden object is often lost for good
LEAST_AREA = 128  # px; a smaller mask is usually an object that is leaving the image
MARGIN = 0.03  # likeness; predicted masks differ from true ones
SPREAD = 0.35  # likeness, from confidence 0 to confidence 1
USUAL_SCORE = 0.9  # mean probability in a correct mask
CANDIDATES = np.arange(0.9, 0.0, -0.02)


@dataclass(frozen=True)
class Looks:
    """Appearances of one object at the rate of memory frames; the first is its seed."""

    name: str
    appearances: Tensor  # n×(C+COLOURS)
    nearby: Tensor  # n bool: over half of the mask lies in or next to the previous frame's mask


@dataclass(frozen=True)
class Calibration:
    """Thresholds and their error rates on the footage."""

    thresholds: LikenessThresholds
    hidden: float  # hidden share of the objects' own frames
    worst: tuple[str, float]  # object with the largest hidden share, and that share
    let_through: float  # accepted share of other objects' frames; NaN for a single object

    def __str__(self) -> str:
        name, share = self.worst
        return (
            f'unlike {self.thresholds.unlike:.2f}, sure {self.thresholds.sure:.2f}; hidden frames of the objects: '
            f'{self.hidden:.1%}, at most {share:.1%} ({name}); accepted frames of others: {self.let_through:.1%}'
        )


def calibrate(network: XMemNetwork, footage: Sequence[Footage], device: torch.device | None = None) -> Calibration:
    """Choose thresholds for a network; the network is not changed.

    footage: videos that the network was not trained on. Raises `FootageError` if no object is
    visible in two memory frames.
    """
    looks = [found for video in Bar(footage, desc='looks', unit='video') for found in looks_of(network, video, device)]
    looks = [found for found in looks if len(found.appearances) > 1]
    if not looks:
        raise FootageError('no object to calibrate on: label at least one object in two frames that are 5 apart')
    others = _likeness_of_others(looks)
    level = float(min(CANDIDATES, key=lambda level: _cost(looks, others, float(level)))) - MARGIN
    hidden = [hidden_by(found, level) for found in looks]
    shares = [float(part.float().mean()) for part in hidden]
    worst = int(np.argmax(shares))
    unlike = level - TrackerConfig.min_score / USUAL_SCORE * SPREAD  # the score is min_score at `level`
    return Calibration(
        LikenessThresholds(round(unlike, 3), round(unlike + SPREAD, 3)),
        float(torch.cat(hidden).float().mean()),
        (looks[worst].name, shares[worst]),
        float((others >= level).float().mean()),
    )


@torch.inference_mode()
def looks_of(network: XMemNetwork, footage: Footage, device: torch.device | None = None) -> list[Looks]:
    """Compute the appearances of each object of a video, from the first frame that shows it."""
    device = device or next(network.parameters()).device
    network = network.eval()
    geometry = FrameGeometry.of(footage.frames[0].shape[:2], network.config.shorter_side)
    vectors: dict[int, list[Tensor]] = {}
    nearby: dict[int, list[Tensor]] = {}
    for number in range(0, len(footage.frames), TrackerConfig.memory_every):
        label, before = footage.labels[number], footage.labels[max(number - 1, 0)]
        least = LEAST_AREA / geometry.scale
        values = [int(value) for value in np.unique(label) if value and (label == value).sum() >= least]
        if not values:
            continue
        image = image_to_tensor(footage.frames[number], geometry, device)
        masks, earlier = (
            torch.stack([mask_to_tensor(labels == value, geometry, device) for value in values])
            for labels in (label, before)
        )
        feature = network.encode_image(image).features[0][0].flatten(1)
        found = appearance(feature, presence(masks), colours_of(image, masks))
        grid = (len(values), *geometry.grid_size)
        around = F.max_pool2d(presence(earlier).view(grid), 3, 1, 1).flatten(1) > 0
        now = presence(masks)
        near = (now * around).sum(1) > 0.5 * now.sum(1)
        for i, value in enumerate(values):
            vectors.setdefault(value, []).append(found[i])
            nearby.setdefault(value, []).append(near[i])
    return [
        Looks(f'{footage.name}: {value}', torch.stack(vectors[value]), torch.stack(nearby[value])) for value in vectors
    ]


def hidden_by(looks: Looks, level: float) -> Tensor:
    """Return which appearances the guard hides at this threshold; n−1 bool, without the first."""
    gallery = _gallery(looks)
    gallery.remember(looks.appearances[:1], [0], torch.tensor([True]), [0])
    hidden = []
    for vector, near in zip(looks.appearances[1:], looks.nearby[1:], strict=True):
        visible = gallery.likeness(vector[None], [0]) + NEARBY * near >= level
        gallery.remember(vector[None], [0], visible, [])
        hidden.append(~visible)
    return torch.cat(hidden)


def _gallery(looks: Looks) -> Gallery:
    gallery = Gallery(1, 0, looks.appearances.device)
    gallery.vectors = looks.appearances.new_zeros(1, gallery.vectors.shape[1], looks.appearances.shape[1])
    return gallery


def _likeness_of_others(looks: Sequence[Looks]) -> Tensor:
    """Compute the likeness of all other objects' appearances to each object's full gallery."""
    found = [torch.empty(0)]
    for own in looks:
        gallery = _gallery(own)
        for number, vector in enumerate(own.appearances):
            gallery.remember(vector[None], [0], torch.tensor([True]), [] if number else [0])
        found += [gallery.likeness(other.appearances[:, None], [0]).flatten() for other in looks if other is not own]
    return torch.cat(found)


def _cost(looks: Sequence[Looks], others: Tensor, level: float) -> float:
    hidden = torch.cat([hidden_by(found, level) for found in looks]).float().mean()
    through = (others >= level).float().mean() if len(others) else torch.zeros(())
    return float(COST_OF_HIDING * hidden + through)
