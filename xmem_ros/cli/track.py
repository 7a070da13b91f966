# SPDX-License-Identifier: MIT
"""`xmem-ros track`: follow objects through a video or a folder of frames."""

from __future__ import annotations

import argparse
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from xmem_ros.cli.arguments import add_tracker_arguments

if TYPE_CHECKING:
    import numpy as np

    from xmem_ros.media import Clip


OVERLAY = 'overlay.mp4'


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command to `xmem-ros`."""
    parser = commands.add_parser(
        'track',
        help='follow objects through a video or a folder of frames',
        description='Follow the objects that a mask shows in the first frame. For every frame a palette PNG is '
        "written, of the frame's size, whose values are those of the seed mask.",
        epilog="Seed mask: a palette, grey or one-bit PNG of the frames' size. 0 is background, every other value an "
        'object of its own; 255 is void, but for a mask of only 0 and 255, whose one object gets the value 1.',
    )
    parser.add_argument(
        'clip', type=Path, metavar='FOLDER|VIDEO', help='frames in the order of their names, or a video file'
    )
    parser.add_argument('--seed', type=Path, required=True, metavar='MASK', help='the objects in the first frame')
    parser.add_argument(
        '--out', type=Path, required=True, metavar='DIR', help='new or empty folder; appears once it is whole'
    )
    parser.add_argument(
        '--overlay', action='store_true', help=f'write DIR/{OVERLAY} too: the masks drawn over the frames'
    )
    add_tracker_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; returns the exit code."""
    from xmem_ros.errors import ParameterError
    from xmem_ros.media import Clip, read_mask

    args.out = args.out.resolve()
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise ParameterError(f'{args.out}: is there already and not an empty folder; choose another --out or remove it')
    clip = Clip(args.clip)
    mask = read_mask(args.seed)
    part = args.out.with_name(f'.{args.out.name}.part')
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        count = _track(args, clip, mask, part)
        if args.out.exists():
            args.out.rmdir()
        part.rename(args.out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    overlay = f', and {args.out / OVERLAY}' if args.overlay else ''
    print(f'{args.out}: {count} masks{overlay}')
    return 0


def _track(args: argparse.Namespace, clip: Clip, mask: np.ndarray, folder: Path) -> int:
    """Write a mask for every frame of the clip into a folder; returns their number."""
    from xmem_ros.errors import SeedError
    from xmem_ros.evaluation.datasets import check_size
    from xmem_ros.evaluation.follow import follow
    from xmem_ros.media import VideoWriter, objects_of, write_labels
    from xmem_ros.overlay import draw
    from xmem_ros.progress import Bar
    from xmem_ros.tracker import Tracker, TrackerConfig

    objects = objects_of(mask)
    if not objects:
        raise SeedError(f'{args.seed}: the mask shows no object; paint at least one')

    def seeds(index: int, frame: np.ndarray) -> dict[int, np.ndarray]:
        if index:
            return {}
        check_size(args.seed, mask, frame.shape[:2])
        return objects

    config = TrackerConfig(size=args.size, max_objects=len(objects))
    tracker = Tracker.from_weights(args.weights, device=args.device, config=config)
    count = 0
    with ExitStack() as stack:
        video = stack.enter_context(VideoWriter(folder / OVERLAY, clip.rate)) if args.overlay else None
        for followed in Bar(follow(tracker, clip, seeds), total=len(clip) or None, unit='frame'):
            write_labels(folder / f'{followed.name}.png', followed.values)
            if video:
                video.write(draw(followed.frame, followed.result.labels, followed.result.objects))
            count += 1
    return count
