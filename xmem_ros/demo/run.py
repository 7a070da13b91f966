# SPDX-License-Identifier: MIT
"""`make demo`: a camera process plays a clip, the node tracks it, and the results are measured."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import rclpy

from xmem_ros import work_folder
from xmem_ros.child_process import Child, ProcessError, uninterrupted
from xmem_ros.demo.recorder import Recorder
from xmem_ros.demo.report import ClipResult, Report
from xmem_ros.demo.source import CLIP_VARIABLE, SCENE, Source, frame_count, frame_rate
from xmem_ros.demo.truth import box_seed, mask_seeds, scene_seeds
from xmem_ros.errors import ParameterError, Setting, XMemError, with_setting
from xmem_ros.outside_text import for_terminal, say
from xmem_ros.progress import Bar
from xmem_ros.threads import wait_asleep
from xmem_ros.video.address import PIPE, stream_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from xmem_ros.demo.truth import DemoSeed, Truth

TOPIC = '/camera/image'
FRAME_ID = 'camera'
NODE_MODULE, CAMERA_MODULE = 'xmem_ros.node.main', 'xmem_ros.demo.camera'
START_S = 180.0  # the first import of torch from a slow disk is slow
STREAM_FRAMES = 150
CAMERA_FILE = 'camera.mp4'  # what the camera published of a stream
QUIET_S = 3.0  # silence after the end of the clip that means: all results have arrived


def isolate() -> None:
    """Restrict ROS to this machine and a domain of its own, unless the environment sets them."""
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    if os.environ.get('ROS_DISTRO') == 'humble':  # which has another variable
        os.environ.setdefault('ROS_LOCALHOST_ONLY', '1')
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))


def demonstrate(args: argparse.Namespace) -> Report:
    """Run the demonstration and write its files; returns the figures.

    Raises:
        XMemError: the clip or a seed cannot be used, or a process failed.
    """
    address = stream_address(args.video or SCENE)
    length = args.frames or STREAM_FRAMES
    if address is None:
        source = Source(args.video or SCENE, frames=args.frames, rate=args.rate)
        length = len(source)
        seeds, truth = _seeds_of(args, source)
    else:
        seeds, truth = _stream_seeds(args), lambda _: {}
    work_folder.fresh(args.out, 'a demonstration')
    stamps = args.out / 'stamps.txt'
    with ExitStack() as stack:
        say('starting the node …')
        with uninterrupted():
            node = stack.enter_context(Child(NODE_MODULE, _node_arguments(args), args.out / 'node.log'))
            recorder = stack.enter_context(Recorder())
        options = ['--frames', str(length), '--rate', str(args.rate)]
        options += [] if address is None else ['--save', str(args.out / CAMERA_FILE)]
        options += ['--topic', TOPIC, '--frame-id', FRAME_ID, '--hold', '--wait-for-subscriber', '--log', str(stamps)]
        clip = {CLIP_VARIABLE: args.video or SCENE}  # other users can see options, and a password in them
        log = args.out / 'camera.log'
        with uninterrupted():
            camera = stack.enter_context(Child(CAMERA_MODULE, options, log, stdin=args.video == PIPE, variables=clip))
        ids, labels = _seed(recorder, seeds, node, camera)
        named = ', '.join(f'{seed.name} = id {key}' for seed, key in zip(seeds, ids, strict=True))
        say(f'seeded: {named}')
        if camera.exit_code is not None:  # a clip waits for its start
            raise ProcessError(
                'the stream ended before the node had seeded the object; give one that goes on, such as a pipe from '
                f'ffmpeg -re; the end of {camera.log}:\n{camera.tail()}'
            )
        recorder.start_camera()
        _record(recorder, node, camera, stamps, length, progress=not args.quiet)
        recorded = recorder.recorded
    if address is not None:
        source = Source(str(args.out / CAMERA_FILE))
    index_of = _read_stamps(stamps)
    tracked = {}
    for stamp, result in recorded.items():
        index = index_of.get(stamp, -1)
        if index >= 0:
            tracked[index] = ClipResult(result.objects or [], result.decode, (result.published_ns - stamp) / 1e6)
    if not tracked:
        raise ProcessError(f'the node published no result of the clip; the end of {node.log}:\n{node.tail()}')
    played = [stamp for stamp, index in index_of.items() if index >= 0]
    span = (max(played) - min(played)) / 1e9
    report = Report(
        published=len(played),
        rate=(len(played) - 1) / span if span else source.rate,
        ids=ids,
        labels=labels,
        names=[seed.name for seed in seeds],
        tracked=tracked,
    )
    frames = (frame for _, frame in source)
    report.draw(frames, truth, args.out, time_s=source.time_s, progress=not args.quiet)
    return report


def _seeds_of(args: argparse.Namespace, source: Source) -> tuple[list[DemoSeed], Callable[[int], Truth]]:
    """Return the seeds of the first frame, and a function: frame index → truth."""
    if source.scene:
        if args.box or args.mask:
            raise ParameterError('the rendered scene has its own seeds; give a box or a mask only with a video')
        return scene_seeds(source.scene)
    if bool(args.box) == bool(args.mask):
        raise ParameterError(
            'give a seed for the first frame: either a box (BOX=x,y,width,height) or a mask (MASK=file.png)'
        )
    _, frame = next(iter(source))
    if args.box:
        return [box_seed(args.box, frame)], lambda _: {}
    return mask_seeds(args.mask, frame, source.stems)


def _stream_seeds(args: argparse.Namespace) -> list[DemoSeed]:
    """Return the seed of a stream's newest image, when the node is ready."""
    if args.mask or not args.box:
        raise ParameterError('give a box for a stream (BOX=x,y,width,height), and hold the object there at the start')
    return [box_seed(args.box)]


def _node_arguments(args: argparse.Namespace) -> list[str]:
    options = ['--ros-args', '-r', f'image:={TOPIC}']
    for name in ('weights', 'device', 'size'):
        value = getattr(args, name)
        if value not in ('', None):
            options += ['-p', f'{name}:={value}']
    return options


def _seed(recorder: Recorder, seeds: list[DemoSeed], node: Child, camera: Child) -> tuple[list[int], list[int]]:
    """Wait for the node's first message, then seed the held frame; returns ids and labels."""

    def check() -> None:
        node.check_running()
        camera.check_running()

    if not recorder.wait_for(lambda: bool(recorder.recorded), START_S, check):
        raise ProcessError(f'the node published nothing within {START_S:g} s; the end of {node.log}:\n{node.tail()}')
    return recorder.seed(seeds, FRAME_ID)


def _record(recorder: Recorder, node: Child, camera: Child, stamps: Path, length: int, *, progress: bool) -> None:
    """Wait for the end of the clip and of the node's results."""
    with Bar(total=length, desc='camera', unit='frame', disable=not progress) as bar:
        results = begin = len(recorder.recorded)
        last = time.monotonic()
        while camera.exit_code is None or time.monotonic() - last < QUIET_S:
            node.check_running()
            if camera.exit_code:
                camera.check_running()
            now = len(recorder.recorded)
            if camera.exit_code is None or now > results:
                last = time.monotonic()
            results = now
            bar.update(sum(index >= 0 for index in _read_stamps(stamps).values()) - bar.n)
            bar.set_postfix(results=results - begin)
            time.sleep(0.1)


def _read_stamps(path: Path) -> dict[int, int]:
    """Read the camera's log: stamp, ns → index in the clip, -1 while held."""
    complete, _, _ = path.read_text().rpartition('\n')  # the last line may be incomplete
    lines = (line.split() for line in complete.splitlines())
    return {int(stamp): int(index) for stamp, index in lines}


def make_parser() -> argparse.ArgumentParser:
    """Build the command line's parser."""
    parser = argparse.ArgumentParser(prog='make demo', description='Track objects of a clip through the real node.')
    parser.add_argument(
        '--video',
        default='',
        metavar='PATH|STREAM',
        help='video file, folder of images, or a live stream: a URL (rtsp://…, http://…), a camera index (0), or - for '
        'standard input (default: a rendered scene)',
    )
    parser.add_argument('--box', default='', metavar='X,Y,W,H', help='box around an object in the first frame, px')
    parser.add_argument(
        '--mask',
        type=Path,
        metavar='FILE',
        help='mask of the first frame (PNG); masks of later frames in the same folder are the ground truth',
    )
    parser.add_argument(
        '--frames',
        type=frame_count,
        default=0,
        metavar='N',
        help=f'track only the first N frames (default: all; of a stream {STREAM_FRAMES})',
    )
    parser.add_argument(
        '--rate', type=frame_rate, default=0.0, metavar='R', help="frames/s (default: the clip's own; a folder: 30)"
    )
    parser.add_argument('--weights', default='', metavar='NAME|FILE', help='parameter weights of the node')
    parser.add_argument('--device', default='', metavar='DEVICE', help='parameter device of the node')
    parser.add_argument('--size', type=int, metavar='PX', help='parameter size of the node')
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('demo/out'),
        metavar='DIR',
        help='folder for the results (default: %(default)s)',
    )
    parser.add_argument('--quiet', action='store_true', help='show no progress bars')
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration; returns exit code 0, 2 after an error, or 130 when interrupted."""
    args = make_parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    isolate()
    wait_asleep()
    rclpy.init(args=[], signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    try:
        report = demonstrate(args)
    except (XMemError, OSError) as error:
        text = with_setting(error, {Setting.DESTINATION: '--out'})
        say(f'demo: error: {for_terminal(text)}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        say('demo: interrupted', file=sys.stderr)
        return 130
    finally:
        rclpy.try_shutdown()
    say(f'\n{report.table()}\n')
    say(f'{args.out / "overlay.mp4"}  {args.out / "frames.png"}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
