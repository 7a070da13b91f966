# SPDX-License-Identifier: MIT
"""Speed of a tracker's step, beside the authors' implementation and the machine's floor.

    make bench BENCH='[--reference DIR] [--device cpu|cuda] [--quick | --full] [--json FILE]'
    make bench BENCH='--models xmem --sizes 480 --objects 5 --fullness evicting'

DIR is a checkout of hkchengrex/XMem. For every case, ours in float32, ours in reduced precision and
the reference take each frame in turn, on the same frames, masks and weights, so that a change of
the machine's speed meets all of them; `ratio` is the median over frames of reference / ours. `xmem`
has generated weights (its speed does not depend on them) unless --weights names some. On CUDA the
reference is in float16 (AMP) where ours is in reduced precision; on a CPU it is in float32 always.
How stores are filled: `fullness.py`. `floor` and its share: `floor.py`. Differences of probability
are to ours in float32. Exit code 1 where a bar of `bars.py` is missed.
Peak memory: on CUDA what the caching allocator held for that contender; on a CPU what memory stores
occupy.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from xmem_ros.atomic import write_text
from xmem_ros.host_memory import keep_large_blocks
from xmem_ros.threads import wait_asleep

wait_asleep()
keep_large_blocks()

import numpy as np
import torch
from tqdm import tqdm

from speed.bars import judge
from speed.contenders import Contender, make_contenders, masks_for
from speed.floor import Ceiling, measure_ceiling
from speed.fullness import FULLNESS, make_filling
from speed.report import plot, print_rows
from xmem_ros.demo.scene import RenderedScene

WIDTHS = {240: 432, 480: 864, 720: 1280}  # px; height → width of frames
CYCLE = 25  # frames between consolidations


@dataclass(frozen=True)
class Case:
    """One workload."""

    model: str
    size: int
    objects: int
    fullness: str

    def __str__(self) -> str:
        return f'{self.model} {self.size}, {self.objects} object(s), {self.fullness}'


@dataclass
class Samples:
    """Measurements of one contender."""

    ms: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    largest: float = 0.0
    mean: list[float] = field(default_factory=list)


def run_case(case: Case, args: argparse.Namespace, ceilings: dict[torch.dtype, Ceiling]) -> list[dict[str, Any]]:
    """Run all contenders frame by frame; returns a row for each of ours."""
    size = (case.size, WIDTHS[case.size])
    scene = RenderedScene(size, args.frames + 1, min(max(case.objects, 2), 6), seed=0)
    frame, labels = masks_for(scene, case.objects)
    contenders = make_contenders(case.model, case.objects, args)
    ours = [c for c in contenders if c.ours]
    for contender in contenders:
        contender.begin(frame, labels)
    filling = make_filling(ours[0].tracker, case.fullness)
    for contender in contenders:
        contender.fill(filling)
    sizes = {c.name: c.elements for c in contenders}
    if len({tuple(held.items()) for held in sizes.values()}) != 1:
        raise SystemExit(f'{case}: the memories of the contenders differ in size: {sizes}')
    samples = {contender.name: Samples() for contender in contenders}
    for number in tqdm(range(1, args.frames + 1), desc=str(case), leave=False):
        frame = scene[number][0]
        # they take turns to begin, so that the state of the caches affects all alike
        turn = contenders[number % len(contenders) :] + contenders[: number % len(contenders)]
        for contender in turn:
            ms, stages = contender.step(frame)
            if number > args.warm_up:
                samples[contender.name].ms.append(ms)
                for stage, value in stages.items():
                    samples[contender.name].stages.setdefault(stage, []).append(value)
        _compare(contenders, samples)
    rows = [_row(case, c, samples, ceilings, scene) for c in ours]
    for contender in contenders:
        contender.close()
    return rows


def _compare(contenders: list[Contender], samples: dict[str, Samples]) -> None:
    exact = contenders[0].probabilities
    for contender in contenders[1:]:
        difference = (contender.probabilities - exact).abs()
        largest = float(difference.max())
        held = samples[contender.name]
        held.largest = max(held.largest, largest if np.isfinite(largest) else np.inf)
        held.mean.append(float(difference.mean()))


def _row(
    case: Case,
    contender: Contender,
    samples: dict[str, Samples],
    ceilings: dict[torch.dtype, Ceiling],
    scene: RenderedScene,
) -> dict[str, Any]:
    """Collect the figures of one of our contenders."""
    held = samples[contender.name]
    median = statistics.median(held.ms)
    row: dict[str, Any] = vars(case) | {
        'precision': str(contender.dtype).removeprefix('torch.'),
        'kind': contender.name,
        'frames': len(held.ms),
        'fps': 1e3 / median,
        'median_ms': median,
        'p95_ms': float(np.percentile(held.ms, 95)),
        # stages of memory frames count only where they ran
        'stages_ms': {
            k: statistics.median([v for v in values if v > 0.05] or [0.0]) for k, values in held.stages.items()
        },
        'peak_mb': contender.peak_bytes / 1e6,
        'largest_difference': held.largest,
        'mean_difference': statistics.mean(held.mean) if held.mean else 0.0,
    }
    other = f'reference {contender.name}' if f'reference {contender.name}' in samples else 'reference'
    if other in samples:
        theirs = samples[other]
        row['reference_ms'] = statistics.median(theirs.ms)
        row['ratio'] = statistics.median(r / t for r, t in zip(theirs.ms, held.ms, strict=True))
        row['ratio_of_sums'] = sum(theirs.ms) / sum(held.ms)
        row['reference_difference'] = theirs.largest
        peak = contender.reference_peak_bytes(other)
        row['peak_of_reference'] = contender.peak_bytes / peak if peak else None
    counted = contender.count(scene[0][0])
    row['gflop'], row['gbyte'] = counted.flops / 1e9, counted.bytes / 1e9
    row['floor_ms'] = counted.floor_ms(ceilings)
    row['share_of_floor'] = row['floor_ms'] / median
    return row


def arguments() -> argparse.Namespace:
    """Parse the command line and apply presets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--reference', type=Path, help='checkout of hkchengrex/XMem to run beside ours')
    parser.add_argument('--device', default='cpu', help='cpu or cuda (default: %(default)s)')
    parser.add_argument('--models', nargs='+', choices=('xmem', 'compact'), default=['compact', 'xmem'])
    parser.add_argument('--weights', help='name or file, for xmem (default: generated)')
    parser.add_argument('--sizes', type=int, nargs='+', choices=sorted(WIDTHS), help='px (default: that of the model)')
    parser.add_argument('--objects', type=int, nargs='+', default=[1, 5], help='(default: 1 5)')
    parser.add_argument('--fullness', nargs='+', choices=FULLNESS, default=['evicting'])
    parser.add_argument('--precisions', nargs='+', choices=('float32', 'reduced'), default=['float32', 'reduced'])
    parser.add_argument(
        '--policy',
        choices=('published', 'default'),
        default='published',
        help='our memory policy (default: %(default)s)',
    )
    parser.add_argument('--engine', default='torch', help='our engine, torch or onnxruntime (default: %(default)s)')
    parser.add_argument('--cuda-graphs', action='store_true', help='use CUDA graphs in our contenders')
    parser.add_argument('--frames', type=int, default=CYCLE + 2, help='frames per case (default: one memory cycle)')
    parser.add_argument('--warm-up', type=int, default=2, help='uncounted first frames (default: %(default)s)')
    parser.add_argument('--quick', action='store_true', help='1 object, full memory, few frames')
    parser.add_argument('--full', action='store_true', help='every combination; hours on a CPU')
    parser.add_argument('--json', type=Path, help='write the results to this file')
    parser.add_argument('--plot', type=Path, help='plot the results to this file')
    args = parser.parse_args()
    if args.quick:
        args.objects, args.frames = [1], 11
    if args.full:
        args.sizes, args.objects, args.fullness = sorted(WIDTHS), [1, 3, 10], list(FULLNESS)
    return args


def machine_name(device: str) -> str:
    """Return the name of the device."""
    if device.startswith('cuda'):
        return torch.cuda.get_device_name(device)
    return f'cpu, {torch.get_num_threads()} threads, {platform.machine()}'


def main() -> int:
    """Measure, print, judge; returns the exit code."""
    args = arguments()
    machine = machine_name(args.device)
    device = torch.device(args.device)
    reduced = torch.float16 if device.type == 'cuda' else torch.bfloat16
    ceilings = {dtype: measure_ceiling(device, dtype) for dtype in (torch.float32, reduced)}
    cases = [
        Case(model, size, objects, fullness)
        for model in args.models
        for size, objects, fullness in product(
            args.sizes or [480 if model == 'xmem' else 240], args.objects, args.fullness
        )
    ]
    rows: list[dict[str, Any]] = []
    for case in cases:
        rows += run_case(case, args, ceilings)
        if args.json:
            _write(args, machine, ceilings, rows)
    print(f'{machine}, torch {torch.__version__}')
    for dtype, ceiling in ceilings.items():
        print(f'ceiling {dtype}: {ceiling.flops / 1e9:.0f} GFLOP/s, {ceiling.bytes / 1e9:.1f} GB/s')
    print_rows(rows)
    lines, good = judge(rows, machine)
    print(*lines, sep='\n')
    if args.plot:
        plot(rows, args.plot, machine)
    return 0 if good else 1


def _write(
    args: argparse.Namespace, machine: str, ceilings: dict[torch.dtype, Ceiling], rows: list[dict[str, Any]]
) -> None:
    head = {'machine': machine, 'torch': torch.__version__, 'policy': args.policy, 'engine': args.engine}
    head['cuda_graphs'] = args.cuda_graphs
    head['ceilings'] = {str(dtype): vars(ceiling) for dtype, ceiling in ceilings.items()}
    write_text(args.json, json.dumps(head | {'rows': rows}, indent=2) + '\n')


if __name__ == '__main__':
    sys.exit(main())
