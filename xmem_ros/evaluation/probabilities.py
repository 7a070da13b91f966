# SPDX-License-Identifier: MIT
"""Probabilities of several passes over a sequence, stored with 8 bits, and their merge.

As published: each pass stores its probabilities at the size of the written masks, truncated to
8 bits; the merge adds them and takes the maximum.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from xmem_ros import atomic
from xmem_ros.errors import OutputError
from xmem_ros.evaluation.output import named_errors

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

VALUES = 'Values'  # text chunk of the PNG with the values of the planes


def truncate(probabilities: np.ndarray) -> np.ndarray:
    """Truncate C×H×W float32, 0…1, to C×H×W uint8."""
    return (probabilities * 255).astype(np.uint8)


def write(path: Path, planes: np.ndarray, values: list[int]) -> None:
    """Write C×H×W uint8 as a grey PNG of stacked planes; `values`: one for each plane."""
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text(VALUES, json.dumps(values))
    with named_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.writing(path, sync=False) as part:
            Image.fromarray(planes.reshape(-1, planes.shape[2])).save(part, 'PNG', pnginfo=text, compress_level=1)


def read(path: Path) -> tuple[np.ndarray, list[int]]:
    """Read planes and values from `write`; raises `OutputError` for a damaged file."""
    try:
        with Image.open(path, formats=('PNG',)) as image:
            image.load()
            values = json.loads(image.info[VALUES])
            stacked = np.array(image)
        return stacked.reshape(len(values), -1, stacked.shape[1]), values
    except Exception as error:  # Pillow raises many types for a damaged file
        raise OutputError(
            f'{path}: not readable as probabilities ({error}); remove its folder and run the command again'
        ) from error


def merge(passes: Iterable[tuple[np.ndarray, list[int]]]) -> np.ndarray:
    """Merge passes, each C×H×W uint8 with the values of its planes, to a mask H×W uint8."""
    total, values = None, None
    for planes, own in passes:
        if total is None:
            total, values = planes.astype(np.uint16), own
        else:
            assert own == values, 'passes over a sequence have the same objects in the same order'
            total += planes
    assert total is not None
    return np.asarray(values, np.uint8)[total.argmax(0)]
