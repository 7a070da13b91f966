# SPDX-License-Identifier: MIT
"""`xmem-ros train`: train a network from one YAML file."""

import argparse
from pathlib import Path


def add_parser(commands: 'argparse._SubParsersAction[argparse.ArgumentParser]') -> None:
    """Add the sub-command to `xmem-ros`."""
    parser = commands.add_parser('train', help='train a network', description=__doc__)
    parser.add_argument('--config', type=Path, required=True, help='YAML file that describes the run')
    parser.add_argument('--data', type=Path, default=Path(), help='folder that the paths in the file are relative to')
    parser.add_argument('--out', type=Path, required=True, help='folder for checkpoints; a run found there goes on')
    parser.add_argument('--device', default='cpu', help='cpu or cuda (default: %(default)s)')
    parser.add_argument('--iterations', type=int, help='override the number of iterations')
    parser.add_argument('--start-from', help="override the file's start_from: a checkpoint to begin with")
    parser.add_argument('--export', type=Path, help='when done, write the averaged weights to this .safetensors file')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; returns the exit code."""
    from xmem_ros.network.checkpoint import save_network
    from xmem_ros.training.loop import Trainer, read_config

    config = read_config(args.config, iterations=args.iterations, start_from=args.start_from)
    trainer = Trainer(config, args.data, args.out, args.device)
    trainer.run()
    if args.export:
        save_network(trainer.averaged_network(), args.export)
    return 0
