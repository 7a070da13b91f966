# SPDX-License-Identifier: MIT
"""`xmem-ros replay`: replay a recording into a running node, image by image."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from xmem_ros.cli.output import MAX_WARNINGS, warn
from xmem_ros.cli.seed_arguments import add_seed_arguments, read_plan
from xmem_ros.installation import check_installed
from xmem_ros.outside_text import say

if TYPE_CHECKING:
    from xmem_ros.recordings.recording import Recording
    from xmem_ros.recordings.seed_plan import PlannedSeeds
    from xmem_ros.replay.lockstep import Replay, Report
    from xmem_ros.replay.output import ReplayOutput

FORMATS = ('bag', 'png', 'overlay')
TIMEOUT_S = 60.0  # as in xmem_ros.replay.lockstep, which imports rclpy
EPILOG = """\
The node is reset first, unless --keep is given. Two kinds of topics are listed instead of published:
recorded outputs of a tracker, and topics whose type is not installed.

examples:
  xmem-ros replay my_bag                                  # with the recorded seeds
  xmem-ros replay clip.mp4 --seed first.png --out masks   # a mask of the first image

More: docs/bags.md
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command to `xmem-ros`."""
    parser = commands.add_parser(
        'replay',
        help='replay a recording into a running node, image by image (needs ROS)',
        description='Publish a recording and wait after each image for its masks, so that a running node tracks every\n'
        'image, however slow the machine is.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'input',
        type=Path,
        metavar='BAG|VIDEO|FOLDER',
        help='a bag (folder, .mcap or .db3 file), a video file, or a folder of images in the order of their names',
    )
    parser.add_argument('--node', default='/xmem', metavar='NAME', help='name of the node (default: %(default)s)')
    parser.add_argument('--image-topic', default='', metavar='TOPIC', help='image topic, if a bag has several')
    add_seed_arguments(parser)
    parser.add_argument('--no-seeds', action='store_true', help='send no seeds')
    parser.add_argument(
        '--remap',
        action='append',
        default=[],
        metavar='FROM:=TO',
        help="publish a topic of the bag under another name; images always go to the node's image topic",
    )
    parser.add_argument(
        '--rate',
        type=float,
        default=0.0,
        metavar='R',
        help='maximum speed; 1: as recorded, 0.5: half as fast (default: no limit)',
    )
    parser.add_argument('--clock', action='store_true', help='publish the recorded times on /clock')
    parser.add_argument('--keep', action='store_true', help='keep the objects of the node; do not reset it')
    parser.add_argument(
        '--timeout',
        type=float,
        default=TIMEOUT_S,
        metavar='S',
        help='time limit for finding the node, and for the masks of each image, s (default: %(default)g)',
    )
    parser.add_argument('--out', type=Path, metavar='DIR', help='folder for the results; new or empty')
    parser.add_argument(
        '--format',
        action='append',
        default=[],
        choices=FORMATS,
        dest='formats',
        help="bag: DIR/bag with the node's topics; png: a palette PNG for each image; overlay: DIR/overlay.mp4; "
        'repeat it for several formats (default: png)',
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; returns the exit code."""
    _check(args)
    from xmem_ros.errors import BagError
    from xmem_ros.replay.lockstep import replay
    from xmem_ros.replay.source import ReplaySource
    from xmem_ros.replay.topics import parse_remaps

    def plan(recording: Recording) -> list[PlannedSeeds]:
        return [] if args.no_seeds else read_plan(args, recording)

    remaps = parse_remaps(args.remap)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(ReplaySource(args.input, args.image_topic))
        # Before the replay, which resets the node: a bad destination must not cost its objects.
        output = stack.enter_context(_output(args, source.recording.rate)) if args.out is not None else None
        frames = stack.enter_context(
            replay(
                source,
                args.node,
                plan=plan,
                remaps=remaps,
                rate=args.rate,
                clock=args.clock,
                keep=args.keep,
                timeout=args.timeout,
            )
        )
        ages = _write_frames(frames, output)
    _print_report(args, frames.report, ages)
    if not frames.report.tracked:
        raise BagError(f'{args.input}: no image was tracked; the reasons are above')
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raise `ParameterError` if ROS is not installed, or for contradicting options."""
    from xmem_ros.errors import ParameterError

    check_installed('the replay')
    if args.formats and args.out is None:
        raise ParameterError('--format requires --out; give both or neither')
    if args.no_seeds and (args.seed or args.box or args.seeds_topic):
        raise ParameterError('--no-seeds excludes --seed, --box and --seeds-topic; omit one or the other')


def _output(args: argparse.Namespace, rate: float) -> ReplayOutput:
    """Open the results; `rate`: images/s of the recording."""
    from xmem_ros.replay.output import ReplayOutput

    return ReplayOutput(args.out, args.formats or ['png'], f'/{args.node.strip("/")}', rate)


def _write_frames(frames: Replay, output: ReplayOutput | None) -> list[float]:
    """Run the replay and write its results; returns the age of each mask, ms."""
    from xmem_ros.progress import Bar

    ages = []
    with Bar(total=frames.length, unit='image', desc='replaying') as bar:
        for frame in frames:
            ages.append(frame.age_ms)
            if output is not None:
                output.write(frame)
            bar.update(frames.report.images - bar.n)
    return ages


def _print_report(args: argparse.Namespace, report: Report, ages: list[float]) -> None:
    """Print the summary to stdout and warnings to stderr."""
    median = f'; from image to masks {sorted(ages)[len(ages) // 2]:.0f} ms (median)' if ages else ''
    written = f'; {args.out}' if args.out is not None else ''
    foreign = [f'{topic} is not published: {report.left_out[topic]}' for topic in sorted(report.foreign)]
    kept: dict[str, list[str]] = {}
    for topic, why in report.left_out.items():
        if topic not in report.foreign:
            kept.setdefault(why, []).append(topic)
    for why, topics in kept.items():
        more = f' and {len(topics) - MAX_WARNINGS} more' if len(topics) > MAX_WARNINGS else ''
        say(f'not published: {", ".join(topics[:MAX_WARNINGS])}{more}: {why}')
    say(f'{report.tracked} of {report.images} images tracked on {report.topic}{median}{written}')
    dropped = [f'image {item.index} was left out: {item.reason}' for item in report.dropped]
    warn('replay', [report.damage] if report.damage else [], dropped, report.missed, foreign)
