# SPDX-License-Identifier: MIT
"""Whether a tracker that ran for long is as fast as a fresh one with full stores, both stepped in turn."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from bars import DRIFT_BAR
from contenders import Contender, make_contenders, masks_for
from fullness import make_filling
from tqdm import tqdm

from xmem_ros.atomic import write_text
from xmem_ros.demo.scene import PERIOD, RenderedScene

COMPARED = 250  # frames of each, ten cycles of memory


def run_drift(args: argparse.Namespace) -> int:
    """For each model, at its first size and number of objects, in the last precision; returns the exit code."""
    from speed import WIDTHS

    rows: list[dict[str, Any]] = []
    for model in args.models:
        size = args.sizes[0] if args.sizes else 240
        scene = RenderedScene((size, WIDTHS[size]), PERIOD, min(max(args.objects[0], 2), 6), seed=0)
        frames = [scene[number][0] for number in range(PERIOD)]
        args.reference = None
        old, fresh = (make_contenders(model, args.objects[0], args)[-1] for _ in range(2))
        for contender in (old, fresh):
            contender.begin(*masks_for(scene, args.objects[0]))
        for number in tqdm(range(1, args.drift + 1), desc=f'{model} {size}'):
            old.tracker.step(frames[number % PERIOD])
        fresh.fill(make_filling(fresh.tracker, 'evicting'))
        sums = _alternate(old, fresh, frames, args.drift)
        row = {
            'model': model,
            'size': size,
            'objects': args.objects[0],
            'frames': args.drift,
            'precision': str(old.dtype).removeprefix('torch.'),
            'ratio': sums[0] / sums[1],
        }
        row |= {'old_ms': sums[0] / COMPARED, 'fresh_ms': sums[1] / COMPARED, 'elements': old.elements}
        rows.append(row)
        print(
            f'{model} {size} px, {row["objects"]} object(s), {row["precision"]}: '
            f'after {args.drift} frames {row["old_ms"]:.2f} ms a step, '
            f'a fresh tracker {row["fresh_ms"]:.2f} ms: {row["ratio"]:.3f} (at most {DRIFT_BAR}); {row["elements"]}'
        )
    if args.json:
        write_text(args.json, json.dumps({'rows': rows}, indent=2) + '\n')
    return 0 if all(row['ratio'] <= DRIFT_BAR for row in rows) else 1


def _alternate(old: Contender, fresh: Contender, frames: list[Any], begin: int) -> tuple[float, float]:
    """Milliseconds of all compared steps of each; whole cycles, so that both hold equally much on average."""
    sums = [0.0, 0.0]
    for number in range(begin, begin + COMPARED):
        pair = [(0, old), (1, fresh)]
        for which, contender in pair if number % 2 else pair[::-1]:
            first = time.perf_counter()
            contender.tracker.step(frames[number % PERIOD])
            sums[which] += (time.perf_counter() - first) * 1e3
    return sums[0], sums[1]
