# SPDX-License-Identifier: MIT
"""Command line of the fuzzing harness: `python -m fuzz`."""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import sys
from dataclasses import fields
from pathlib import Path

from fuzz.campaign import MODULES, Campaign, Figures, described, kind_of, repeat
from fuzz.sandbox import Sandbox

COLUMNS = tuple(item.name for item in fields(Figures))


def main() -> int:
    """Run the command; returns 1 if there are findings."""
    parser = argparse.ArgumentParser(prog='fuzz', description='Mutated files and messages at every entry point.')
    parser.add_argument('--kind', action='append', default=[], choices=MODULES, help='may be given several times')
    parser.add_argument('--count', type=int, default=0, help='inputs of each kind (default: 1000, or no limit)')
    parser.add_argument('--seconds', type=float, default=0.0, help='in all, shared by the kinds')
    parser.add_argument('--seed', type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument('--first', type=int, default=0, help='number of the first input: --first 37 --count 1')
    parser.add_argument('--out', type=Path, default=Path('fuzz-findings'), help='folder for findings')
    parser.add_argument('--json', type=Path, help='write the figures here')
    parser.add_argument('--repeat', type=Path, metavar='FOLDER', help='run the input of a finding again')
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if args.repeat:
        outcome = repeat(args.repeat)
        print(outcome.detail, *outcome.symptoms or ['nothing was found'], sep='\n')
        return bool(outcome.symptoms)
    kinds = args.kind or list(MODULES)
    count = args.count or (10**9 if args.seconds else 1000)
    seconds = args.seconds / len(kinds) if args.seconds else float('inf')
    print(f'seed {args.seed}', flush=True)
    rows, results = [], []
    for name in kinds:
        kind_of(name)
        with Sandbox() as sandbox:
            campaign = Campaign(name, args.seed, sandbox, args.out)
            with contextlib.suppress(KeyboardInterrupt):
                campaign.spend(count, seconds, args.first, show=True)
            rows.append(campaign.figures)
            results.append(described(campaign))
    _table(rows)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + '\n')
    return int(any(row.findings for row in rows))


def _table(rows: list[Figures]) -> None:
    lines = [COLUMNS, *(tuple(str(getattr(row, name)) for name in COLUMNS) for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(COLUMNS))]
    for line in lines:
        print('  '.join(f'{cell:>{width}}' for cell, width in zip(line, widths, strict=True)))


if __name__ == '__main__':
    sys.exit(main())
