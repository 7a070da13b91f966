# SPDX-License-Identifier: MIT
"""`xmem-ros evaluate`: track the sequences of a data set and score the masks."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmem_ros.outside_text import say

if TYPE_CHECKING:
    from xmem_ros.evaluation.settings import Settings

DATASETS = (
    'davis2016',
    'davis2017',
    'youtube2018',
    'youtube2019',
    'mose',
    'longvideo1',
    'longvideo3',
    'lvos',
    'generic',
)  # as in xmem_ros.evaluation.datasets, which imports torch
EPILOG = """\
Layouts of the data sets, their rules, and what comes out: docs/evaluation.md. generic: ROOT/JPEGImages/SEQ/*.jpg and
ROOT/Annotations/SEQ/*.png; the earliest mask seeds, the others are ground truth. Finished sequences in OUTPUT are kept.
Several GPUs: torchrun --nproc-per-node 4 -m xmem_ros.cli.main evaluate …
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command to `xmem-ros`."""
    parser = commands.add_parser(
        'evaluate',
        help='track a data set and score the masks',
        description='Track every sequence of a data set, write the masks as its server or tool expects them, and score '
        'them where the ground truth is there: J, F and J&F in percent, as vos-benchmark has them.',
        epilog=EPILOG,
    )
    _add_data_arguments(parser)
    _add_result_arguments(parser)
    _add_protocol_arguments(parser)
    parser.set_defaults(run=run)


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--dataset', choices=DATASETS, help='which data set, in its published layout')
    parser.add_argument('--split', help='part of the data set: val, test-dev (davis2017), test (youtube…, lvos)')
    parser.add_argument('--root', type=Path, help='folder of the data set')
    parser.add_argument(
        '--weights',
        default='compact',
        help='bundled: compact, compact-permissive; official: xmem, xmem-s012, xmem-s2, xmem-no-sensory; or a '
        '.safetensors or .pth file (default: %(default)s)',
    )
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N (default: %(default)s)')
    parser.add_argument(
        '--precision',
        choices=('auto', 'float32', 'float16', 'bfloat16'),
        default='auto',
        help='auto: float16 (AMP) on CUDA, else float32',
    )


def _add_result_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--output', type=Path, help='folder for the masks')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write scores, rate and settings here')
    parser.add_argument('--csv', type=Path, metavar='FILE', help='write the scores of every sequence and object here')
    parser.add_argument(
        '--report', type=Path, metavar='FILE.html', help='write a page with overlays of the worst five sequences'
    )
    parser.add_argument(
        '--keep-scores', type=Path, metavar='DIR', help='with --scales: keep the 8-bit probabilities of every pass'
    )
    parser.add_argument('--fps', action='store_true', help='only measure frames a second; nothing is written or scored')
    parser.add_argument('--dry-run', action='store_true', help='only check that the command is well-formed')
    parser.add_argument(
        '--reproduction-table',
        action='store_true',
        help="print docs/reproduction.md: the paper's figures, the commands, and the results found",
    )
    parser.add_argument(
        '--results', type=Path, default=Path('results'), metavar='DIR', help='of --reproduction-table: the JSON results'
    )


def _add_protocol_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--size',
        type=size,
        default='auto',
        metavar='PX|full|auto',
        help='shorter side that frames are tracked at; full or -1: as they come; auto: as published for the data set '
        'with the official weights, 240 with compact (default: %(default)s)',
    )
    parser.add_argument(
        '--scales', type=size, nargs='+', default=[], metavar='PX', help='track at each of these sizes and merge'
    )
    parser.add_argument(
        '--flip', action='store_true', help='track mirrored frames; with --scales both ways, at every size'
    )
    parser.add_argument(
        '--memory',
        choices=('published', 'default'),
        default='published',
        help='policy of the memory: that of the paper, or that of the node (default: %(default)s)',
    )
    parser.add_argument(
        '--memory-every', type=int, metavar='N', help='frames between memory frames (default: 5; longvideo3: 10)'
    )
    parser.add_argument(
        '--long-term',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='long-term memory; without it working memory is a ring of --working-frames (default: on)',
    )
    parser.add_argument(
        '--working-frames',
        type=int,
        nargs=2,
        metavar=('LEAST', 'MOST'),
        default=(5, 10),
        help='memory frames after and before a consolidation, the first among them (default: 5 10)',
    )
    parser.add_argument('--long-term-elements', type=int, default=10_000, metavar='N', help='(default: %(default)s)')
    parser.add_argument('--prototypes', type=int, default=128, metavar='N', help='(default: %(default)s)')
    parser.add_argument('--top-k', type=int, default=30, metavar='N', help='(default: %(default)s)')
    parser.add_argument(
        '--save-all', action='store_true', help='write the mask of every frame (youtube, longvideo, lvos)'
    )
    parser.add_argument(
        '--late-objects',
        action='store_true',
        help='generic, mose: seed each object by the first mask that shows it (default: the first mask alone seeds)',
    )
    parser.add_argument('--sparse', action='store_true', help='youtube: track the annotated frames alone')
    parser.add_argument(
        '--ignore-void',
        action='store_true',
        help='pixels of 255 beside other values neither seed nor count (default: 255 is an object like any other)',
    )


def size(text: str) -> int | str:
    """Parse a size: px, `full` (or -1), or `auto`."""
    if text in ('auto', 'full'):
        return text
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value == -1:
        return 'full'
    if not 16 <= value <= 4096:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of pixels from 16 to 4096, nor full, -1 or auto')
    return value


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; returns the exit code."""
    if args.reproduction_table:
        from xmem_ros.evaluation.reproduction import table as reproduction_table

        say(reproduction_table(args.results).removesuffix('\n'))
        return 0
    settings = make_settings(args)
    if args.dry_run:
        from xmem_ros.weights.checkpoint import check_name

        check_name(args.weights)
        say(f'well-formed: {settings.about.title} {settings.split} with {args.weights}')
        return 0
    return _measure(args, settings) if args.fps else _evaluate(args, settings)


def make_settings(args: argparse.Namespace) -> Settings:
    """Arguments → settings; raises `ParameterError` for what does not go together."""
    from xmem_ros.errors import ParameterError
    from xmem_ros.evaluation.settings import Settings
    from xmem_ros.memory.config import MemoryConfig

    needed = ('dataset', 'root') if args.fps else ('dataset', 'root', 'output')
    for name in needed:
        if getattr(args, name) is None:
            raise ParameterError(f'--{name} is missing')
    if args.fps and (args.scales or args.report or args.csv):
        raise ParameterError('--fps measures one pass and scores nothing: leave --scales, --report and --csv away')
    if args.keep_scores and not args.scales:
        raise ParameterError('--keep-scores keeps the passes of --scales, which is missing')
    least, most = args.working_frames
    stores = MemoryConfig(
        max_working_frames=most,
        min_working_frames=least,
        long_term=args.long_term,
        long_term_elements=args.long_term_elements,
        prototypes=args.prototypes,
        top_k=args.top_k,
    )
    return Settings(
        dataset=args.dataset,
        root=args.root,
        weights=str(args.weights),
        split=args.split or 'val',
        size=args.size,
        scales=tuple(args.scales),
        flip=args.flip,
        memory=args.memory,
        memory_every=args.memory_every,
        stores=stores,
        precision=args.precision,
        device=args.device,
        save_all=args.save_all,
        late_objects=args.late_objects,
        sparse=args.sparse,
        ignore_void=args.ignore_void,
    )


def _measure(args: argparse.Namespace, settings: Settings) -> int:
    from xmem_ros.evaluation.results import write_json
    from xmem_ros.evaluation.speed import measure, speed_table

    result = measure(settings)
    say(speed_table(result['speed']))
    if args.json:
        write_json(args.json, result)
    return 0


def _evaluate(args: argparse.Namespace, settings: Settings) -> int:
    from dataclasses import fields

    from xmem_ros.evaluation.report import check_report, write_report
    from xmem_ros.evaluation.results import check_writable, write_csv, write_json
    from xmem_ros.evaluation.runner import evaluate

    check_writable(args.json, args.csv, args.report)  # before hours of tracking
    if args.report:
        check_report()
    options: dict[str, Any] = {field.name: getattr(settings, field.name) for field in fields(settings)}
    dataset, root = options.pop('dataset'), options.pop('root')
    result = evaluate(dataset, root, output=args.output, scores=args.keep_scores, **options)
    if is_first_process():
        _tell(result)
        if args.json:
            write_json(args.json, result)
        if args.csv:
            write_csv(args.csv, result)
        if args.report:
            write_report(args.report, settings, args.output, result)
    return 0


def _tell(result: dict[str, Any]) -> None:
    from xmem_ros.evaluation.scores import table

    if result['J&F'] is not None:
        say(table(result['sequences']))
    for name, scores in result['sequences'].items():
        if scores['unseeded']:
            values = ', '.join(map(str, scores['unseeded']))
            say(f'{name}: scored, but no seed shows them: {values}', file=sys.stderr)
    if result['fps']:
        say(f'{result["fps"]:.2f} frames a second of forward time, {result["precision"]}, {result["device_name"]}')
    if 'zip' in result:
        say(f'{result["zip"]}: for the server, which alone has the ground truth')


def is_first_process() -> bool:
    """Whether this process speaks for all that torchrun started."""
    import os

    return os.environ.get('RANK', '0') == '0'
