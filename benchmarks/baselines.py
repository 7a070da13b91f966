# SPDX-License-Identifier: MIT
"""J&F of two simple baselines on a data set of the layout `generic`.

`repeat` repeats the first mask. `flow` propagates it by OpenCV's dense inverse search optical flow
(Kroeger et al. 2016). Both work at the given sizes (shorter side, px); masks are scored at the
frames' size, by the code of `xmem-ros evaluate`.

    python benchmarks/baselines.py --root DATASET [--size 240 480] [--json FILE]
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from xmem_ros.atomic import write_text
from xmem_ros.errors import XMemError
from xmem_ros.evaluation.datasets import Sequence, read_dataset
from xmem_ros.evaluation.datasets.options import ReadOptions
from xmem_ros.evaluation.scores import overall, score_sequence
from xmem_ros.media import write_labels

Propagate = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def repeat(before: np.ndarray, frame: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return masks H×W×O float32 unchanged."""
    del before, frame
    return masks


def flow(before: np.ndarray, frame: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Warp masks H×W×O float32 0…1 to the next frame H×W×3 uint8 RGB by backward optical flow."""
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey, grey_before = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (frame, before))
    back = search.calc(
        grey, grey_before, np.zeros((*grey.shape, 2), np.float32)
    )  # px, displacement to the previous frame
    y, x = np.mgrid[: grey.shape[0], : grey.shape[1]].astype(np.float32)
    moved = cv2.remap(masks, x + back[..., 0], y + back[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return moved.reshape(masks.shape)


METHODS: dict[str, Propagate] = {'repeat': repeat, 'flow': flow}


def run_sequence(sequence: Sequence, propagate: Propagate, size: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each frame's stem and mask, H×W uint8, with the data set's values."""
    first = sequence.frame(0)
    seeds = sequence.seed_objects(next(iter(sequence.seeds)), first.shape[:2])
    values = np.array([0, *seeds], np.uint8)
    height, width = first.shape[:2]
    scale = size / min(height, width)
    working = (round(width * scale), round(height * scale))

    def shrink(image: np.ndarray) -> np.ndarray:
        return cv2.resize(image, working, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)

    masks = np.stack([shrink(mask.astype(np.float32)) for mask in seeds.values()], axis=2)
    before = shrink(first)
    for index, path in enumerate(sequence.frames):
        frame = shrink(sequence.frame(index))
        if index:
            masks = propagate(before, frame, masks)
        before = frame
        large = cv2.resize(masks, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, -1)
        best = np.where(large.max(2) > 0.5, large.argmax(2) + 1, 0)
        yield path.stem, values[best]


def measure(sequences: list[Sequence], method: str, size: int) -> dict[str, dict]:
    """Score a method at one size: sequence → scores."""
    scores = {}
    for sequence in tqdm(sequences, desc=f'{method} {size}', unit='sequence'):
        with tempfile.TemporaryDirectory() as folder:
            for stem, mask in run_sequence(sequence, METHODS[method], size):
                write_labels(Path(folder) / f'{stem}.png', mask)
            scores[sequence.name] = score_sequence(sequence, Path(folder))
    return scores


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description='Score two baselines on a generic data set.')
    parser.add_argument('--root', type=Path, required=True, help='folder with JPEGImages and Annotations')
    parser.add_argument('--size', type=int, nargs='+', default=[240, 480], help='shorter sides, px (default: 240 480)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='also write the scores to this file')
    args = parser.parse_args()
    try:
        sequences = read_dataset('generic', args.root, ReadOptions())
        results = {f'{method} {size}': measure(sequences, method, size) for size in args.size for method in METHODS}
    except XMemError as error:
        parser.error(str(error))
    width = max(len('all objects'), *(len(sequence.name) for sequence in sequences))
    print(f'{"J&F":<{width}}', *(f'{name:>12}' for name in results))
    for sequence in sequences:
        print(f'{sequence.name:<{width}}', *(f'{scores[sequence.name]["J&F"]:12.1f}' for scores in results.values()))
    means = {name: overall(scores) for name, scores in results.items()}
    for key in ('J&F', 'J', 'F'):
        label = 'all objects' if key == 'J&F' else f'  {key}'
        print(f'{label:<{width}}', *(f'{mean[key]:12.1f}' for mean in means.values()))
    if args.json:
        data = {name: {**means[name], 'sequences': scores} for name, scores in results.items()}
        write_text(args.json, json.dumps(data, indent=2) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
