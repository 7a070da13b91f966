# SPDX-License-Identifier: MIT
"""Candidates that a page shows before a seed is accepted."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from xmem_ros.errors import SeedError
from xmem_ros.web.bridge import LONGEST_SIDE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xmem_ros.client.calls import Candidate

MOST_CANDIDATES = 3


@dataclass(frozen=True)
class PackedMask:
    """A mask with one bit per pixel: an open page keeps some."""

    width: int
    height: int
    bits: bytes

    def mask(self) -> np.ndarray:
        """Unpack to H×W bool."""
        pixels = np.unpackbits(np.frombuffer(self.bits, np.uint8), count=self.width * self.height)
        return pixels.reshape(self.height, self.width).astype(bool)


@dataclass(frozen=True)
class Offer:
    """Candidates of a page's request, in full size.

    The page names one by its index, so that exactly the mask that it shows becomes a seed.
    """

    request: int
    stamp: int  # of the image [ns]
    masks: tuple[PackedMask, ...]


def offer_of(
    request: int, stamp: int, candidates: Sequence[Candidate], size: tuple[int, int] | None
) -> tuple[Offer, list[dict[str, Any]]]:
    """Return the offer to keep and the candidates for the page's JSON.

    A candidate for the page has its predicted quality (None: not predicted), its area [px], and its
    mask as PNG with one bit per pixel, in Base64, of at most `LONGEST_SIDE` px.

    Args:
        request: number of the page's request.
        stamp: of the image [ns].
        candidates: from the node, best first; at most `MOST_CANDIDATES` are used.
        size: width and height of the image on the page [px]; None: no image yet.

    Raises:
        SeedError: a mask differs in size from the image; its size could otherwise be anything.
    """
    used = candidates[:MOST_CANDIDATES]
    if any(candidate.mask.shape[::-1] != size for candidate in used):
        raise SeedError('the masks have a different size than the image: go live and draw again')
    masks = tuple(PackedMask(mask.shape[1], mask.shape[0], np.packbits(mask).tobytes()) for mask, _ in used)
    shown = [
        {
            'quality': round(min(max(quality, 0.0), 1.0), 3) if math.isfinite(quality) else None,
            'area': int(np.count_nonzero(mask)),
            'png': _png(mask),
        }
        for mask, quality in used
    ]
    return Offer(request, stamp, masks), shown


def _png(mask: np.ndarray) -> str:
    height, width = mask.shape
    pixels = mask.astype(np.uint8) * 255
    scale = LONGEST_SIDE / max(height, width)
    if scale < 1:
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        pixels = np.where(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) > 127, np.uint8(255), np.uint8(0))
    _, data = cv2.imencode('.png', pixels, [cv2.IMWRITE_PNG_BILEVEL, 1])
    return base64.b64encode(data.tobytes()).decode()
