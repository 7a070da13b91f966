# SPDX-License-Identifier: MIT
"""`xmem-ros train`: train a network, or fine-tune one on your own objects, by one YAML file."""

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
Fine-tune the bundled weights on a labelled bag, or on folders JPEGImages/SEQ and Annotations/SEQ:
  xmem-ros train --config config/training/finetune.yaml --videos my_bag --out runs/mine --export mine.safetensors
Several GPUs: torchrun --nproc-per-node 4 -m xmem_ros.cli.main train … --device cuda
Killed, it goes on from its last checkpoint when started again. Every key of the file: docs/training.md.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command to `xmem-ros`."""
    parser = commands.add_parser(
        'train',
        help='train a network, or fine-tune one on your own objects',
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--config', type=Path, required=True, help='YAML file that describes the run')
    parser.add_argument('--data', type=Path, default=Path(), help='folder that the paths in the file are relative to')
    parser.add_argument('--videos', nargs='+', help="override the file's videos: folders, or bags with label images")
    parser.add_argument('--out', type=Path, required=True, help='folder for checkpoints; a run found there goes on')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N (default: %(default)s)')
    parser.add_argument('--iterations', type=int, help='override the number of iterations')
    parser.add_argument('--start-from', help="override the file's start_from: a checkpoint to begin with")
    parser.add_argument('--export', type=Path, help='when done, write the weights to this .safetensors file')
    parser.add_argument(
        '--dry-run', action='store_true', help='only check that the command and its file are well-formed'
    )
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
        raise ParameterError(f'--export {args.export}: the name must end in .safetensors')
    if args.export:
        _check_export(args.export)  # before hours of training
    videos = tuple(args.videos) if args.videos else None
    config = read_config(args.config, videos=videos, iterations=args.iterations, start_from=args.start_from)
    if args.dry_run:
        say(f'well-formed: {args.config}, {config.iterations} iterations')
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
            say('what is held back is followed no better than before: more footage, or a lower learning_rate?')
    if args.export:
        _calibrate(network, trainer.held or trainer.data.videos)
        save_network(network, args.export)
        say(f'weights written to {args.export}')
    return 0


def _calibrate(network: XMemNetwork, footage: list[Footage]) -> None:
    """Give a network likeness thresholds, in place, where the footage allows."""
    from xmem_ros.training.calibration import calibrate
    from xmem_ros.training.footage import FootageError

    try:
        found = calibrate(network, footage)
    except FootageError as error:
        say(f'no likeness thresholds, so the published memory policy applies: {error}')
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
