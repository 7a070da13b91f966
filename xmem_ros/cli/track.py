# SPDX-License-Identifier: MIT
"""`xmem-ros track`: track objects through a bag, a video, a folder of images or a stream."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmem_ros.cli.arguments import add_tracker_arguments
from xmem_ros.cli.output import warn
from xmem_ros.cli.seed_arguments import add_seed_arguments, given_plan, read_plan
from xmem_ros.cli.stream_input import add_stream_arguments, record_input, write_first_image
from xmem_ros.outside_text import say

if TYPE_CHECKING:
    from xmem_ros.offline.job import Report
    from xmem_ros.parameters.table import Parameters
    from xmem_ros.recordings.recording import Recording
    from xmem_ros.recordings.seed_plan import PlannedSeeds
    from xmem_ros.video.address import StreamAddress

FORMATS = ('bag', 'png', 'coco', 'ytvos', 'yolo', 'labelme', 'mots', 'overlay')  # as in xmem_ros.offline.job
OVERLAY = 'overlay.mp4'
EPILOG = """\
Seed masks are palette, grey or one-bit PNGs of the size of the images. 0 is background, 255 void,
and every other value an object; a mask of only 0 and 255 is one object with the value 1. Result masks
have the values of the seed mask.

A stream is recorded to DIR.mkv first; Ctrl-C ends the recording. Then that file is tracked.

An interrupted run continues when the same command is given again, with DIR.mkv for a stream.

examples:
  xmem-ros track clip.mp4 --seed first.png --out masks --overlay
  xmem-ros track frames/ --box cup=120,80,60,90 --out masks
  xmem-ros track clip.mp4 --seed mask.png --at 200 --both-ways --out masks
  xmem-ros track my_bag --out tracked              # with the recorded seeds
  xmem-ros track rtsp://camera/stream --duration 30 --box cup=120,80,60,90 --out masks

More: docs/bags.md
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command to `xmem-ros`."""
    parser = commands.add_parser(
        'track',
        help='track objects through a bag, a video, a folder of images or a stream',
        description='Track objects through every image of a ROS 2 bag, a video, a folder or a stream. Needs no running '
        'ROS.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'input',
        metavar='BAG|VIDEO|FOLDER|STREAM',
        help='a bag (folder, .mcap or .db3 file), a video file, a folder of images in the order of their names, or a '
        'stream: a URL (rtsp://…, http://…), a camera index (0, or /dev/video0), or - for a video on standard input',
    )
    add_stream_arguments(parser)
    parser.add_argument('--image-topic', default='', metavar='TOPIC', help='image topic, if a bag has several')
    add_seed_arguments(parser)
    output = parser.add_argument_group('results')
    output.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder for the results; new or empty')
    output.add_argument(
        '--format',
        action='append',
        default=[],
        choices=FORMATS,
        dest='formats',
        help="bag: DIR/bag with the node's topics and the recorded ones; png: a palette PNG for each image; coco: "
        'DIR/coco.json; ytvos: DIR/ytvos in the layout of YouTube-VOS; yolo, labelme: DIR/yolo, DIR/labelme for these '
        'tools; mots: DIR/mots.txt of MOTChallenge; overlay: DIR/overlay.mp4; repeat it for several formats (default: '
        'bag for a bag, else png)',
    )
    output.add_argument('--overlay', action='store_true', help='write DIR/overlay.mp4 in addition to the other formats')
    output.add_argument('--only-ours', action='store_true', help='omit the recorded topics from the bag')
    output.add_argument(
        '--labels',
        choices=('raw', 'png'),
        default='raw',
        help='encoding of the label images in the bag (default: %(default)s)',
    )
    output.add_argument(
        '--node',
        default='',
        metavar='NAME',
        help='name of the node, for topics and parameters (default: the node of the recorded seeds, or /xmem)',
    )
    output.add_argument(
        '--segment',
        type=_segment,
        default=300,
        metavar='N',
        help='images between checkpoints of an interrupted run (default: %(default)s)',
    )
    output.add_argument('--restart', action='store_true', help='discard an interrupted run')
    tracker = parser.add_argument_group('tracker')
    tracker.add_argument(
        '--both-ways',
        action='store_true',
        help='also track backwards: from the first seed to the beginning, and between the seeds of an object; '
        'takes up to twice as long',
    )
    tracker.add_argument(
        '--params',
        type=Path,
        metavar='FILE',
        help='parameter file of the node, such as config/track.yaml; the options below override it',
    )
    add_tracker_arguments(tracker, defaults=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; returns the exit code."""
    from xmem_ros.errors import ParameterError
    from xmem_ros.offline.destination import check_destination, resolved, work_folder_of
    from xmem_ros.offline.job import Job
    from xmem_ros.recordings.recording import open_recording
    from xmem_ros.video.address import stream_address
    from xmem_ros.weights.files import find_weights

    out = resolved(args.out)
    check_destination(out)
    address = stream_address(args.input)
    if address is None and args.duration is not None:
        raise ParameterError(f'{args.input}: not a stream; --duration is for what is recorded first, so omit it')
    path = Path(args.input) if address is None else _record(args, address, out)
    with open_recording(path, args.image_topic) as recording:
        plan = read_plan(args, recording)
        default = 'bag' if recording.image_topic else 'png'
        wanted = {*(args.formats or [default]), *(['overlay'] if args.overlay else [])}
        formats = tuple(name for name in FORMATS if name in wanted)
        _check_bag_options(args, formats)
        node = _node(args, recording, plan)
        parameters = _parameters(args, recording, plan, node)
        find_weights(parameters.weights)
        from xmem_ros.offline.run import run as run_job  # imports torch, which takes seconds

        job = Job(
            out,
            formats,
            node,
            args.only_ours,
            args.labels == 'png',
            args.segment,
            restart=args.restart,
            both_ways=args.both_ways,
        )
        try:
            report = run_job(recording, plan, parameters, job)
        except KeyboardInterrupt:
            if work_folder_of(out).exists():
                same = 'the same command again' if address is None else f'the same command with {path} for the stream'
                say(f'{out}: not finished; give {same} to continue', file=sys.stderr)
            raise
    _print_report(report, out, formats)
    return 0


def _record(args: argparse.Namespace, address: StreamAddress, out: Path) -> Path:
    """Record a stream, after all checks that need no image; returns the recording."""
    from xmem_ros.errors import ParameterError, SeedError
    from xmem_ros.weights.files import find_weights

    if args.image_topic:
        raise ParameterError(f'{address}: a stream, so it has no topic {args.image_topic}; omit --image-topic')
    plan = given_plan(args)
    _check_bag_options(args, tuple(args.formats))
    if args.weights is not None:
        find_weights(args.weights)
    path = record_input('track', address, out, args.duration)
    if not plan:
        image = write_first_image(path, out)
        raise SeedError(
            f'{path}: no seeds were given; draw a mask on its first image, {image}, and give this file instead of the '
            f'stream: xmem-ros track {path} --seed MASK --out {out}'
        )
    return path


def _check_bag_options(args: argparse.Namespace, formats: tuple[str, ...]) -> None:
    from xmem_ros.errors import ParameterError

    if (args.only_ours or args.labels != 'raw') and 'bag' not in formats:
        raise ParameterError(f'--only-ours and --labels require --format bag; given: {", ".join(formats)}')


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
            raise SeedError(f'the seeds have {count} objects; the maximum is {MOST_OBJECTS}: remove some')
        given['max_objects'] = min(max(count, 1), MOST_OBJECTS)
        given['report_unsure'] = not recording.image_topic  # results of a video include unsure masks
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
        name, _, end = topic.rpartition('/')
        name = name if end in ('events', 'seeds') else ''
    name = f'/{(name or "xmem").strip("/")}'
    if not re.fullmatch('(/[A-Za-z_][A-Za-z0-9_]*)+', name):
        raise ParameterError(f'--node {args.node!r} is not a node name; give letters, digits and _, as in /front/xmem')
    return name


def _segment(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of images; give 1 to 1000000')
    return int(text)


def _print_report(report: Report, out: Path, formats: tuple[str, ...]) -> None:
    """Print the summary to stdout and warnings to stderr."""
    places = {'bag': 'bag', 'coco': 'coco.json', 'ytvos': 'ytvos', 'overlay': OVERLAY}
    places |= {'yolo': 'yolo', 'labelme': 'labelme', 'mots': 'mots.txt'}
    parts = [str(out / places[name]) for name in formats if name in places]
    if 'png' in formats:
        say(f'{out}: {report.tracked} masks{"".join(f", and {part}" for part in parts)}')
    else:
        say(f'{report.tracked} images tracked: {", ".join(parts)}')
    from xmem_ros.offline.tracking import UNTRACKED

    notes = [f'{note} (--both-ways tracks backwards)' if note.endswith(UNTRACKED) else note for note in report.notes]
    faults = [f'image {fault.index} was left out: {fault.reason}' for fault in report.faults]
    undefined = [f'{name} was copied without its definition, which the bag does not have' for name in report.undefined]
    warn('track', [report.damage] if report.damage else [], faults, report.missed, notes, undefined)
