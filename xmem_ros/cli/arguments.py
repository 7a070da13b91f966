# SPDX-License-Identifier: MIT
"""Arguments that several sub-commands take."""

import argparse

AUTO_SIZE = -1  # as in xmem_ros.tracker, which imports torch


def add_tracker_arguments(parser: argparse.ArgumentParser, *, defaults: bool = True) -> None:
    """Add `--weights`, `--size` and `--device`; without defaults they are None where they are not given."""
    parser.add_argument(
        '--weights',
        default='compact' if defaults else None,
        help='name of a model, or a .safetensors or .pth file (default: compact)',
    )
    parser.add_argument(
        '--size',
        type=size,
        default=AUTO_SIZE if defaults else None,
        metavar='N',
        help='shorter side that frames are tracked at, px (default: 240 for compact, 480 for xmem)',
    )
    parser.add_argument(
        '--device', default='auto' if defaults else None, help='auto, cpu, cuda or cuda:N (default: auto)'
    )


def size(text: str) -> int:
    """Parse a size in px, 16 to 4096."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 16 <= value <= 4096:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of pixels from 16 to 4096')
    return value
