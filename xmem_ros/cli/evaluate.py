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
generic: ROOT/JPEGImages/SEQ/*.jpg and ROOT/Annotations/SEQ/*.png; the earliest mask is the seed,
and the others are ground truth. Sequences that are finished in the output folder are not tracked
again.

examples:
  xmem-ros evaluate --dataset davis2017 --root DAVIS/2017 --output out --json scores.json
  xmem-ros evaluate --dataset generic --root my_videos --fps
  torchrun --nproc-per-node 4 -m xmem_ros.cli.main evaluate …      # four GPUs

Layouts, protocols and results: docs/evaluation.md
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command to `xmem-ros`."""
    parser = commands.add_parser(
        'evaluate',
        help='track a data set and score the masks',
        description='Track every sequence of a data set and write the masks in the layout of its server.\n'
        'With ground truth, score them: J, F and J&F in percent, by vos-benchmark.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_data_arguments(parser)
    _add_result_arguments(parser)
    _add_protocol_arguments(parser)
    parser.set_defaults(run=run)


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('data set and network')
    group.add_argument('--dataset', choices=DATASETS, metavar='NAME', help=f'one of {", ".join(DATASETS)}')
    group.add_argument(
        '--split',
        metavar='NAME',
        help='part of the data set: val, test-dev (davis2017) or test (youtube2018, youtube2019, lvos); default: val',
    )
    group.add_argument('--root', type=Path, metavar='DIR', help='folder of the data set, in its published layout')
    group.add_argument(
        '--weights',
        default='compact',
        metavar='NAME|FILE',
        help='bundled: compact, compact-permissive; official: xmem, xmem-s012, xmem-s2, xmem-no-sensory; or a '
        '.safetensors or .pth file (default: %(default)s)',
    )
    group.add_argument(
        '--device', default='auto', metavar='DEVICE', help='auto, cpu, cuda or cuda:N (default: %(default)s)'
    )
    group.add_argument(
        '--precision',
        choices=('auto', 'float32', 'float16', 'bfloat16'),
        default='auto',
        help='auto: float16 (AMP) on CUDA, float32 on the CPU (default: %(default)s)',
    )


def _add_result_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('results')
    group.add_argument('--output', type=Path, metavar='DIR', help='folder for the masks')
    group.add_argument('--json', type=Path, metavar='FILE', help='write scores, frame rate and settings to this file')
    group.add_argument('--csv', type=Path, metavar='FILE', help='write the scores of all sequences and objects')
    group.add_argument(
        '--report', type=Path, metavar='FILE.html', help='write a report with overlays of the five worst sequences'
    )
    group.add_argument(
        '--keep-scores', type=Path, metavar='DIR', help='with --scales: keep the 8-bit probabilities of each pass'
    )
    group.add_argument('--fps', action='store_true', help='measure the frame rate only; write and score nothing')
    group.add_argument('--dry-run', action='store_true', help='check the command, then exit')
    group.add_argument(
        '--reproduction-table',
        action='store_true',
        help='print docs/reproduction.md: published figures, commands and our results',
    )
    group.add_argument(
        '--results',
        type=Path,
        default=Path('results'),
        metavar='DIR',
        help='with --reproduction-table: folder of the JSON results (default: %(default)s)',
    )


def _add_protocol_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('protocol')
    group.add_argument(
        '--size',
        type=size,
        default='auto',
        metavar='PX|full|auto',
        help='shorter side of the images in the network. full or -1: no scaling. auto: as published for the data set '
        'with the official weights, 240 with compact (default: %(default)s)',
    )
    group.add_argument(
        '--scales', type=size, nargs='+', default=[], metavar='PX', help='track at each of these sizes and merge'
    )
    group.add_argument(
        '--flip',
        action='store_true',
        help='mirror the frames; with --scales, track each size with and without it',
    )
    group.add_argument(
        '--memory',
        choices=('published', 'default'),
        default='published',
        help="memory policy: the paper's, or the node's default (default: %(default)s)",
    )
    group.add_argument(
        '--memory-every', type=int, metavar='N', help='frames between memory frames (default: 5; longvideo3: 10)'
    )
    group.add_argument(
        '--long-term',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='use long-term memory; without it, working memory keeps the newest --working-frames (default: on)',
    )
    group.add_argument(
        '--working-frames',
        type=int,
        nargs=2,
        metavar=('MIN', 'MAX'),
        default=(5, 10),
        help='number of memory frames after and before a consolidation, including the first frame (default: 5 10)',
    )
    group.add_argument(
        '--long-term-elements', type=int, default=10_000, metavar='N', help='size of long-term memory: %(default)s'
    )
    group.add_argument(
        '--prototypes', type=int, default=128, metavar='N', help='prototypes of a consolidation (default: %(default)s)'
    )
    group.add_argument(
        '--top-k', type=int, default=30, metavar='N', help='memory elements in a readout (default: %(default)s)'
    )
    group.add_argument('--save-all', action='store_true', help='youtube, longvideo, lvos: write every mask')
    group.add_argument(
        '--late-objects',
        action='store_true',
        help='generic, mose: seed each object by the first mask that shows it (default: only by the first mask)',
    )
    group.add_argument('--sparse', action='store_true', help='youtube: track only the annotated frames')
    group.add_argument(
        '--ignore-void',
        action='store_true',
        help='ignore pixels of value 255 in masks with other values (default: 255 is an object)',
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
        raise argparse.ArgumentTypeError(f'{text!r} is not a size; give 16 to 4096 (px), full, -1 or auto')
    return value


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; returns the exit code."""
    if args.reproduction_table:
        from xmem_ros.evaluation.reproduction import table as reproduction_table

        say(reproduction_table(args.results).removesuffix('\n'))
        return 0
    settings = make_settings(args)
    if args.dry_run:
        from xmem_ros.weights.files import check_name

        check_name(args.weights)
        say(f'valid: {settings.about.title} {settings.split} with {args.weights}')
        return 0
    return _measure(args, settings) if args.fps else _evaluate(args, settings)


def make_settings(args: argparse.Namespace) -> Settings:
    """Convert arguments to settings; raises `ParameterError` for a contradiction."""
    from xmem_ros.errors import ParameterError
    from xmem_ros.evaluation.settings import Settings
    from xmem_ros.memory.config import MemoryConfig

    needed = ('dataset', 'root') if args.fps else ('dataset', 'root', 'output')
    for name in needed:
        if getattr(args, name) is None:
            raise ParameterError(f'--{name} is missing; required are --{", --".join(needed)}')
    if args.fps and (args.scales or args.report or args.csv):
        raise ParameterError('--fps measures a single pass without scores; omit --scales, --report and --csv')
    if args.keep_scores and not args.scales:
        raise ParameterError('--keep-scores requires --scales')
    min_frames, max_frames = args.working_frames
    stores = MemoryConfig(
        max_working_frames=max_frames,
        min_working_frames=min_frames,
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
        _print_result(result)
        if args.json:
            write_json(args.json, result)
        if args.csv:
            write_csv(args.csv, result)
        if args.report:
            write_report(args.report, settings, args.output, result)
    return 0


def _print_result(result: dict[str, Any]) -> None:
    from xmem_ros.evaluation.scores import table

    if result['J&F'] is not None:
        say(table(result['sequences']))
    for name, scores in result['sequences'].items():
        if scores['unseeded']:
            values = ', '.join(map(str, scores['unseeded']))
            say(f'{name}: objects with ground truth but without a seed: {values}', file=sys.stderr)
    if result['fps']:
        say(f'{result["fps"]:.2f} frames/s (forward time), {result["precision"]}, {result["device_name"]}')
    if 'zip' in result:
        say(f'{result["zip"]}: upload this file; only the server has the ground truth')


def is_first_process() -> bool:
    """Whether this is the process of rank 0, which prints and writes the results."""
    import os

    return os.environ.get('RANK', '0') == '0'
