# SPDX-License-Identifier: MIT
"""Sinks for images: palette masks, overlay video, YouTube-VOS layout."""

from __future__ import annotations

import csv
import json
from typing import IO, TYPE_CHECKING, Any

import cv2

from xmem_ros.media import FOLDER_RATE, write_labels
from xmem_ros.offline.sinks.annotations import write_jpeg
from xmem_ros.offline.sinks.base import Sink
from xmem_ros.outside_text import for_csv
from xmem_ros.overlay import draw
from xmem_ros.video.writer import VideoWriter

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from xmem_ros.offline.segments import StoredFrame

OVERLAY = 'overlay.mp4'
TABLE = 'frames.csv'
OBJECTS = 'objects.csv'
YTVOS = 'ytvos'


class PngSink(Sink):
    """A palette PNG for each image, with the image's name.

    Arguments:
        folder: for the output.
        table: also write `frames.csv` (stamps) and `objects.csv` (object of each value).
    """

    def __init__(self, folder: Path, *, table: bool) -> None:
        self._folder = folder
        self._names: dict[tuple[int, int], str] = {}  # (value, id) → the newest name
        self._file = _open_table(folder / TABLE) if table else None
        self._rows: Any = csv.writer(self._file, lineterminator='\n') if self._file else None
        if self._rows:
            self._rows.writerow(['index', 'name', 'stamp_ns', 'received_ns'])

    def write(self, frame: StoredFrame, image: np.ndarray | None) -> None:  # noqa: ARG002
        """As `Sink.write`."""
        write_labels(self._folder / f'{frame.name}.png', frame.values)
        self._names |= {(frame.value_of[item.id], item.id): item.name for item in frame.objects}
        if self._rows:
            self._rows.writerow([frame.index, for_csv(frame.name), frame.stamp_ns, frame.received_ns])

    def finish(self) -> None:
        """As `Sink.finish`."""
        self.abort()
        if not self._rows:
            return
        with _open_table(self._folder / OBJECTS) as file:
            rows = csv.writer(file, lineterminator='\n')
            rows.writerow(['value', 'id', 'name'])
            rows.writerows([*key, for_csv(name)] for key, name in sorted(self._names.items()))

    def abort(self) -> None:
        """As `Sink.abort`."""
        if self._file:
            self._file.close()


def _open_table(path: Path) -> IO[str]:
    return path.open('w', encoding='utf-8', errors='backslashreplace', newline='')


class OverlaySink(Sink):
    """A video of the images with masks drawn over them.

    Arguments:
        folder: for the output.
        rate: images/s; None: shown at their stamps.
    """

    needs_image = True

    def __init__(self, folder: Path, rate: float | None) -> None:
        self._video = VideoWriter(folder / OVERLAY, rate or FOLDER_RATE)
        self._timed = rate is None
        self._size: tuple[int, int] | None = None

    def write(self, frame: StoredFrame, image: np.ndarray | None) -> None:
        """As `Sink.write`; the image is scaled to the size of the video's first one."""
        assert image is not None
        drawn = draw(image, frame.labels, frame.objects)
        size = (drawn.shape[1], drawn.shape[0])
        self._size = self._size or size
        shown = drawn if size == self._size else cv2.resize(drawn, self._size)
        self._video.write(shown, frame.stamp_ns if self._timed else None)

    def finish(self) -> None:
        """As `Sink.finish`."""
        self._video.__exit__(None, None, None)

    def abort(self) -> None:
        """As `Sink.abort`."""
        self._video.__exit__(RuntimeError, None, None)


class YouTubeVosSink(Sink):
    """JPEGImages/VIDEO, Annotations/VIDEO and meta.json, from the first image with an object.

    Arguments:
        folder: for the output.
        video: name of the video.
    """

    needs_image = True

    def __init__(self, folder: Path, video: str) -> None:
        self._root, self._video = folder / YTVOS, video
        self._objects: dict[int, dict[str, Any]] = {}  # value → entry of meta.json
        self._begun = False
        for name in ('JPEGImages', 'Annotations'):
            (self._root / name / video).mkdir(parents=True)

    def write(self, frame: StoredFrame, image: np.ndarray | None) -> None:
        """As `Sink.write`."""
        assert image is not None
        self._begun = self._begun or bool(frame.values.any())
        if not self._begun:
            return
        write_jpeg(self._root / 'JPEGImages' / self._video / f'{frame.name}.jpg', image)
        write_labels(self._root / 'Annotations' / self._video / f'{frame.name}.png', frame.values)
        for item in frame.objects:
            value = frame.value_of[item.id]
            if (frame.values == value).any():
                entry = self._objects.setdefault(value, {'category': item.name or 'object', 'frames': []})
                entry['frames'].append(frame.name)

    def finish(self) -> None:
        """As `Sink.finish`."""
        objects = {str(value): entry for value, entry in sorted(self._objects.items())}
        meta = {'videos': {self._video: {'objects': objects}}}
        (self._root / 'meta.json').write_text(json.dumps(meta, indent=1) + '\n', encoding='utf-8')
