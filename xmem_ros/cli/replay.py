# SPDX-License-Identifier: MIT
"""`xmem-ros replay`: a bag into the live node, image by image."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from xmem_ros.cli.seed_arguments import add_seed_arguments, read_plan
from xmem_ros.outside_text import for_terminal, say

if TYPE_CHECKING:
    from xmem_ros.recordings.recording import Recording
    from xmem_ros.recordings.seed_plan import PlannedSeeds
    from xmem_ros.replay.lockstep import Replay, Report
    from xmem_ros.replay.output import LiveOutput

FORMATS = ('bag', 'png', 'overlay')
TIMEOUT_S = 60.0  # as in xmem_ros.replay.lockstep, which imports rclpy
MOST_TOLD = 5  # of many warnings of a kind


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command to `xmem-ros`."""
    parser = commands.add_parser(
        'replay',
        help='replay a bag into the live node, no image lost (needs ROS)',
        description='Publish a ROS 2 bag, and wait after each image for the masks of that very image: so every image '
        'is tracked, however slow the machine is, by the node as it runs on the robot. docs/bags.md says more.',
        epilog='The node is reset first, unless --keep is given. What the tracker published when the bag was recorded '
        'stays in the bag; so do topics of types that are not installed, which are named.',
    )
    parser.add_argument(
        'input',
        type=Path,
        metavar='BAG|VIDEO|FOLDER',
        help="a bag's folder or its .mcap or .db3 file, a video file, or frames in the order of their names",
    )
    parser.add_argument('--node', default='/xmem', metavar='NAME', help="the tracker's node (default: %(default)s)")
    parser.add_argument('--image-topic', default='', metavar='TOPIC', help='where a bag has images on several topics')
    add_seed_arguments(parser)
    parser.add_argument('--no-seeds', action='store_true', help='show the node none: somebody else does')
    parser.add_argument(
        '--remap',
        action='append',
        default=[],
        metavar='FROM:=TO',
        help='publish a topic of the bag under another name; the images go to where the node listens anyway',
    )
    parser.add_argument(
        '--rate', type=float, default=0.0, metavar='R', help='at most R times as fast as recorded (default: no limit)'
    )
    parser.add_argument('--clock', action='store_true', help='publish the times of the bag on /clock')
    parser.add_argument('--keep', action='store_true', help='go on with the objects that the node has')
    parser.add_argument(
        '--timeout',
        type=float,
        default=TIMEOUT_S,
        metavar='S',
        help='longest wait for the node, and for the masks of one image (default: %(default)g s)',
    )
    parser.add_argument('--out', type=Path, metavar='DIR', help='new or empty folder; appears once it is whole')
    parser.add_argument(
        '--format',
        action='append',
        default=[],
        choices=FORMATS,
        dest='formats',
        help="bag: DIR/bag, the node's topics; png: a palette mask for each image; overlay: DIR/overlay.mp4. May be "
        'given several times (default: png)',
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; returns the exit code."""
    _check(args)
    from xmem_ros.replay.lockstep import replay
    from xmem_ros.replay.source import LiveSource
    from xmem_ros.replay.topics import parse_remaps

    def plan(recording: Recording) -> list[PlannedSeeds]:
        return [] if args.no_seeds else read_plan(args, recording)

    remaps = parse_remaps(args.remap)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(LiveSource(args.input, args.image_topic))
        # Before the replay, which resets the node: that is not to happen for a destination that will not do.
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
        ages = _follow(frames, output)
    _tell(args, frames.report, ages)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raise `ParameterError` where something is not installed that is needed, or arguments do not go together."""
    from xmem_ros.errors import ParameterError

    for module, remedy in (
        ('rclpy', 'source the setup.bash of a ROS 2 and of the workspace with xmem_ros'),
        ('xmem_ros.msg', 'build the package (colcon build, or make build) and source its setup.bash'),
    ):
        if importlib.util.find_spec(module) is None:
            raise ParameterError(f'the replay needs {module}, which is not installed here: {remedy}')
    if args.formats and args.out is None:
        raise ParameterError('--format says what is written, and --out is not given: give both or neither')
    if args.no_seeds and (args.seed or args.box or args.seeds_topic):
        raise ParameterError('--no-seeds goes without --seed, --box and --seeds-topic')


def _output(args: argparse.Namespace, rate: float) -> LiveOutput:
    """Where results go; rate: images a second of the recording."""
    from xmem_ros.replay.output import LiveOutput

    return LiveOutput(args.out, args.formats or ['png'], f'/{args.node.strip("/")}', rate)


def _follow(frames: Replay, output: LiveOutput | None) -> list[float]:
    """Go through the replay; returns the age of each mask [ms]."""
    from xmem_ros.progress import Bar

    ages = []
    with Bar(total=frames.length, unit='image', desc='replaying') as bar:
        for frame in frames:
            ages.append(frame.age_ms)
            if output is not None:
                output.write(frame)
            bar.update(frames.report.images - bar.n)
    return ages


def _tell(args: argparse.Namespace, report: Report, ages: list[float]) -> None:
    """What was done goes to stdout, what is amiss to stderr."""
    median = f'; from image to masks {sorted(ages)[len(ages) // 2]:.0f} ms (median)' if ages else ''
    written = f'; {args.out}' if args.out is not None else ''
    foreign = [f'{topic} is not published: {why}' for topic, why in report.left_out.items() if 'installed' in why]
    kept: dict[str, list[str]] = {}
    for topic, why in report.left_out.items():
        if 'installed' not in why:
            kept.setdefault(why, []).append(topic)
    for why, topics in kept.items():
        more = f' and {len(topics) - MOST_TOLD} more' if len(topics) > MOST_TOLD else ''
        say(f'not published: {", ".join(topics[:MOST_TOLD])}{more}: {why}')
    say(f'{report.tracked} of {report.images} images tracked on {report.topic}{median}{written}')
    dropped = [f'image {item.index} was left out: {item.reason}' for item in report.dropped]
    for told in ([report.damage] if report.damage else [], dropped, report.missed, foreign):
        for text in told[:MOST_TOLD]:
            say(f'xmem-ros replay: warning: {for_terminal(text)}', file=sys.stderr)
        if len(told) > MOST_TOLD:
            say(f'xmem-ros replay: warning: … and {len(told) - MOST_TOLD} more like this', file=sys.stderr)
