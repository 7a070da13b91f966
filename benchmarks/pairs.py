# SPDX-License-Identifier: MIT
"""Pairs of sequences side by side: J&F, and how often the two objects are switched.

    python benchmarks/pairs.py --data DAVIS_TRAIN [--sequences NAME …] [--size N] --out DIR

The default sequences were not used for training the bundled weights. A switch is a frame in which
an object's mask overlaps the other object's ground truth more than its own.
"""

import argparse
import json
import sys
from itertools import combinations
from pathlib import Path

from xmem_ros.atomic import write_text
from xmem_ros.threads import wait_asleep

wait_asleep()

import cv2
import numpy as np

from xmem_ros.evaluation.runner import evaluate
from xmem_ros.media import read_mask, write_labels
from xmem_ros.training.footage import Footage, FootageError, read_videos

HELD_BACK = ('bmx-bumps', 'dog-agility', 'drift-turn', 'surf')  # not in the training data of the bundled weights
LEAST_PIXELS = 50  # of a visible object's mask


def side_by_side(left: Footage, right: Footage) -> list[tuple[np.ndarray, np.ndarray]]:
    """Join frames and labels 1 (left) and 2 (right), from the first frame that shows both."""
    pair = []
    for number in range(min(len(left.frames), len(right.frames))):
        masks = [(footage.labels[number] > 0).astype(np.uint8) for footage in (left, right)]
        if not pair and min(mask.sum() for mask in masks) < LEAST_PIXELS:
            continue
        frame = np.hstack([left.frames[number], right.frames[number]])
        pair.append((frame, np.hstack([masks[0], masks[1] * 2])))
    return pair


def switches(truth: np.ndarray, found: np.ndarray) -> int:
    """Count the switched objects of a frame."""
    return sum(
        int(((found == own) & (truth == 3 - own)).sum() > ((found == own) & (truth == own)).sum()) for own in (1, 2)
    )


def main() -> int:
    """Write the pairs as a data set, evaluate it and count switches; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, required=True, help='folder with JPEGImages/SEQ and Annotations/SEQ')
    parser.add_argument('--sequences', nargs='+', default=list(HELD_BACK), help='(default: %(default)s)')
    parser.add_argument('--weights', default='compact', help='name or file (default: %(default)s)')
    parser.add_argument('--size', type=int, help='working size, px (default: that of the weights)')
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda (default: %(default)s)')
    parser.add_argument('--out', type=Path, required=True, help='folder for pairs and masks')
    parser.add_argument('--json', type=Path, metavar='FILE', help='also write the results to this file')
    args = parser.parse_args()
    try:
        videos = {video.name: video for video in read_videos(args.data, 256, only=args.sequences)}
    except FootageError as error:
        parser.error(str(error))
    root, masks = args.out / 'data', args.out / 'masks'
    truths: dict[str, list[np.ndarray]] = {}
    for left, right in combinations(args.sequences, 2):
        name = f'{left}+{right}'
        pair = side_by_side(videos[left], videos[right])
        truths[name] = [labels for _, labels in pair]
        for kind in ('JPEGImages', 'Annotations'):
            (root / kind / name).mkdir(parents=True, exist_ok=True)
        for number, (frame, labels) in enumerate(pair):
            cv2.imwrite(str(root / 'JPEGImages' / name / f'{number:05}.png'), frame[:, :, ::-1])
            write_labels(root / 'Annotations' / name / f'{number:05}.png', labels)
    result = evaluate(
        'generic',
        root,
        weights=args.weights,
        size=args.size or 'auto',
        device=args.device,
        output=masks,
        memory='default',
    )
    print(f'{"pair":28}{"frames":>8}{"J&F":>8}{"switches":>10}')
    for name, labels in truths.items():
        count = sum(
            switches(truth, read_mask(masks / name / f'{number:05}.png')) for number, truth in enumerate(labels)
        )
        result['sequences'][name]['switches'] = count
        print(f'{name:28}{len(labels):8}{result["sequences"][name]["J&F"]:8.1f}{count:10}')
    result['switches'] = sum(result['sequences'][name]['switches'] for name in truths)
    print(f'{"all":28}{sum(map(len, truths.values())):8}{result["J&F"]:8.1f}{result["switches"]:10}')
    if args.json:
        write_text(args.json, json.dumps(result, indent=2) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
