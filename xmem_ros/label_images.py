# SPDX-License-Identifier: MIT
"""Recognition of masks that are not label images: soft edges, lossy compression, grey ramps.

In a label image the value of a pixel is its object. A mask that was smoothed, scaled with
interpolation or saved as JPEG has further values between those of its regions; taken as objects,
they would be hundreds. No ROS, no torch.
"""

from __future__ import annotations

import cv2
import numpy as np

from xmem_ros.errors import SeedError, listed

_BLACK, _WHITE = 32, 223  # a two-sided mask has no regions between these, but for noise of JPEG
_FLAT_SHARE = 0.02  # a value with a smaller share of pixels inside a region occurs only in seams
_MANY_SEAMS = 6  # values; a label image has hardly as many objects thinner than 3 px, and no thicker ones
_RAMP_VALUES = 64  # values; a label image with as many has steps of more than `_RAMP_STEP` between them
_RAMP_STEP = 4
_RAMP_SHARE = 0.9  # of all steps
_LEAST_FLAT = 0.5  # share of flat black and white pixels in a mask with soft edges; photographs have less
THRESHOLD = 128
REMEDY = 'save label images as PNG, and scale them with nearest-neighbour interpolation'


def hard_labels(mask: np.ndarray, *, lossy: bool = False) -> tuple[np.ndarray, str]:
    """Return a mask as a label image; a mask of black, white and soft edges gets hard ones.

    Arguments:
        mask: H×W uint8.
        lossy: whether the mask comes from a file that does not keep values exactly.

    Returns:
        H×W uint8: the mask itself, or 0 and 255; and a sentence on the change, or ''.

    Raises:
        SeedError: the mask has soft edges between more than two regions, or is a grey ramp.
    """
    counts = np.bincount(mask.ravel(), minlength=256)
    present = np.flatnonzero(counts)
    if len(present) <= 2 and not lossy:
        return mask, ''
    flat = np.bincount(mask[_is_flat(mask)], minlength=256)
    solid = np.flatnonzero((flat > _FLAT_SHARE * counts) & (flat > 0))
    seams = np.setdiff1d(present, np.append(solid, 0))
    many = len(seams) >= _MANY_SEAMS and len(seams) > len(solid)
    soft = many or _between(seams, counts, solid)
    ramp = len(present) >= _RAMP_VALUES and _share_of_small_steps(mask) > _RAMP_SHARE
    if not (soft or ramp or lossy):
        return mask, ''
    regions = [value for value in solid if _BLACK < value < _WHITE]
    ends = (flat[: _BLACK + 1].sum() + flat[_WHITE:].sum()) / mask.size
    if regions or not len(solid) or ends < _LEAST_FLAT:
        shown = listed([str(value) for value in seams[:20].tolist() or present[:20].tolist()], 5)
        raise SeedError(
            f'not a label image: values such as {shown} occur only at the edges of others, or change gradually, so the '
            f'image was smoothed, scaled with interpolation or compressed with loss; {REMEDY}'
        )
    result = np.where(mask >= THRESHOLD, np.uint8(255), np.uint8(0))
    if np.array_equal(result, mask):
        return mask, ''
    note = f'it has soft edges ({len(present)} values), so values from {THRESHOLD} on are the object'
    return result, note


def _is_flat(mask: np.ndarray) -> np.ndarray:
    """Find the pixels whose 3×3 neighbourhood has one value, H×W bool."""
    kernel = np.ones((3, 3), np.uint8)
    flat: np.ndarray = cv2.erode(mask, kernel) == cv2.dilate(mask, kernel)
    return flat


def _between(seams: np.ndarray, counts: np.ndarray, solid: np.ndarray) -> bool:
    """Return whether few seam values are steps from black to white rather than thin objects."""
    if not len(seams) or not len(solid) or solid.max() < _WHITE or solid.min() > _BLACK:
        return False
    middle = np.repeat(seams, np.minimum(counts[seams], 10_000))
    return bool(_BLACK <= np.median(middle) <= _WHITE)


def _share_of_small_steps(mask: np.ndarray) -> float:
    """Return the share of small steps among all steps from one pixel to the next."""
    across, down = np.diff(mask.astype(np.int16), axis=1), np.diff(mask.astype(np.int16), axis=0)
    steps = np.abs(np.concatenate([across[across != 0], down[down != 0]]))
    return float((steps <= _RAMP_STEP).mean()) if steps.size else 0.0
