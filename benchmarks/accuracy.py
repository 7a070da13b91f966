# SPDX-License-Identifier: MIT
"""What reduced precision costs in J&F, over a data set of the layout `generic`.

    python benchmarks/accuracy.py --root DATASET [--weights compact] [--precisions float32 bfloat16] [--json FILE]

Runs `xmem-ros evaluate` once for each precision. A speed-up that costs more than 0.1 J&F must not be a default.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from xmem_ros.atomic import write_text
from xmem_ros.cli.main import main as command_line
from xmem_ros.threads import wait_asleep

wait_asleep()

PRECISIONS = ('float32', 'float16', 'bfloat16')


def score(args: argparse.Namespace, precision: str) -> dict[str, float]:
    """J&F, J and F in percent, and frames a second."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'scores.json'
        options = ['--dataset', 'generic', '--root', str(args.root), '--weights', args.weights, '--device', args.device]
        options += ['--precision', precision, '--output', f'{folder}/masks', '--json', str(file)]
        if command_line(['evaluate', *options]):
            sys.exit(2)
        scores = json.loads(file.read_text())
    if scores['precision'] != precision:
        sys.exit(f'{precision} was asked for, but {scores["precision"]} was run')
    return {name: scores[name] for name in ('J&F', 'J', 'F', 'fps')}


def main() -> int:
    """Evaluate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, required=True, help='folder with JPEGImages and Annotations')
    parser.add_argument('--weights', default='compact', help='name or file (default: %(default)s)')
    parser.add_argument('--device', default='cpu', help='(default: %(default)s)')
    parser.add_argument(
        '--precisions', nargs='+', choices=PRECISIONS, default=['float32', 'bfloat16'], help='(default: %(default)s)'
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures to this file')
    args = parser.parse_args()
    rows = {name: score(args, name) for name in args.precisions}
    for name, scores in rows.items():
        print(f'{name:10}' + '  '.join(f'{key} {value:.2f}' for key, value in scores.items()))
    if args.json:
        write_text(args.json, json.dumps({'weights': args.weights, 'rows': rows}, indent=2) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
