# SPDX-License-Identifier: MIT
"""Scores of davis2017-evaluation beside ours, on the same masks.

    python benchmarks/score_comparison.py --davis2017-evaluation DIR --data DAVIS_VAL --out DIR

DIR is a checkout of davisvideochallenge/davis2017-evaluation. DAVIS_VAL holds JPEGImages/SEQ and
Annotations/SEQ. Pairs of its sequences side by side are the ground truth, with objects 1 and 2.
Masks are the truth, shifted, eroded, partly swapped, or without one or all objects. All ids are in
the first frame; elsewhere the two tools differ on purpose.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np

from xmem_ros.atomic import write_text
from xmem_ros.evaluation.datasets.options import ReadOptions
from xmem_ros.evaluation.datasets.registry import read_dataset
from xmem_ros.evaluation.scores import score_sequence
from xmem_ros.media import read_mask, write_labels

BAR = 1e-4  # largest difference, scores 0…1
FRAMES = 40  # frames of a pair


def spoil(labels: np.ndarray, number: int) -> np.ndarray:
    """Damage a mask in a way that depends on the frame's number."""
    kind = number % 8
    if kind == 0:
        return np.roll(labels, (number % 5, 3), (0, 1))
    if kind == 1:
        return cv2.erode(labels, np.ones((9, 9), np.uint8))
    if kind == 2:
        return cv2.dilate(labels, np.ones((5, 5), np.uint8))
    if kind == 3:
        return np.zeros_like(labels)
    if kind == 4:
        return labels * (labels == 1)
    if kind == 5:
        return np.where(labels > 0, 3 - labels, 0).astype(np.uint8)
    if kind == 6:
        noise = np.random.default_rng(number).integers(0, 3, (labels.shape[0] // 16 + 1, labels.shape[1] // 16 + 1))
        coarse = cv2.resize(noise.astype(np.uint8), labels.shape[::-1], interpolation=cv2.INTER_NEAREST)
        return np.where(coarse == 2, labels, coarse * (labels > 0)).astype(np.uint8)
    return labels


def make_truth(data: Path, root: Path) -> list[str]:
    """Write a DAVIS 2017 root of pairs, some frames without objects; returns their names."""
    names = sorted(folder.name for folder in (data / 'Annotations').iterdir() if folder.is_dir())
    pairs = []
    for left, right in zip(names[::2], names[1::2], strict=False):
        name = f'{left}-{right}'
        for number in range(FRAMES):
            stem = f'{number:05d}'
            halves = [read_mask(data / 'Annotations' / one / f'{stem}.png') > 0 for one in (left, right)]
            labels = np.hstack([halves[0], 2 * halves[1].astype(np.uint8)]).astype(np.uint8)
            if number % 10 == 7:
                labels[labels == 1 + number // 10 % 2] = 0
            if number == FRAMES // 2:
                labels[:] = 0
            for kind, suffix in (('Annotations', 'png'), ('JPEGImages', 'jpg')):
                (root / 'trainval' / kind / '480p' / name).mkdir(parents=True, exist_ok=True)
                if suffix == 'jpg':
                    cv2.imwrite(str(root / 'trainval' / kind / '480p' / name / f'{stem}.jpg'), labels)
                else:
                    write_labels(root / 'trainval' / kind / '480p' / name / f'{stem}.png', labels)
        pairs.append(name)
    listing = root / 'trainval' / 'ImageSets' / '2017' / 'val.txt'
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text('\n'.join(pairs) + '\n')
    return pairs


def make_masks(root: Path, out: Path, pairs: list[str]) -> int:
    """Write masks to score, blank ones for the last pair; returns their number."""
    count = 0
    for name in pairs:
        (out / name).mkdir(parents=True, exist_ok=True)
        for path in sorted((root / 'trainval' / 'Annotations' / '480p' / name).iterdir()):
            labels = read_mask(path)
            write_labels(out / name / path.name, labels * 0 if name == pairs[-1] else spoil(labels, int(path.stem)))
            count += 1
    return count


def main() -> int:
    """Score the masks by both tools and compare; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--davis2017-evaluation', type=Path, required=True, dest='tool', help='checkout of that tool')
    parser.add_argument('--data', type=Path, required=True, help='folder with JPEGImages/SEQ and Annotations/SEQ')
    parser.add_argument('--out', type=Path, required=True, help='folder for truth and masks')
    parser.add_argument('--json', type=Path, help='write the results to this file')
    args = parser.parse_args()
    if not (args.tool / 'davis2017' / 'evaluation.py').is_file():
        parser.error(f'{args.tool}: not a checkout of davis2017-evaluation')
    sys.path.insert(0, str(args.tool))
    from davis2017.evaluation import DAVISEvaluation  # type: ignore[import-not-found]

    root, out = args.out / 'truth', args.out / 'masks'
    pairs = make_truth(args.data, root)
    masks = make_masks(root, out, pairs)
    theirs = DAVISEvaluation(str(root / 'trainval'), 'semi-supervised', 'val').evaluate(str(out))
    sequences = read_dataset('davis2017', root, ReadOptions())
    scores = {sequence.name: score_sequence(sequence, out / sequence.name) for sequence in sequences}
    differences = {}
    for key in ('J', 'F'):
        for name, other in theirs[key]['M_per_object'].items():
            sequence, value = name.rsplit('_', 1)
            differences[f'{key} {name}'] = abs(scores[sequence]['objects'][value][key] / 100 - float(other))
        own = [one[key] for each in scores.values() for one in each['objects'].values()]
        assert len(own) == len(theirs[key]['M'])
        differences[f'{key} of all'] = abs(float(np.mean(own)) / 100 - float(np.mean(theirs[key]['M'])))
    figures = {
        'sequences': len(pairs),
        'objects': len(theirs['J']['M']),
        'masks': masks,
        'largest_difference': max(differences.values()),
        'J': float(np.mean(theirs['J']['M'])),
        'F': float(np.mean(theirs['F']['M'])),
    }
    print(
        f'{figures["sequences"]} sequences, {figures["objects"]} objects, {masks} masks: J {figures["J"]:.4f}, '
        f'F {figures["F"]:.4f}; largest difference of an object or of the mean {figures["largest_difference"]:.2e}'
    )
    if args.json:
        write_text(args.json, json.dumps(figures, indent=2) + '\n')
    return int(figures['largest_difference'] > BAR)


if __name__ == '__main__':
    sys.exit(main())
