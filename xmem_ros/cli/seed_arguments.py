# SPDX-License-Identifier: MIT
"""Options for seeds of a recording, and the seed plan from them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xmem_ros.recordings.recording import Recording
    from xmem_ros.recordings.seed_plan import PlannedSeeds


RECORDED = 'recorded'


def add_seed_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--seed`, `--box`, `--at`, `--ignore-void` and `--seeds-topic`."""
    seeds = parser.add_argument_group('seeds', 'default: the events that the node published while the bag was recorded')
    seeds.add_argument(
        '--seed',
        type=Path,
        metavar='MASK|YAML|recorded',
        help='a mask, or a YAML file with seeds for several images; recorded: the seeds, corrections, removals, resets '
        'and loads in the bag, the default',
    )
    seeds.add_argument(
        '--box',
        action='append',
        default=[],
        metavar='NAME=X,Y,W,H',
        help='box around an object, px; repeat it for several objects',
    )
    seeds.add_argument(
        '--at',
        metavar='INDEX|STAMP',
        help='image of the mask and the boxes: its index, such as 12, or its stamp in s, such as 1700000000.25 '
        '(default: the first image)',
    )
    seeds.add_argument(
        '--ignore-void', action='store_true', help='the value 255 of a mask is no object if it has other values too'
    )
    seeds.add_argument(
        '--seeds-topic', default='', metavar='TOPIC', help='topic of the recorded seeds, if a bag has several'
    )


def read_plan(args: argparse.Namespace, recording: Recording) -> list[PlannedSeeds]:
    """Make the seed plan from the options or, without any, from the recorded seeds.

    Raises:
        SeedError: a seed cannot be used, or there is none.
        ParameterError: options contradict each other.
        BagError: the recorded seeds cannot be read.
    """
    from xmem_ros.errors import SeedError
    from xmem_ros.recordings.recording import BagRecording
    from xmem_ros.recordings.seed_plan import recorded_seeds

    plan = given_plan(args)
    if plan:
        return plan
    recorded = recorded_seeds(recording, args.seeds_topic) if isinstance(recording, BagRecording) else []
    if not recorded:
        what = 'the bag has no recorded seeds' if recording.image_topic else 'no seeds were given'
        raise SeedError(f'{recording.path}: {what}; give --seed MASK, --seed seeds.yaml or --box NAME=X,Y,W,H')
    return recorded


def given_plan(args: argparse.Namespace) -> list[PlannedSeeds]:
    """Make the seed plan from the options; empty without any.

    Raises:
        SeedError: a seed cannot be used.
        ParameterError: options contradict each other.
    """
    from xmem_ros.errors import ParameterError
    from xmem_ros.recordings.seed_files import SUFFIXES, SeedReader, parse_box, parse_image_reference

    if args.seed == Path(RECORDED):
        if args.box or args.at:
            raise ParameterError(f'--seed {RECORDED} takes the seeds of the bag; give it without --box and --at')
        return []
    if args.seeds_topic and (args.seed or args.box):
        raise ParameterError('give either --seeds-topic, for recorded seeds, or --seed and --box')
    is_yaml = args.seed is not None and args.seed.suffix.lower() in SUFFIXES
    if args.at is not None and not args.box and (args.seed is None or is_yaml):
        raise ParameterError('--at requires a mask or a box; a YAML file of seeds names its images itself')
    reader = SeedReader(ignore_void=args.ignore_void)
    place = parse_image_reference('0' if args.at is None else args.at)
    if is_yaml:
        reader.add_file(args.seed)
    elif args.seed is not None:
        reader.add_masks(args.seed, place)
    for text in args.box:
        name, box = parse_box(text)
        reader.add_box(name, box, place)
    return reader.plan
