# SPDX-License-Identifier: MIT
"""`xmem-ros replay`: a bag into the live node, image by image."""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xmem_ros.bags.lockstep import Replay, Report

MOST_NAMED = 10  # dropped images


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command to `xmem-ros`."""
    parser = commands.add_parser(
        'replay',
        help='replay a bag into the live node, none of its images lost (needs ROS)',
        description='Publish a bag, and wait after each image for the masks of that very image: so every image is '
        'tracked, however slow the machine is. Seeds are shown to the node with the image that they belong to.',
        epilog='What the tracker published when the bag was recorded stays in the bag. The node is reset first, unless '
        '--keep is given.',
    )
    parser.add_argument('bag', type=Path, metavar='BAG', help='folder of a bag, or an .mcap or .db3 file')
    parser.add_argument('--node', default='/xmem', help="the tracker's node (default: %(default)s)")
    parser.add_argument('--image-topic', default='', metavar='TOPIC', help='of the images, where the bag has several')
    parser.add_argument(
        '--remap', action='append', default=[], metavar='FROM:=TO', help='publish a topic of the bag under another name'
    )
    parser.add_argument(
        '--seed', type=Path, metavar='MASK', help='the objects in the first image: a palette, grey or one-bit PNG'
    )
    parser.add_argument(
        '--rate', type=float, default=0.0, metavar='R', help='at most R times as fast as recorded (default: no limit)'
    )
    parser.add_argument('--clock', action='store_true', help='publish the times of the bag on /clock')
    parser.add_argument('--keep', action='store_true', help='go on with the objects that the node has')
    parser.add_argument(
        '--timeout', type=float, default=60.0, metavar='S', help='longest wait for one image (default: %(default)g s)'
    )
    parser.add_argument('--out', type=Path, metavar='DIR', help='new or empty folder for the masks, as palette PNGs')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; returns the exit code."""
    check_installed()
    from xmem_ros.bags.live_topics import parse_remaps
    from xmem_ros.bags.lockstep import replay

    part = _make_part(args.out)
    try:
        with replay(
            args.bag,
            args.node,
            image_topic=args.image_topic,
            plan=plan,
            remaps=parse_remaps(args.remap),
            rate=args.rate,
            clock=args.clock,
            keep=args.keep,
            timeout=args.timeout,
        ) as frames:
            _say_what_is_left_out(frames.report)
            ages = _follow(frames, part)
        if part is not None:
            if args.out.exists():
                args.out.rmdir()
            part.rename(args.out)
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
    _summarise(args, frames.report, ages)
    return 0


def check_installed() -> None:
    """Raise `ParameterError` where something is not installed that a live replay needs."""
    from xmem_ros.errors import ParameterError

    for module, remedy in (
        ('rclpy', 'source the setup.bash of a ROS 2 and of the workspace with xmem_ros'),
        ('xmem_ros.msg', 'build the package (colcon build, or make build) and source its setup.bash'),
        ('rosbags', "pip install rosbags, or pip install 'xmem_ros[bags]'"),
    ):
        if importlib.util.find_spec(module) is None:
            raise ParameterError(f'the replay needs {module}, which is not installed here: {remedy}')


def _make_part(out: Path | None) -> Path | None:
    """The folder that is to become `out`."""
    from xmem_ros.errors import ParameterError

    if out is None:
        return None
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ParameterError(f'{out}: is there already and not an empty folder; choose another --out or remove it')
    part = out.resolve().with_name(f'.{out.resolve().name}.part')
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    return part


def _follow(frames: Replay, folder: Path | None) -> list[float]:
    """Go through the replay, write masks into a folder; returns the age of each [ms]."""
    from xmem_ros.media import write_labels
    from xmem_ros.progress import Bar

    ages = []
    with Bar(total=frames.length, unit='image') as bar:
        for frame in frames:
            ages.append(frame.age_ms)
            bar.update(frames.report.images - bar.n)
            if folder is not None:
                write_labels(folder / f'{frame.stamp_ns}.png', frame.labels.copy())
    return ages


def _say_what_is_left_out(report: Report) -> None:
    missing = {topic: why for topic, why in report.left_out.items() if why.endswith('not installed')}
    for topic, why in sorted(missing.items()):
        print(f'xmem-ros replay: {topic} is not published: {why}', file=sys.stderr)


def _summarise(args: argparse.Namespace, report: Report, ages: list[float]) -> None:
    for item in report.dropped[:MOST_NAMED]:
        stamp = '' if item.stamp_ns is None else f' of stamp {item.stamp_ns / 1e9:.9f}'
        print(f'xmem-ros replay: image {item.index}{stamp}: {item.reason}', file=sys.stderr)
    if len(report.dropped) > MOST_NAMED:
        print(f'xmem-ros replay: … {len(report.dropped)} dropped images in all', file=sys.stderr)
    if report.damage:
        print(f'xmem-ros replay: warning: {report.damage}', file=sys.stderr)
    median: Any = f', {sorted(ages)[len(ages) // 2]:.0f} ms from image to masks (median)' if ages else ''
    written = f'; masks in {args.out}' if args.out is not None else ''
    print(
        f'{args.bag}: {report.images} images on {report.topic}, {report.tracked} tracked, {len(report.dropped)} '
        f'dropped, {report.seeded} objects seeded{median}{written}'
    )
