# SPDX-License-Identifier: MIT
"""`xmem-ros track`: follow objects through a bag, a video or a folder of frames."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmem_ros.cli.arguments import add_tracker_arguments
from xmem_ros.cli.seed_arguments import add_seed_arguments, read_plan
from xmem_ros.outside_text import for_terminal, say

if TYPE_CHECKING:
    from xmem_ros.offline.job import Report
    from xmem_ros.parameters.table import Parameters
    from xmem_ros.recordings.recording import Recording
    from xmem_ros.recordings.seed_plan import PlannedSeeds

FORMATS = ('bag', 'png', 'coco', 'ytvos', 'overlay')  # as in xmem_ros.offline.job, which imports torch
OVERLAY = 'overlay.mp4'
MOST_TOLD = 5  # of many warnings of a kind


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command to `xmem-ros`."""
    parser = commands.add_parser(
        'track',
        help='follow objects through a bag, a video or a folder of frames',
        description='Follow objects through every image of a ROS 2 bag, a video or a folder of frames, without a ROS '
        'graph. A run that was interrupted goes on when the same command is given again. docs/bags.md says more.',
        epilog="Seed mask: a palette, grey or one-bit PNG of the images' size. 0 is background, every other value an "
        'object of its own; 255 is void, but for a mask of only 0 and 255, whose one object gets the value 1. Masks '
        "that are written have the values of the seed mask's objects.",
    )
    parser.add_argument(
        'input',
        type=Path,
        metavar='BAG|VIDEO|FOLDER',
        help="a bag's folder or its .mcap or .db3 file, a video file, or frames in the order of their names",
    )
    parser.add_argument('--image-topic', default='', metavar='TOPIC', help='where a bag has images on several topics')
    add_seed_arguments(parser)
    output = parser.add_argument_group('results')
    output.add_argument(
        '--out', type=Path, required=True, metavar='DIR', help='new or empty folder; appears once it is whole'
    )
    output.add_argument(
        '--format',
        action='append',
        default=[],
        choices=FORMATS,
        dest='formats',
        help='bag: DIR/bag, topics of the node among the recorded ones; png: a palette mask for each image; coco: '
        'DIR/coco.json; ytvos: DIR/ytvos in the layout of YouTube-VOS; overlay: DIR/overlay.mp4. May be given several '
        'times (default: bag for a bag, else png)',
    )
    output.add_argument('--overlay', action='store_true', help=f'write DIR/{OVERLAY} too, as --format overlay')
    output.add_argument('--only-ours', action='store_true', help='leave the recorded topics out of the bag')
    output.add_argument(
        '--labels', choices=('raw', 'png'), default='raw', help='label images of the bag (default: %(default)s)'
    )
    output.add_argument(
        '--node',
        default='',
        metavar='NAME',
        help='whose topics and parameters (default: that of recorded seeds, or /xmem)',
    )
    output.add_argument(
        '--segment',
        type=_segment,
        default=300,
        metavar='N',
        help='images after which what is done survives an interruption (default: %(default)s)',
    )
    output.add_argument('--restart', action='store_true', help='forget what an interrupted run has done')
    parser.add_argument(
        '--params', type=Path, metavar='FILE', help='parameters of the node, as config/track.yaml; those below win'
    )
    add_tracker_arguments(parser, defaults=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; returns the exit code."""
    from xmem_ros.offline.destination import check_out, part_of, resolved
    from xmem_ros.offline.job import Job
    from xmem_ros.offline.run import run as run_job
    from xmem_ros.recordings.recording import open_recording

    out = resolved(args.out)
    check_out(out)
    with open_recording(args.input, args.image_topic) as recording:
        plan = read_plan(args, recording)
        default = 'bag' if recording.image_topic else 'png'
        wanted = {*(args.formats or [default]), *(['overlay'] if args.overlay else [])}
        formats = tuple(name for name in FORMATS if name in wanted)
        _check_bag_options(args, formats)
        node = _node(args, recording, plan)
        parameters = _parameters(args, recording, plan, node)
        job = Job(out, formats, node, args.only_ours, args.labels == 'png', args.segment, restart=args.restart)
        try:
            report = run_job(recording, plan, parameters, job)
        except KeyboardInterrupt:
            if part_of(out).exists():
                say(f'{out}: not written; the same command goes on where this one stopped', file=sys.stderr)
            raise
    _tell(report, out, formats)
    return 0


def _check_bag_options(args: argparse.Namespace, formats: tuple[str, ...]) -> None:
    from xmem_ros.errors import ParameterError

    if (args.only_ours or args.labels != 'raw') and 'bag' not in formats:
        raise ParameterError(f'--only-ours and --labels are of --format bag; asked for: {", ".join(formats)}')


def _parameters(args: argparse.Namespace, recording: Recording, plan: list[PlannedSeeds], node: str) -> Parameters:
    from xmem_ros.errors import SeedError
    from xmem_ros.objects import MOST_OBJECTS
    from xmem_ros.parameters.table import Parameters, changed
    from xmem_ros.parameters.yaml_file import read_parameters
    from xmem_ros.recordings.seed_plan import new_objects

    given: dict[str, Any] = {}
    if args.params is not None:
        parameters = read_parameters(args.params, node)
    else:
        parameters = Parameters()
        count = new_objects(plan)
        if count > MOST_OBJECTS and not plan[0].recorded:
            raise SeedError(f'the seeds show {count} objects; at most {MOST_OBJECTS} can be followed at a time')
        given['max_objects'] = min(max(count, 1), MOST_OBJECTS)
        given['report_unsure'] = not recording.image_topic  # masks of a film show what is guessed, too; a node does not
    for name in ('weights', 'size', 'device'):
        if getattr(args, name) is not None:
            given[name] = getattr(args, name)
    return changed(parameters, given)


def _node(args: argparse.Namespace, recording: Recording, plan: list[PlannedSeeds]) -> str:
    from xmem_ros.errors import ParameterError
    from xmem_ros.recordings.recording import BagRecording
    from xmem_ros.recordings.seed_plan import seeds_connection

    name = args.node
    if not name and isinstance(recording, BagRecording) and plan and plan[0].recorded:
        topic = seeds_connection(recording, args.seeds_topic).topic
        name = topic.removesuffix('/seeds') if topic.endswith('/seeds') else ''
    name = f'/{(name or "xmem").strip("/")}'
    if not re.fullmatch('(/[A-Za-z_][A-Za-z0-9_]*)+', name):
        raise ParameterError(
            f'--node {args.node!r} is no name of a node; allowed are letters, digits and _, as in /front/xmem'
        )
    return name


def _segment(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of images from 1 to 1000000')
    return int(text)


def _tell(report: Report, out: Path, formats: tuple[str, ...]) -> None:
    """What was written goes to stdout, what is amiss to stderr."""
    places = {'bag': 'bag', 'coco': 'coco.json', 'ytvos': 'ytvos', 'overlay': OVERLAY}
    parts = [str(out / places[name]) for name in formats if name in places]
    if 'png' in formats:
        say(f'{out}: {report.tracked} masks{"".join(f", and {part}" for part in parts)}')
    else:
        say(f'{report.tracked} images tracked: {", ".join(parts)}')
    faults = [f'image {fault.index} was left out: {fault.reason}' for fault in report.faults]
    undefined = [f'{name} is copied without its definition, which the bag does not hold' for name in report.undefined]
    for told in ([report.damage] if report.damage else [], faults, report.missed, report.notes, undefined):
        for text in told[:MOST_TOLD]:
            say(f'xmem-ros track: warning: {for_terminal(text)}', file=sys.stderr)
        if len(told) > MOST_TOLD:
            say(f'xmem-ros track: warning: … and {len(told) - MOST_TOLD} more like this', file=sys.stderr)
