# SPDX-License-Identifier: MIT
"""`xmem-ros web`: a page on which a person shows the tracker objects."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from xmem_ros.outside_text import for_log

if TYPE_CHECKING:
    from xmem_ros.web.access import Access

PORT = 8088


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command to `xmem-ros`."""
    parser = commands.add_parser(
        'web',
        help='a page to show the tracker objects on, for phone and desktop (needs ROS)',
        description='Serve a page that shows what the node sees, and on which objects are drawn, named, corrected and '
        'removed. Only this machine can reach it, unless --host says otherwise; a token is asked for then: that of '
        '--token-file, or of the environment variable XMEM_ROS_WEB_TOKEN, or else a random one, which is part of the '
        'address that is printed.',
        allow_abbrev=False,
    )
    parser.add_argument('--node', default='/xmem', help="the tracker's node (default: %(default)s)")
    parser.add_argument(
        '--host', default='127.0.0.1', help='address to listen on; 0.0.0.0: all (default: %(default)s, this machine)'
    )
    parser.add_argument('--port', type=port, default=PORT, help='0: any that is free (default: %(default)s)')
    parser.add_argument(
        '--token-file',
        metavar='FILE',
        help='file with the token that the page asks for, 16 characters or more; only you should be able to read it '
        '(default: XMEM_ROS_WEB_TOKEN; without, none on this machine alone, else a random one)',
    )
    parser.add_argument('--token', type=_refuse_token, help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def port(text: str) -> int:
    """Parse a port, 0 to 65535."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f'{text!r} is not a port: give a number from 0 to 65535')
    return int(text)


def _refuse_token(_: str) -> str:
    raise argparse.ArgumentTypeError(
        'everybody on this machine could read it in the list of processes: give --token-file, or set XMEM_ROS_WEB_TOKEN'
    )


def run(args: argparse.Namespace) -> int:
    """Run the sub-command until a signal ends it; returns the exit code."""
    _check_installed()
    from xmem_ros.web.access import Access, choose_token, given_token

    given = given_token(args.token_file, os.environ)
    if args.token_file and Path(args.token_file).expanduser().stat().st_mode & 0o077:
        print(f'xmem-ros web: others can read {args.token_file}: chmod 600 it', file=sys.stderr)
    return asyncio.run(_serve(args, Access(choose_token(args.host, given)), printed=given is None))


def _check_installed() -> None:
    from xmem_ros.errors import ParameterError

    for module, remedy in (
        ('rclpy', 'source the setup.bash of a ROS 2 and of the workspace with xmem_ros'),
        ('xmem_ros.msg', 'build the package (colcon build, or make build) and source its setup.bash'),
        ('aiohttp', "apt install python3-aiohttp, or pip install 'xmem_ros[web]'"),
    ):
        if importlib.util.find_spec(module) is None:
            raise ParameterError(f'the page needs {module}, which is not installed here: {remedy}')


async def _serve(args: argparse.Namespace, access: Access, *, printed: bool) -> int:
    """`printed`: whether the token stands in the address that is printed; nobody would know a random one otherwise."""
    from xmem_ros.web.server import serve

    def started(listening: int) -> None:
        ask = f'#token={access.token}' if access.token and printed else ''
        for host in _names(args.host):
            print(f'xmem-ros web: http://{host}:{listening}/{ask}', flush=True)
        if access.token and not printed:
            print('xmem-ros web: it asks for the token that was given', flush=True)
        print(f'xmem-ros web: the page of {for_log(args.node)}; Ctrl-C ends it', flush=True)

    work = asyncio.ensure_future(serve(args.node, access, args.host, args.port, started))
    for sign in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sign, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await work
    return 0


def _names(host: str) -> list[str]:
    """Names that a browser reaches an address by."""
    if host not in ('0.0.0.0', '::'):  # noqa: S104  # compared, not bound
        return [f'[{host}]' if ':' in host else host]
    names = [socket.gethostname()]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(('10.255.255.255', 9))  # sends nothing; tells the address that others see
        names.append(probe.getsockname()[0])
    return names
