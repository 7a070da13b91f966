# SPDX-License-Identifier: MIT
"""Arguments that several sub-commands take."""

import argparse

AUTO_SIZE = -1  # as in xmem_ros.tracker, which imports torch


def add_tracker_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--weights`, `--size` and `--device`."""
    parser.add_argument(
        '--weights', default='compact', help='name of a model, or a .safetensors or .pth file (default: %(default)s)'
    )
    parser.add_argument(
        '--size',
        type=size,
        default=AUTO_SIZE,
        metavar='N',
        help='shorter side that frames are tracked at, px (default: 240 for compact, 480 for xmem)',
    )
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N (default: %(default)s)')


def size(text: str) -> int:
    """Parse a size in px, 16 to 4096."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 16 <= value <= 4096:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of pixels from 16 to 4096')
    return value
