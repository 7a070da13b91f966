# SPDX-License-Identifier: MIT
"""Overlay of tracking results on a frame: masks, outlines, boxes, names. No ROS, no torch."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xmem_ros.objects import TrackedObject

_GOLDEN_RATIO = 0.6180339887498949
_TONES = ((0.95, 1.0), (0.6, 1.0), (0.9, 0.75))
_STATE_NOTES = {2: ' occluded', 3: ' lost'}


def _make_palette() -> np.ndarray:
    colours = np.zeros((256, 3), np.uint8)
    for label in range(1, 256):
        saturation, value = _TONES[(label - 1) // 8 % len(_TONES)]
        colours[label] = np.round(255 * np.array(colorsys.hsv_to_rgb(label * _GOLDEN_RATIO % 1, saturation, value)))
    return colours


PALETTE = _make_palette()
"""256×3 uint8 RGB: the fixed colour of each label; 0 is black, neighbours differ in hue."""
PALETTE.setflags(write=False)


def colour_of(label: int) -> tuple[int, int, int]:
    """Return the RGB colour of a label (0…255)."""
    red, green, blue = PALETTE[label].tolist()
    return red, green, blue


def draw(
    frame: np.ndarray,
    labels: np.ndarray,
    objects: Sequence[TrackedObject] = (),
    *,
    opacity: float = 0.45,
) -> np.ndarray:
    """Draw masks, outlines, boxes and names over a frame.

    Args:
        frame: H×W×3 uint8 RGB; not modified.
        labels: H×W uint8, 0 = background.
        objects: objects in the labels. Those without a box are listed at the top.
        opacity: opacity of the mask colours, 0…1.

    Returns:
        H×W×3 uint8 RGB, a new array.
    """
    image = np.ascontiguousarray(frame).copy()
    _tint(image, labels, opacity)
    scale = max(min(frame.shape[:2]) / 480, 0.7)
    hidden = []
    for item in objects:
        if item.box is None:
            hidden.append(item)
            continue
        x, y, width, height = item.box
        colour = colour_of(item.label)
        cv2.rectangle(image, (x, y), (x + width - 1, y + height - 1), colour, 1)
        _write(image, _caption(item), (x, y - 4), colour, scale)
    for row, item in enumerate(hidden):
        _write(image, _caption(item), (4, int((row + 1) * 22 * scale)), colour_of(item.label), scale)
    return image


def _tint(image: np.ndarray, labels: np.ndarray, opacity: float) -> None:
    x, y, width, height = cv2.boundingRect(labels)
    if not width:
        return
    x0, y0, x1, y1 = max(x - 1, 0), max(y - 1, 0), x + width + 1, y + height + 1
    region, inside = image[y0:y1, x0:x1], np.ascontiguousarray(labels[y0:y1, x0:x1])
    colours = PALETTE[inside]
    mixed = cv2.addWeighted(region, 1 - opacity, colours, opacity, 0)
    np.copyto(region, mixed, where=(inside > 0)[..., None])
    edges = (cv2.erode(inside, np.ones((3, 3), np.uint8)) != inside) & (inside > 0)
    np.copyto(region, colours, where=edges[..., None])


def _caption(item: TrackedObject) -> str:
    name = item.name or f'object {item.id}'
    note = _STATE_NOTES.get(int(item.state))
    return f'{name}{note}' if note else f'{name} {item.score:.2f}'


def _write(image: np.ndarray, text: str, place: tuple[int, int], colour: tuple[int, int, int], scale: float) -> None:
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.45 * scale
    text = text.encode('ascii', 'replace').decode()
    (width, height), base = cv2.getTextSize(text, font, size, 1)
    x = int(np.clip(place[0], 0, max(image.shape[1] - width - 4, 0)))
    y = int(np.clip(place[1], height + 3, max(image.shape[0] - base, height + 3)))
    cv2.rectangle(image, (x, y - height - 3), (x + width + 4, y + base - 1), (24, 24, 24), cv2.FILLED)
    cv2.putText(image, text, (x + 2, y - 1), font, size, colour, 1, cv2.LINE_AA)
