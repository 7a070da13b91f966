# SPDX-License-Identifier: MIT
"""Results of the demonstration: a video, a picture of six frames, a table. No ROS."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from xmem_ros import atomic
from xmem_ros.media import VOID
from xmem_ros.overlay import draw
from xmem_ros.progress import Bar
from xmem_ros.video.writer import VideoWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from xmem_ros.objects import TrackedObject

PICTURES = 6
PICTURE_WIDTH = 640  # maximum, px


@dataclass(frozen=True)
class ClipResult:
    """Result of tracking one frame of the clip."""

    objects: list[TrackedObject]
    labels: Callable[[], np.ndarray]  # H×W uint8
    delay_ms: float  # from the image's stamp to the publication of its result


@dataclass
class Report:
    """Figures of a run.

    Attributes:
        published: number of images of the clip that the camera published.
        rate: rate at which it published them, images/s.
        ids: ids of the seeded objects, in the order of their seeds.
        labels: labels of these objects.
        names: names of these objects.
        tracked: index in the clip → result of that frame.
        iou: name → IoU with the truth for each frame with truth; 1 if both are empty.
    """

    published: int
    rate: float
    ids: list[int]
    labels: list[int]
    names: list[str]
    tracked: dict[int, ClipResult]
    iou: dict[str, list[float]] = field(default_factory=dict)

    def ids_fault(self) -> str:
        """Return how ids or labels of a frame differ from the seeded ones; '' if they never do."""
        expected = set(zip(self.ids, self.labels, strict=True))
        for index, frame in self.tracked.items():
            found = {(item.id, item.label) for item in frame.objects}
            if found != expected:
                return f'frame {index} has (id, label) {sorted(found)} instead of {sorted(expected)}'
        return ''

    def table(self) -> str:
        """Format the figures as a table."""
        tracked = len(self.tracked)
        rows = [
            ('frames in', f'{self.published} at {self.rate:.1f} frames/s'),
            ('tracked', f'{tracked}'),
            ('dropped', f'{self.published - tracked} (replaced by newer ones)'),
            ('rate', f'{self.rate * tracked / self.published:.1f} frames/s'),
        ]
        if tracked < self.published / 3:
            rows.append(('', 'the camera is too fast for this machine; slow it down with make demo RATE=5'))
        delays = [frame.delay_ms for frame in self.tracked.values()]
        rows.append(('image to publish', f'{np.median(delays):.0f} ms median, {np.percentile(delays, 95):.0f} ms p95'))
        for name in self.names:
            if self.iou.get(name):
                worst = min(self.iou[name])
                rows.append((f'IoU of {name}', f'{np.mean(self.iou[name]):.3f} mean, {worst:.3f} lowest'))
        fault = self.ids_fault()
        rows.append(('ids stable', f'NO: {fault}' if fault else f'yes: {", ".join(map(str, self.ids))}'))
        width = max(len(name) for name, _ in rows)
        return '\n'.join(f'{name:<{width}}  {value}' for name, value in rows)

    def draw(
        self,
        frames: Iterable[np.ndarray],
        truth: Callable[[int], Mapping[str, np.ndarray]],
        folder: Path,
        *,
        time_s: Callable[[int], float] | None = None,
        progress: bool = True,
    ) -> None:
        """Write `overlay.mp4` and `frames.png` of the tracked frames, and compute the IoU.

        Arguments:
            frames: frames of the whole clip, H×W×3 uint8 RGB.
            truth: index → name → mask H×W uint8 of 0, 1 and 255 (void); empty without truth.
            folder: folder of the written files.
            time_s: index → time of the frame since the first one [s]; None: by the rate.
            progress: whether to show a progress bar.
        """
        chosen = {list(self.tracked)[k] for k in np.linspace(0, len(self.tracked) - 1, PICTURES).round().astype(int)}
        pictures = []
        label_of = dict(zip(self.names, self.labels, strict=True))
        time_s = time_s or (lambda index: index / self.rate)
        bar = Bar(total=len(self.tracked), desc='drawing', unit='frame', disable=not progress)
        with VideoWriter(folder / 'overlay.mp4', self.rate) as video, bar:
            for index, frame in enumerate(frames):
                tracked = self.tracked.get(index)
                if tracked is None:
                    continue
                labels = tracked.labels()
                for name, mask in truth(index).items():
                    self.iou.setdefault(name, []).append(iou(labels == label_of[name], mask))
                image = draw(frame, labels, tracked.objects)
                _caption(image, f'{time_s(index):.1f} s')
                # at its time: it is shown longer in place of dropped ones
                video.write(image, round(time_s(index) * 1e9))
                if index in chosen:
                    pictures.append(image)
                bar.update()
        _, data = cv2.imencode('.png', cv2.cvtColor(contact_sheet(pictures), cv2.COLOR_RGB2BGR))
        atomic.write_bytes(folder / 'frames.png', data.tobytes())


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    """Return the IoU of a mask H×W bool with the truth H×W of 0, 1, 255 (void); 1 if both empty."""
    counts = truth != VOID
    mask, truth = mask & counts, (truth > 0) & counts
    union = np.count_nonzero(mask | truth)
    return float(np.count_nonzero(mask & truth) / union) if union else 1.0


def contact_sheet(pictures: Sequence[np.ndarray], columns: int = 3) -> np.ndarray:
    """Arrange pictures H×W×3 of one size in rows, with white lines between them."""
    width = min(PICTURE_WIDTH, pictures[0].shape[1])
    height = round(pictures[0].shape[0] * width / pictures[0].shape[1])
    line = 4
    rows = -(-len(pictures) // columns)
    columns = min(columns, len(pictures))
    sheet = np.full((rows * (height + line) - line, columns * (width + line) - line, 3), 255, np.uint8)
    for k, picture in enumerate(pictures):
        top, left = k // columns * (height + line), k % columns * (width + line)
        sheet[top : top + height, left : left + width] = cv2.resize(
            picture, (width, height), interpolation=cv2.INTER_AREA
        )
    return sheet


def _caption(image: np.ndarray, text: str) -> None:
    """Write text into the lower left corner of an image, in place."""
    scale = max(0.45, image.shape[0] / 900)
    place = (8, image.shape[0] - 8)
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)
