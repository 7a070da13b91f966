# SPDX-License-Identifier: MIT
"""Gallery: past appearances of each object, to decide whether a predicted mask shows the object.

The decoder always segments the region most similar to the object, even while the object is hidden.
The region's appearance decides whether it is the object. An appearance has two unit vectors:

- the mean image feature inside the mask minus the mean feature outside;
- the histogram of colours inside the mask.

The likeness of two appearances is the product of the cosines of both pairs of vectors; the cosine
of colours is raised to a power. The likeness to an object is the largest likeness to an appearance
in its gallery. The gallery has appearances from seeds, and from memory frames in which the object
was visible. Features distinguish kinds of objects; colours distinguish objects of one kind.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from xmem_ros.network.config import LikenessThresholds
from xmem_ros.network.model import image_statistics

SIDE = 8  # bins of each of two colour differences
COLOURS = SIDE * SIDE
REACH = 0.25  # colour difference at which the histogram ends, for RGB of 0…1
POOL = 4  # px, side of the squares over which colours are averaged
SPREAD = 3  # power of the colours' cosine, which is high for any two objects
SLOTS = 24  # appearances kept for each object
SEEDS = 4  # slots for seeds: the first seed and the latest corrections
NOVEL = 0.97  # a new appearance with this likeness to a kept one is redundant
# Bonus for a mask at the object's last position: objects turn, but they do not jump.
NEARBY = 0.1


class Gallery:
    """Appearances of all objects: rows×slots×(C+COLOURS).

    Letters: O objects, Q positions of a frame, C feature channels.
    """

    def __init__(self, rows: int, channels: int, device: torch.device):
        self.vectors = torch.zeros(rows, SLOTS, channels + COLOURS, device=device)
        self.filled = torch.zeros(rows, SLOTS, device=device, dtype=torch.bool)
        self.seeds = [0] * rows  # number of seeds so far

    @staticmethod
    def bytes_for(rows: int, channels: int) -> int:
        """Return the bytes of a gallery."""
        return rows * SLOTS * (4 * (channels + COLOURS) + 1)

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return self.vectors.nbytes + self.filled.nbytes

    def likeness(self, appearance: Tensor, rows: list[int]) -> Tensor:
        """Return the likeness, O in −1…1, of appearances O×(C+COLOURS) to those of `rows`."""
        alike = _alike(self.vectors[rows], appearance[:, None])[:, :, 0]
        return alike.masked_fill(~self.filled[rows], -1.0).amax(1)

    def remember(self, appearance: Tensor, rows: list[int], visible: Tensor, seeded: list[int]) -> None:
        """Keep new appearances O×(C+COLOURS) of objects that are visible or seeded.

        rows: of the O objects; visible: O bool; seeded: rows of the objects seeded in this frame,
        whose appearances are always kept.
        """
        known = self.likeness(appearance, rows)
        for i, row in enumerate(rows):
            if row in seeded:
                # the first seed stays, corrections take turns
                slot = self.seeds[row] if self.seeds[row] < SEEDS else 1 + (self.seeds[row] - 1) % (SEEDS - 1)
                self.seeds[row] += 1
                self.vectors[row, slot], self.filled[row, slot] = appearance[i], True
                continue
            # Into a free slot, else that of the most redundant appearance. Tensor operations only:
            # a branch on device data would wait for the device.
            kept, filled = self.vectors[row, SEEDS:], self.filled[row, SEEDS:]
            alike = _alike(kept, kept)
            alike.fill_diagonal_(-1.0)
            redundancy = alike.masked_fill(~filled, -1.0).amax(1).masked_fill(~filled, 2.0)
            slot_mask = F.one_hot(redundancy.argmax(), SLOTS - SEEDS).bool() & visible[i] & (known[i] < NOVEL)
            kept.copy_(torch.where(slot_mask[:, None], appearance[i], kept))
            filled |= slot_mask

    def clear_row(self, row: int) -> None:
        """Remove an object."""
        self.filled[row] = False
        self.seeds[row] = 0


def appearance(feature: Tensor, presence: Tensor, colours: Tensor) -> Tensor:
    """Compute appearances O×(C+COLOURS).

    feature: C×Q, of the image; presence: O×Q, share of each position that an object covers;
    colours: O×COLOURS.
    """
    feature = feature.float()
    inside = presence / presence.sum(1, keepdim=True).clamp_min(1e-6)
    outside = (1 - presence).clamp_min(0)
    outside = outside / outside.sum(1, keepdim=True).clamp_min(1e-6)
    return torch.cat([F.normalize((inside - outside) @ feature.T, dim=1), colours], 1)


def colours_of(image: Tensor, masks: Tensor) -> Tensor:
    """Compute the colours inside masks as unit vectors O×COLOURS.

    image: 1×3×H×W, normalised; masks: O×H×W. A vector is the square root of the histogram of B − Y
    and R − Y (ITU-R BT.601), so the cosine of two is their Bhattacharyya coefficient. Each pixel is
    shared among its four nearest bins. Brightness is ignored, because lighting changes.
    """
    mean, std = image_statistics(image.device)
    red, green, blue = (F.avg_pool2d(image, POOL)[0].float() * std + mean).flatten(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    differences = torch.stack([0.564 * (blue - luma), 0.713 * (red - luma)])
    place = ((differences / REACH).clamp(-1, 1) + 1) / 2 * (SIDE - 1)  # 2×P, 0…SIDE−1
    low = place.floor().clamp(max=SIDE - 2)
    upper = place - low
    weights = F.avg_pool2d(masks[None].float(), POOL)[0].flatten(1)  # O×P
    histogram = weights.new_zeros(weights.shape[0], COLOURS)
    for step_blue in (0, 1):
        for step_red in (0, 1):
            share = (upper[0] if step_blue else 1 - upper[0]) * (upper[1] if step_red else 1 - upper[1])
            bins = (low[0] + step_blue) * SIDE + low[1] + step_red
            histogram.index_add_(1, bins.long(), weights * share)
    return F.normalize((histogram + 1e-12).sqrt(), dim=1)


def _alike(some: Tensor, others: Tensor) -> Tensor:
    """Compute likeness …×n×m, −1…1, of …×n×(C+COLOURS) and …×m×(C+COLOURS)."""
    features = some[..., :-COLOURS] @ others[..., :-COLOURS].transpose(-1, -2)
    return features * (some[..., -COLOURS:] @ others[..., -COLOURS:].transpose(-1, -2)) ** SPREAD


def confidence(likeness: Tensor, nearby: Tensor, thresholds: LikenessThresholds | None) -> Tensor:
    """Return confidences O, 0…1, by which the mean probabilities of masks are multiplied.

    likeness: O; nearby: O bool, whether the mask lies where the object was last seen; thresholds:
    those of the weights. Without thresholds (None), the confidence is 1.
    """
    if thresholds is None:
        return torch.ones_like(likeness)
    return ((likeness + NEARBY * nearby - thresholds.unlike) / (thresholds.sure - thresholds.unlike)).clamp(0, 1)
