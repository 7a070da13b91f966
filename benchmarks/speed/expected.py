# SPDX-License-Identifier: MIT
"""Lower bounds of a step's time on other machines, by counting operations, without measuring.

    python -m speed.expected [--json FILE]

A step's convolutions, matrix products and gathers are counted as they are called, with 16-bit
features, weights and values, and full memory (see `floor.py`), and set against rates that follow
from clocks and numbers of cores: dense float16 products on tensor cores, float32 elsewhere, memory
bandwidth. Additions, activations and launches are not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from unittest.mock import patch

from xmem_ros.atomic import write_text
from xmem_ros.threads import wait_asleep

wait_asleep()

import torch

from speed.contenders import make_contenders, masks_for
from speed.floor import Ceiling, Work
from speed.fullness import make_filling
from xmem_ros.demo.scene import RenderedScene
from xmem_ros.tracker.segmenter import Segmenter


@dataclass(frozen=True)
class Board:
    """Specification of a GPU; docs/jetson.md gives the sources."""

    processors: int  # streaming multiprocessors
    mhz: float  # highest clock of the GPU
    half: int  # dense float16 operations per processor and cycle on tensor cores
    moved: float  # memory bandwidth, bytes per second

    @property
    def ceilings(self) -> dict[torch.dtype, Ceiling]:
        """Rates of 16-bit types on tensor cores, and of float32 on 128 cores per processor."""
        cycles = self.processors * self.mhz * 1e6
        return {
            torch.bfloat16: Ceiling(self.half * cycles, self.moved),
            torch.float32: Ceiling(2 * 128 * cycles, self.moved),
        }


ORIN, THOR = 2048, 8192  # of `Board.half`
MACHINES = {
    'Orin Nano 8GB (Super)': Board(8, 1020, ORIN, 102.4e9),
    'Orin NX 16GB': Board(8, 918, ORIN, 102.4e9),
    'AGX Orin 64GB': Board(16, 1300, ORIN, 204.8e9),
    'Thor T5000': Board(20, 1575, THOR, 273e9),
}
CASES = (('compact', 240), ('compact', 480), ('xmem', 480))
WIDTHS = {240: 432, 480: 864}


def count(model: str, size: int, objects: int) -> Work:
    """Count the work of an average step with full memory."""
    args = argparse.Namespace(
        device='cpu', precisions=['reduced'], policy='published', engine='torch', cuda_graphs=False
    )
    args.weights = args.reference = None
    contender = make_contenders(model, objects, args)[-1]
    scene = RenderedScene((size, WIDTHS[size]), 2, max(objects, 2), seed=0)
    contender.begin(*masks_for(scene, objects))
    contender.fill(make_filling(contender.tracker, 'evicting'))
    return contender.count(scene[1][0])


def main() -> int:
    """Count and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', type=Path, help='write the results to this file')
    args = parser.parse_args()
    rows = []
    for name, board in MACHINES.items():
        half, single = (board.ceilings[kind].flops / 1e12 for kind in (torch.bfloat16, torch.float32))
        print(f'{name}: float16 {half:.1f}, float32 {single:.2f} TFLOP/s, {board.moved / 1e9:g} GB/s')
    print(f'{"":22}{"GFLOP":>8}{"MB":>8}' + ''.join(f'{name:>24}' for name in MACHINES) + '   ms at least')
    # values in memory have 16 bits on a GPU, 32 on a CPU
    with patch.object(Segmenter, 'value_dtype', torch.bfloat16):
        for (model, size), objects in product(CASES, (1, 3, 5)):
            work = count(model, size, objects)
            row = {'model': model, 'size': size, 'objects': objects, 'gflop': work.flops / 1e9, 'mb': work.bytes / 1e6}
            for name, board in MACHINES.items():
                row[name] = work.floor_ms(board.ceilings)
            rows.append(row)
            cells = ''.join(f'{row[name]:24.2f}' for name in MACHINES)
            print(f'{model} {size} px, {objects} obj.'.ljust(22) + f'{row["gflop"]:8.1f}{row["mb"]:8.0f}' + cells)
    if args.json:
        write_text(
            args.json,
            json.dumps({'machines': {n: vars(b) for n, b in MACHINES.items()}, 'rows': rows}, indent=2) + '\n',
        )
    return 0


if __name__ == '__main__':
    sys.exit(main())
