# SPDX-License-Identifier: MIT
"""Options shared by several sub-commands."""

import argparse

AUTO_SIZE = -1  # as in xmem_ros.tracker, which imports torch


def add_tracker_arguments(parser: argparse._ActionsContainer, *, defaults: bool = True) -> None:
    """Add `--weights`, `--size` and `--device`; without `defaults`, options not given are None."""
    parser.add_argument(
        '--weights',
        default='compact' if defaults else None,
        metavar='NAME|FILE',
        help='name of the weights, or a .safetensors or .pth file (default: compact)',
    )
    parser.add_argument(
        '--size',
        type=size,
        default=AUTO_SIZE if defaults else None,
        metavar='PX',
        help='shorter side of the images in the network (default: 240 for compact, 480 for xmem)',
    )
    parser.add_argument(
        '--device',
        default='auto' if defaults else None,
        metavar='DEVICE',
        help='auto, cpu, cuda or cuda:N (default: auto)',
    )


def size(text: str) -> int:
    """Parse a size in px, 16 to 4096."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 16 <= value <= 4096:
        raise argparse.ArgumentTypeError(f'{text!r} is not a size; give a whole number of px from 16 to 4096')
    return value
