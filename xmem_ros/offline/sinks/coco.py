# SPDX-License-Identifier: MIT
"""Sink for COCO annotations with run-length encoded masks, by pycocotools."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from xmem_ros.errors import ParameterError, Setting, naming
from xmem_ros.offline.sinks.base import Sink

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xmem_ros.offline.segments import StoredFrame

COCO = 'coco.json'


def require_pycocotools() -> None:
    """Raise `ParameterError` if pycocotools is not installed."""
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError:
        text = 'COCO and MOTS results need pycocotools: pip install pycocotools, or choose another format'
        raise naming(Setting.FORMAT, ParameterError(text)) from None


class CocoSink(Sink):
    """A JSON file of images, categories (by name) and an annotation per visible object.

    Extra fields are `track_id` (the object's id) and `score` of annotations, and `stamp_ns` of
    images. Annotations are written at once, so the file can be larger than memory.

    Arguments:
        folder: for the output.
        file_name: returns an image's file name; None skips the image and its annotations.
    """

    def __init__(self, folder: Path, file_name: Callable[[StoredFrame], str | None]) -> None:
        self._file = (folder / COCO).open('w', encoding='utf-8')
        self._file_name = file_name
        self._images: list[dict[str, Any]] = []
        self._categories: dict[str, int] = {}
        self._count = 0
        self._file.write('{"annotations": [')

    def write(self, frame: StoredFrame, image: np.ndarray | None) -> None:  # noqa: ARG002
        """As `Sink.write`."""
        name = self._file_name(frame)
        if name is None:
            return
        height, width = frame.values.shape
        described = {'id': frame.index, 'file_name': name, 'height': height, 'width': width}
        self._images.append({**described, 'stamp_ns': frame.stamp_ns})
        for item in frame.objects:
            mask = frame.values == frame.value_of[item.id]
            if mask.any():
                self._annotate(frame, mask, item)

    def finish(self) -> None:
        """As `Sink.finish`."""
        categories = [
            {'id': number, 'name': name, 'supercategory': ''} for name, number in sorted(self._categories.items())
        ]
        self._file.write(f'\n],\n"images": {json.dumps(self._images)},\n"categories": {json.dumps(categories)}}}\n')
        self._file.close()

    def abort(self) -> None:
        """As `Sink.abort`."""
        self._file.close()

    def _annotate(self, frame: StoredFrame, mask: np.ndarray, item: Any) -> None:
        from pycocotools import mask as coco

        runs = coco.encode(np.asfortranarray(mask, np.uint8))
        self._file.write(',\n' if self._count else '\n')
        self._count += 1
        annotation = {
            'id': self._count,
            'image_id': frame.index,
            'category_id': self._categories.setdefault(item.name or 'object', len(self._categories) + 1),
            'track_id': item.id,
            'segmentation': {'size': list(mask.shape), 'counts': runs['counts'].decode()},
            'area': int(coco.area(runs)),
            'bbox': coco.toBbox(runs).tolist(),
            'iscrowd': 0,
            'score': round(item.score, 6),
        }
        self._file.write(json.dumps(annotation))
