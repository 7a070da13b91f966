# SPDX-License-Identifier: MIT
"""Sinks for annotation and training tools: YOLO segmentation, labelme and MOTS."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from xmem_ros.errors import OutputError
from xmem_ros.offline.sinks.base import Sink
from xmem_ros.outside_text import for_log

if TYPE_CHECKING:
    from pathlib import Path

    from xmem_ros.offline.segments import StoredFrame

YOLO, LABELME, MOTS = 'yolo', 'labelme', 'mots'
MOTS_CLASSES = 'mots_classes.txt'
JPEG_QUALITY = 95
_MIN_CORNERS = 3  # of a polygon
_IGNORED_CLASS = 10  # MOTS: regions that are not scored
_LABELME_VERSION = '5.5.0'  # of the file format; it has masks and groups


class _Classes:
    """Numbers of the objects' names, in order of appearance."""

    def __init__(self, first: int, without: int | None = None) -> None:
        self._next, self._without = first, without
        self.numbers: dict[str, int] = {}

    def number_of(self, name: str) -> int:
        """Return the number of a name."""
        name = name or 'object'
        if name not in self.numbers:
            self._next += self._next == self._without
            self.numbers[name] = self._next
            self._next += 1
        return self.numbers[name]


def write_jpeg(path: Path, image: np.ndarray) -> None:
    """Write an image H×W×3 uint8 RGB; raises `OutputError`."""
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    done, data = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise OutputError(f'{path}: an image {image.shape} cannot be written as JPEG')
    path.write_bytes(data.tobytes())  # cv2.imwrite does not report incomplete writes


def joined_outline(mask: np.ndarray) -> np.ndarray:
    """Return one polygon, N×2 px, of a mask H×W bool with any number of parts and holes.

    Parts and holes are joined by double lines at their nearest corners, which enclose nothing.
    Thin parts without an area are left out; N is 0 if nothing is left.
    """
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    outlines = sorted((item[:, 0] for item in found if len(item) >= _MIN_CORNERS), key=len, reverse=True)
    if not outlines:
        return np.zeros((0, 2), np.int32)
    joined = outlines[0]
    for outline in outlines[1:]:
        distances = ((joined[:, None] - outline[None]) ** 2).sum(2)
        here, there = np.unravel_index(distances.argmin(), distances.shape)
        around = np.roll(outline, -there, axis=0)
        joined = np.concatenate([joined[: here + 1], around, around[:1], joined[here:]])
    return joined


class _ImagesSink(Sink):
    """Base of sinks with JPEGs, from the first image with an object on."""

    needs_image = True

    def __init__(self) -> None:
        self._begun = False

    def _wants(self, frame: StoredFrame) -> bool:
        self._begun = self._begun or bool(frame.values.any())
        return self._begun


class YoloSink(_ImagesSink):
    """Data set of Ultralytics' segmentation: images, labels and data.yaml.

    An object is one line: the class, and the corners of its outline as shares of width and height.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._root = folder / YOLO
        self._classes = _Classes(0)
        for name in ('images', 'labels'):
            (self._root / name).mkdir(parents=True)

    def write(self, frame: StoredFrame, image: np.ndarray | None) -> None:
        """As `Sink.write`."""
        assert image is not None
        if not self._wants(frame):
            return
        write_jpeg(self._root / 'images' / f'{frame.name}.jpg', image)
        height, width = frame.values.shape
        lines = []
        for item in frame.objects:
            outline = joined_outline(frame.values == frame.value_of[item.id])
            if len(outline):
                corners = ' '.join(f'{x / width:.6f} {y / height:.6f}' for x, y in outline.tolist())
                lines.append(f'{self._classes.number_of(item.name)} {corners}\n')
        (self._root / 'labels' / f'{frame.name}.txt').write_text(''.join(lines), encoding='utf-8')

    def finish(self) -> None:
        """As `Sink.finish`."""
        names = {number: name for name, number in self._classes.numbers.items()}
        # JSON is YAML, and escapes every name
        about = {'path': '.', 'train': 'images', 'val': 'images', 'nc': len(names), 'names': list(names.values())}
        (self._root / 'data.yaml').write_text(json.dumps(about, indent=1) + '\n', encoding='utf-8')


class LabelmeSink(_ImagesSink):
    """A JPEG and a JSON file of labelme for each image.

    An object is a polygon for each of its parts, joined by `group_id`, the object's id; or a mask
    if it has holes, which polygons cannot have.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._root = folder / LABELME
        self._root.mkdir(parents=True)

    def write(self, frame: StoredFrame, image: np.ndarray | None) -> None:
        """As `Sink.write`."""
        assert image is not None
        if not self._wants(frame):
            return
        write_jpeg(self._root / f'{frame.name}.jpg', image)
        height, width = frame.values.shape
        shapes: list[dict[str, Any]] = []
        for item in frame.objects:
            mask = (frame.values == frame.value_of[item.id]).astype(np.uint8)
            common = {'label': item.name or 'object', 'group_id': item.id, 'flags': {}, 'description': ''}
            shapes += [{**common, **shape} for shape in _shapes(mask)]
        about = {
            'version': _LABELME_VERSION,
            'flags': {},
            'shapes': shapes,
            'imagePath': f'{frame.name}.jpg',
            'imageData': None,
            'imageHeight': height,
            'imageWidth': width,
        }
        (self._root / f'{frame.name}.json').write_text(json.dumps(about) + '\n', encoding='utf-8')


def _shapes(mask: np.ndarray) -> list[dict[str, Any]]:
    """Return labelme's shapes of a mask H×W of 0 and 1."""
    outlines, parents = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return []
    holes = (parents[0][:, 3] >= 0).any()
    if not holes and all(len(outline) >= _MIN_CORNERS for outline in outlines):
        return [{'shape_type': 'polygon', 'points': outline[:, 0].tolist(), 'mask': None} for outline in outlines]
    x, y, width, height = cv2.boundingRect(mask)
    _, data = cv2.imencode('.png', mask[y : y + height, x : x + width] * 255)
    corners = [[x, y], [x + width - 1, y + height - 1]]
    return [{'shape_type': 'mask', 'points': corners, 'mask': base64.b64encode(data.tobytes()).decode()}]


class MotsSink(Sink):
    """Text file of MOTChallenge's MOTS: frame, id, class, height, width, run lengths.

    The frame is the image's index. The id is 1000 × class + pixel value of mask files.
    `mots_classes.txt` names the classes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._classes = _Classes(1, without=_IGNORED_CLASS)
        self._file = (folder / f'{MOTS}.txt').open('w', encoding='utf-8')

    def write(self, frame: StoredFrame, image: np.ndarray | None) -> None:  # noqa: ARG002
        """As `Sink.write`."""
        from pycocotools import mask as coco

        height, width = frame.values.shape
        for item in frame.objects:
            value = frame.value_of[item.id]
            mask = frame.values == value
            if mask.any():
                number = self._classes.number_of(item.name)
                runs = coco.encode(np.asfortranarray(mask, np.uint8))['counts'].decode()
                self._file.write(f'{frame.index} {1000 * number + value} {number} {height} {width} {runs}\n')

    def finish(self) -> None:
        """As `Sink.finish`."""
        self._file.close()
        lines = [f'{number} {for_log(name)}\n' for name, number in self._classes.numbers.items()]
        (self._folder / MOTS_CLASSES).write_text(''.join(lines), encoding='utf-8')

    def abort(self) -> None:
        """As `Sink.abort`."""
        self._file.close()
