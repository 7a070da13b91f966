# SPDX-License-Identifier: MIT
"""`xmem-ros weights`: list, fetch and calibrate weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from xmem_ros.outside_text import say

OFFICIAL_LICENCE = 'see release page'


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command to `xmem-ros`."""
    parser = commands.add_parser(
        'weights',
        help='list, fetch and calibrate weights',
        description='List the bundled and official weights, fetch the official ones, or calibrate a weights file. '
        'Weights are searched for in the package, then in the cache: the folder $XMEM_ROS_WEIGHTS, by default '
        '~/.cache/xmem_ros.',
    )
    actions = parser.add_subparsers(title='actions', dest='action', required=True, metavar='ACTION')
    listing = actions.add_parser(
        'list', help='list weights with licence and state', description='List all weights with size, licence and state.'
    )
    listing.set_defaults(run=run_list)
    fetching = actions.add_parser(
        'fetch',
        help='fetch official weights into the cache',
        description="Fetch the files released by XMem's authors into the cache. An interrupted download continues. "
        'Size and checksum are pinned in weights.lock.json in the cache. Set XMEM_ROS_WEIGHTS_URL to fetch from '
        'another address than the release page.',
    )
    fetching.add_argument('names', nargs='+', metavar='NAME', help='xmem, xmem-s012, xmem-s2, xmem-no-sensory or all')
    fetching.set_defaults(run=run_fetch)
    calibrating = actions.add_parser(
        'calibrate',
        help='choose the likeness thresholds of a weights file, and store them in it',
        description='The default memory policy hides an object whose likeness to its earlier appearances is below a '
        'threshold. Suitable thresholds depend on the weights. This command chooses them on labelled footage and '
        'stores them in the file. Weights without thresholds run with the published memory policy.',
    )
    calibrating.add_argument('weights', metavar='WEIGHTS', help='a name, or a .safetensors or .pth file')
    calibrating.add_argument(
        '--videos',
        type=Path,
        nargs='+',
        required=True,
        metavar='DIR',
        help='folders JPEGImages/SEQ with Annotations/SEQ that the weights were not trained on',
    )
    calibrating.add_argument(
        '--out',
        type=Path,
        required=True,
        metavar='FILE.safetensors',
        help='file to write; may be the same as WEIGHTS',
    )
    calibrating.set_defaults(run=run_calibrate)


def run_fetch(args: argparse.Namespace) -> int:
    """Run `weights fetch`; returns the exit code."""
    from xmem_ros.weights.fetch import fetch, known
    from xmem_ros.weights.official import OFFICIAL

    names = list(OFFICIAL) if 'all' in args.names else args.names
    for name in names:
        known(name)  # before any is fetched
    for name in names:
        say(fetch(name))
    return 0


def run_calibrate(args: argparse.Namespace) -> int:
    """Run `weights calibrate`; returns the exit code."""
    from dataclasses import replace

    from xmem_ros.errors import ParameterError
    from xmem_ros.training.calibration import calibrate
    from xmem_ros.training.footage import read_videos
    from xmem_ros.weights.checkpoint import load_network, read_state_dict, save_network
    from xmem_ros.weights.files import find_weights

    if args.out.suffix != '.safetensors':
        raise ParameterError(f'--out {args.out}: the name must end in .safetensors, the format that stores thresholds')
    path = find_weights(args.weights)
    network = load_network(path)
    side = network.config.shorter_side
    found = calibrate(network, [video for folder in args.videos for video in read_videos(folder, side)])
    network.config = replace(network.config, likeness=found.thresholds)
    save_network(network, args.out, dtype=read_state_dict(path)['decoder.pred.weight'].dtype)
    say(f'{args.out}: {found}')
    return 0


def run_list(_: argparse.Namespace) -> int:
    """Run `weights list`; returns the exit code."""
    from xmem_ros.weights.fetch import read_lock
    from xmem_ros.weights.files import bundled_folder, user_folder
    from xmem_ros.weights.official import OFFICIAL, RELEASE, licence_of

    lock = read_lock()
    rows = [
        (path.stem, f'{path.stat().st_size / 1e6:.1f} MB', licence_of(path), 'bundled', str(path))
        for path in sorted(bundled_folder().glob('*.safetensors'))
    ]
    for name, weights in OFFICIAL.items():
        path = user_folder() / weights.file
        part = path.with_name(f'{path.name}.part')
        if path.is_file():
            pinned = lock.get(weights.file, {}).get('sha256')
            state = f'fetched, sha256 {pinned[:12]}…' if pinned else 'fetched, not verified'
            rows.append((name, f'{path.stat().st_size / 1e6:.1f} MB', OFFICIAL_LICENCE, state, str(path)))
        elif part.is_file():
            state = f'{part.stat().st_size / 1e6:.1f} MB fetched'
            rows.append((name, f'{weights.megabytes} MB', OFFICIAL_LICENCE, state, weights.url))
        else:
            rows.append((name, f'{weights.megabytes} MB', OFFICIAL_LICENCE, 'not fetched', weights.url))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        say(f'{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]:<{widths[3]}}  {row[4]}')
    say('CC BY-NC does not permit commercial use; model cards are beside the bundled files')
    say(f'official weights: terms at {RELEASE}; folder {user_folder()}')
    return 0
