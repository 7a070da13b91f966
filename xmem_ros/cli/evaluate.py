# SPDX-License-Identifier: MIT
"""`xmem-ros evaluate`: track the sequences of a data set and score the masks."""

import argparse
import json
import sys
from pathlib import Path

from xmem_ros.cli.arguments import add_tracker_arguments


def add_parser(commands: 'argparse._SubParsersAction[argparse.ArgumentParser]') -> None:
    """Add the sub-command to `xmem-ros`."""
    parser = commands.add_parser(
        'evaluate',
        help='track a data set and score the masks',
        description='Track every sequence of a data set, write the masks, and score them: J, F and J&F in percent, '
        'as in the DAVIS semi-supervised benchmark (first and last mask left out).',
        epilog='generic: ROOT/JPEGImages/SEQ/*.jpg and ROOT/Annotations/SEQ/*.png; the earliest mask seeds, '
        'the rest is ground truth. Mask values: 0 background, 255 void, others objects; '
        'where the earliest mask holds only 0 and 255, 255 is the one object. Finished sequences in OUTPUT are kept.',
    )
    parser.add_argument('--dataset', choices=('generic',), required=True, help='layout of the data set')
    parser.add_argument('--root', type=Path, required=True, help='folder of the data set')
    parser.add_argument('--output', type=Path, required=True, help='folder for the masks')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the scores here too')
    parser.add_argument(
        '--memory',
        choices=('published', 'default'),
        default='published',
        help='policy of the memory: that of the paper, or that of the node (default: %(default)s)',
    )
    add_tracker_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; returns the exit code."""
    from xmem_ros.evaluation.runner import evaluate
    from xmem_ros.evaluation.scores import table

    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
    result = evaluate(
        args.dataset,
        args.root,
        weights=args.weights,
        size=args.size,
        device=args.device,
        output=args.output,
        memory=args.memory,
    )
    print(table(result['sequences']))
    for name, scores in result['sequences'].items():
        if scores['unseeded']:
            values = ', '.join(map(str, scores['unseeded']))
            print(f'{name}: not scored, as no seed shows them: {values}', file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + '\n')
    return 0
