# SPDX-License-Identifier: MIT
"""`xmem-ros train`: train or fine-tune a network."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xmem_ros.outside_text import say

if TYPE_CHECKING:
    from xmem_ros.network.model import XMemNetwork
    from xmem_ros.training.footage import Footage

EPILOG = """\
An interrupted run continues from its last checkpoint when the same command is given again.

examples:
  xmem-ros train --config config/training/finetune.yaml --videos my_bag \\
      --out runs/mine --export mine.safetensors           # fine-tune on a labelled bag
  torchrun --nproc-per-node 4 -m xmem_ros.cli.main train … --device cuda      # four GPUs

Keys of the configuration file, layouts of videos: docs/training.md
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command to `xmem-ros`."""
    parser = commands.add_parser(
        'train',
        help='train a network, or fine-tune one on your own objects',
        description='Train a network, or fine-tune one on your own objects, with the settings of a YAML file.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--config', type=Path, required=True, metavar='FILE', help='configuration file (YAML)')
    parser.add_argument(
        '--data',
        type=Path,
        default=Path(),
        metavar='DIR',
        help='folder for relative paths in the configuration (default: the current folder)',
    )
    parser.add_argument(
        '--videos', nargs='+', metavar='PATH', help='override the key videos: folders, or bags with label images'
    )
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder for checkpoints')
    parser.add_argument(
        '--device', default='auto', metavar='DEVICE', help='auto, cpu, cuda or cuda:N (default: %(default)s)'
    )
    parser.add_argument('--iterations', type=int, metavar='N', help='override the key iterations')
    parser.add_argument('--start-from', metavar='NAME|FILE', help='override the key start_from: the initial weights')
    parser.add_argument(
        '--export', type=Path, metavar='FILE', help='write the trained weights to this .safetensors file'
    )
    parser.add_argument('--dry-run', action='store_true', help='check the command and its configuration, then exit')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; returns the exit code."""
    from xmem_ros.errors import ParameterError
    from xmem_ros.tracker import pick_device
    from xmem_ros.training.config import read_config
    from xmem_ros.training.loop import Trainer
    from xmem_ros.training.validation import before_after, mean
    from xmem_ros.weights.checkpoint import save_network

    if args.export and args.export.suffix != '.safetensors':
        raise ParameterError(f'--export {args.export}: the file name must end in .safetensors')
    if args.export:
        _check_export(args.export)  # before hours of training
    videos = tuple(args.videos) if args.videos else None
    config = read_config(args.config, videos=videos, iterations=args.iterations, start_from=args.start_from)
    if args.dry_run:
        say(f'valid: {args.config}, {config.iterations} iterations')
        return 0
    trainer = Trainer(config, args.data, args.out, str(pick_device(args.device)))
    compare = bool(trainer.held) and bool(config.start_from) and trainer.rank == 0
    before = trainer.starting_validation() if compare else {}
    trainer.run()
    trainer.close()
    if trainer.rank:
        return 0
    network = trainer.best_network()
    if compare:
        after = trainer.validation(network)
        say(before_after(before, after))
        if mean(after) < mean(before):
            say('the held-back videos did not improve; add footage, or lower learning_rate')
    if args.export:
        _calibrate(network, trainer.held or trainer.data.videos)
        save_network(network, args.export)
        say(f'weights written to {args.export}')
    return 0


def _calibrate(network: XMemNetwork, footage: list[Footage]) -> None:
    """Set the likeness thresholds of a network in place, if the footage is sufficient."""
    from xmem_ros.training.calibration import calibrate
    from xmem_ros.training.footage import FootageError

    try:
        found = calibrate(network, footage)
    except FootageError as error:
        say(f'no likeness thresholds could be chosen, so the published memory policy applies: {error}')
        return
    network.config = replace(network.config, likeness=found.thresholds)
    say(f'likeness thresholds: {found}')


def _check_export(path: Path) -> None:
    from xmem_ros import atomic
    from xmem_ros.errors import OutputError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.check_target(path)
    except OSError as error:
        raise OutputError(f'--export {path}: cannot be written ({error.strerror}); name another file') from error
