# SPDX-License-Identifier: MIT
"""Seed the boxes or masks of a detector, such as YOLO, Mask R-CNN, or Grounding DINO with SAM.

A detector in the same program calls `seed_detections` with its arrays and the image's message. One
in another program saves its detections to a file for

    python3 seed_detections.py found.npz

The file contains `boxes` N×4 (x0, y0, x1, y1 in px), and optionally `masks` N×H×W, `scores` N,
`names` N and `stamp_ns`, the stamp of the detector's image.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from xmem_ros.client import Box, Frame, XMemClient
from xmem_ros.errors import XMemError


def seed_detections(
    client: XMemClient,
    boxes: np.ndarray,
    *,
    masks: np.ndarray | None = None,
    scores: np.ndarray | None = None,
    names: list[str] | None = None,
    stamp: object = None,
    min_score: float = 0.5,
    min_new: float = 0.5,
) -> list[int]:
    """Seed confident detections of untracked objects; returns their ids.

    Args:
        client: client of the tracker.
        boxes: N×4, x0, y0, x1, y1 [px].
        masks: N×H×W of the image's size, bool or probability.
        scores: N confidences, 0…1.
        names: N names.
        stamp: stamp or message of the detector's image; None: the newest image.
        min_score: lowest score of a seeded detection.
        min_new: least share of a box outside the boxes of tracked objects.
    """
    count = len(boxes)
    found = []
    for index in np.argsort(-(np.ones(count) if scores is None else np.asarray(scores)), kind='stable'):
        if scores is not None and scores[index] < min_score:
            continue
        x0, y0, x1, y1 = (int(value) for value in np.maximum(np.round(boxes[index]), 0))
        if overlap((x0, y0, x1 - x0, y1 - y0), client.latest()) > 1 - min_new:
            continue
        # A mask is better than a box, from which the tracker estimates a mask by colour.
        shape = Box(x0, y0, x1 - x0, y1 - y0) if masks is None else np.asarray(masks[index]) > 0.5
        found.append((str(names[index]) if names is not None else '', shape))
    return client.seed(found, stamp=stamp) if found else []


def overlap(box: tuple[int, int, int, int], frame: Frame | None) -> float:
    """Return the largest share of a box (x, y, width, height) that a tracked box covers."""
    x, y, width, height = box
    shares = [0.0]
    for item in frame.objects if frame else ():
        if item.box is not None:
            left, top, w, h = item.box
            common = max(min(x + width, left + w) - max(x, left), 0) * max(min(y + height, top + h) - max(y, top), 0)
            shares.append(common / max(width * height, 1))
    return max(shares)


def main() -> int:
    """Seed a file's detections; returns the exit code."""
    parser = argparse.ArgumentParser(description='Seed the detections of a file.')
    parser.add_argument('file', type=Path, metavar='FILE.npz')
    parser.add_argument('--node', default='/xmem', help='name of the tracker (default: %(default)s)')
    args = parser.parse_args()
    with np.load(args.file) as file:
        given = {key: file[key] for key in ('masks', 'scores', 'names') if key in file}
        boxes, stamp = file['boxes'], int(file['stamp_ns']) if 'stamp_ns' in file else None
    try:
        with XMemClient(args.node) as client:
            client.wait()  # to know the tracked objects
            ids = seed_detections(client, boxes, stamp=stamp, **given)
            print(f'{len(ids)} of {len(boxes)} detections seeded: ids {ids}')
            if ids:
                frame = client.wait_tracked(ids)
                for object_id in ids:
                    item = frame[object_id]
                    print(f'{item.id} {item.name!r}: box {item.box}, score {item.score:.2f}')
    except XMemError as error:
        print(f'seed_detections: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
