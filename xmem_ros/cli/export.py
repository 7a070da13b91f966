# SPDX-License-Identifier: MIT
"""`xmem-ros export`: export the network as ONNX models."""

import argparse
from pathlib import Path

from xmem_ros.outside_text import say

EPILOG = """\
A tracker with engine onnxruntime exports missing models when its first image arrives. Export them
beforehand to save that time, or on another machine: copy the content of DIR to the robot's
~/.cache/xmem_ros/onnx, or set XMEM_ROS_ONNX to DIR there.

example:
  xmem-ros export --onnx models --size 480 640 --precision float16
"""


def add_parser(commands: 'argparse._SubParsersAction[argparse.ArgumentParser]') -> None:
    """Add the sub-command to `xmem-ros`."""
    parser = commands.add_parser(
        'export',
        help='export the network as ONNX models',
        description='Export the network as ONNX models, for ONNX Runtime and TensorRT.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--onnx', type=Path, metavar='DIR', required=True, help='folder in which the folder of the models is created'
    )
    parser.add_argument(
        '--weights', default='compact', metavar='NAME|FILE', help='name or file of the weights (default: %(default)s)'
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=[480, 640],
        metavar=('H', 'W'),
        help="height and width of the camera's images, px (default: 480 640)",
    )
    parser.add_argument(
        '--shorter-side',
        type=int,
        default=-1,
        metavar='PX',
        help='shorter side of the images in the network, as the parameter size (default: that of the weights)',
    )
    parser.add_argument(
        '--objects',
        type=int,
        nargs='+',
        default=[1, 2, 4, 8, 16],
        metavar='N',
        help='numbers of objects to export for, 1 to 254 (default: 1 2 4 8 16)',
    )
    parser.add_argument(
        '--precision',
        choices=('float32', 'float16'),
        default='float32',
        help='precision of the models (default: %(default)s)',
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; returns the exit code."""
    from xmem_ros.checks import checked_size
    from xmem_ros.engines.onnx_export import export
    from xmem_ros.engines.onnx_files import COMMAND, ExportKey
    from xmem_ros.errors import ParameterError, quoted
    from xmem_ros.tracker.config import TrackerConfig, with_size
    from xmem_ros.tracker.geometry import FrameGeometry
    from xmem_ros.weights.checkpoint import fingerprint, load_network
    from xmem_ros.weights.files import find_weights

    if not all(1 <= count <= 254 for count in args.objects):
        raise ParameterError(f'--objects is {quoted(args.objects)}; each number must be from 1 to 254')
    checked_size('--size', args.size, ParameterError)
    network = load_network(find_weights(args.weights))
    config = with_size(TrackerConfig(size=args.shorter_side), network.config)
    height, width = FrameGeometry.of(tuple(args.size), config.size).padded_size
    key = ExportKey(fingerprint(network.state_dict()), height, width, args.precision)
    folder = export(network, key, args.onnx, args.objects, COMMAND)
    say(
        f'{folder}: {height}×{width} px (H×W) for images of {args.size[0]}×{args.size[1]}, {args.precision}, '
        f'objects {", ".join(map(str, sorted(set(args.objects))))}'
    )
    return 0
