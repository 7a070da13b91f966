# SPDX-License-Identifier: MIT
"""What each object has looked like, to tell it from something that merely lies where memory leads.

The decoder always finds the most object-like thing. Whether that is the object is asked of its appearance: the mean
image feature inside the mask, less the mean outside, as a unit vector. Likeness is the largest cosine between what is
seen and what was seen when there was no doubt: in seeds, and in memory frames in which the object was visible.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SLOTS = 24  # appearances kept of each object
SEEDS = 4  # of them for seeds: the first and the latest corrections
NOVEL = 0.97  # an appearance that is more like one that is kept is not kept itself
# likeness at which there is no doubt at all, and at which it can only be something else
SURE, UNLIKE = 0.85, 0.5
# how much lower both are for what lies where the object has just been: things turn, but they do not jump
NEARBY = 0.1


class Gallery:
    """Appearances as unit vectors, rows×slots×C. Letters: O objects, Q positions of a frame, C feature channels."""

    def __init__(self, rows: int, channels: int, device: torch.device):
        self.vectors = torch.zeros(rows, SLOTS, channels, device=device)
        self.filled = torch.zeros(rows, SLOTS, device=device, dtype=torch.bool)
        self.seeds = [0] * rows  # seeds so far

    @staticmethod
    def bytes_for(rows: int, channels: int) -> int:
        """Bytes that a gallery takes."""
        return rows * SLOTS * (4 * channels + 1)

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return self.vectors.nbytes + self.filled.nbytes

    def likeness(self, appearance: Tensor, rows: list[int]) -> Tensor:
        """O×C appearances, in the order of `rows` → O, −1…1."""
        cosine = (self.vectors[rows] @ appearance[:, :, None])[:, :, 0]
        return cosine.masked_fill(~self.filled[rows], -1.0).amax(1)

    def remember(self, appearance: Tensor, rows: list[int], visible: Tensor, seeded: list[int]) -> None:
        """Keep new appearances O×C of the objects that are visible (O bool); those of seeds always."""
        known = self.likeness(appearance, rows)
        for i, row in enumerate(rows):
            if row in seeded:
                # the first stays, the others take turns
                slot = self.seeds[row] if self.seeds[row] < SEEDS else 1 + (self.seeds[row] - 1) % (SEEDS - 1)
                self.seeds[row] += 1
                self.vectors[row, slot], self.filled[row, slot] = appearance[i], True
                continue
            # one that is free, else the one that is most like another; without a branch on the device's data
            kept, filled = self.vectors[row, SEEDS:], self.filled[row, SEEDS:]
            cosine = kept @ kept.T
            cosine.fill_diagonal_(-1.0)
            redundancy = cosine.masked_fill(~filled, -1.0).amax(1).masked_fill(~filled, 2.0)
            slot_mask = F.one_hot(redundancy.argmax(), SLOTS - SEEDS).bool() & visible[i] & (known[i] < NOVEL)
            kept.copy_(torch.where(slot_mask[:, None], appearance[i], kept))
            filled |= slot_mask

    def clear_row(self, row: int) -> None:
        """Forget an object."""
        self.filled[row] = False
        self.seeds[row] = 0


def appearance(feature: Tensor, presence: Tensor) -> Tensor:
    """C×Q image feature and O×Q shares of each position that an object covers → O×C unit vectors."""
    feature = feature.float()
    inside = presence / presence.sum(1, keepdim=True).clamp_min(1e-6)
    outside = (1 - presence).clamp_min(0)
    outside = outside / outside.sum(1, keepdim=True).clamp_min(1e-6)
    return F.normalize((inside - outside) @ feature.T, dim=1)


def confidence(likeness: Tensor, nearby: Tensor) -> Tensor:
    """Likeness and whether it lies where the object has just been, both O → 0…1, what a mask's probability is worth."""
    return ((likeness + NEARBY * nearby - UNLIKE) / (SURE - UNLIKE)).clamp(0, 1)
