# SPDX-License-Identifier: MIT
"""Arguments that say what is followed in a recording, and the plan that comes of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xmem_ros.recordings.recording import Recording
    from xmem_ros.recordings.seed_plan import PlannedSeeds


def add_seed_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--seed`, `--box`, `--at` and `--seeds-topic`."""
    seeds = parser.add_argument_group(
        'seeds', 'Without any, those that the node published on ~/seeds when the bag was recorded.'
    )
    seeds.add_argument('--seed', type=Path, metavar='MASK|YAML', help='a mask, or a file of seeds at several images')
    seeds.add_argument(
        '--box',
        action='append',
        default=[],
        metavar='NAME=X,Y,W,H',
        help='an object in a box, px; may be given several times',
    )
    seeds.add_argument(
        '--at',
        metavar='INDEX|STAMP',
        help='the image that mask and boxes are of: its index, as in 12, or its stamp in seconds, as in 1700000000.25 '
        '(default: the first)',
    )
    seeds.add_argument(
        '--seeds-topic', default='', metavar='TOPIC', help='where a bag has recorded seeds on several topics'
    )


def read_plan(args: argparse.Namespace, recording: Recording) -> list[PlannedSeeds]:
    """The seeds that were given, or else those that the bag has recorded.

    Raises:
        SeedError: some that cannot be used, or none at all. ParameterError, BagError.
    """
    from xmem_ros.errors import ParameterError, SeedError
    from xmem_ros.recordings.recording import BagRecording
    from xmem_ros.recordings.seed_files import SUFFIXES, SeedReader, read_box, read_place
    from xmem_ros.recordings.seed_plan import recorded_seeds

    if args.seeds_topic and (args.seed or args.box):
        raise ParameterError('give either --seeds-topic, for recorded seeds, or --seed and --box')
    listed = args.seed is not None and args.seed.suffix.lower() in SUFFIXES
    if args.at is not None and not args.box and (args.seed is None or listed):
        raise ParameterError('--at goes with a mask or a box; a file of seeds says itself which images they are of')
    reader, place = SeedReader(), read_place('0' if args.at is None else args.at)
    if listed:
        reader.add_file(args.seed)
    elif args.seed is not None:
        reader.add_masks(args.seed, place)
    for text in args.box:
        name, box = read_box(text)
        reader.add_box(name, box, place)
    if reader.plan:
        return reader.plan
    recorded = recorded_seeds(recording, args.seeds_topic) if isinstance(recording, BagRecording) else []
    if not recorded:
        what = 'no seeds were recorded in it' if recording.image_topic else 'nothing says what to follow'
        raise SeedError(
            f'{recording.path}: {what}; show the objects: --seed MASK, --seed seeds.yaml or --box NAME=X,Y,W,H'
        )
    return recorded
