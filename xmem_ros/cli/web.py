# SPDX-License-Identifier: MIT
"""`xmem-ros web`: web page for seeding and correcting objects."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from xmem_ros.installation import ROS, check_installed
from xmem_ros.outside_text import for_log

if TYPE_CHECKING:
    from xmem_ros.web.access import Access

PORT = 8088


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command to `xmem-ros`."""
    parser = commands.add_parser(
        'web',
        help='serve a web page for seeding and correcting objects (needs ROS)',
        description="Serve a web page, for phone and desktop, that shows the node's images and masks. Objects are "
        'seeded, named, corrected and removed on it. Only this machine can reach it unless --host is given. Other '
        'machines then need a token: from --token-file, the environment variable XMEM_ROS_WEB_TOKEN, or a random one '
        'in the printed address.',
        allow_abbrev=False,
    )
    parser.add_argument('--node', default='/xmem', metavar='NAME', help='name of the node (default: %(default)s)')
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        metavar='ADDRESS',
        help='address to listen on; 0.0.0.0: all interfaces (default: %(default)s, this machine only)',
    )
    parser.add_argument(
        '--port',
        type=port,
        default=PORT,
        metavar='N',
        help='port to listen on; 0: any free port (default: %(default)s)',
    )
    parser.add_argument(
        '--token-file',
        metavar='FILE',
        help='file with the token, at least 16 characters, readable only by you (default: the token in '
        'XMEM_ROS_WEB_TOKEN; else none if only this machine can connect, and a random one otherwise)',
    )
    parser.add_argument('--token', type=_refuse_token, help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def port(text: str) -> int:
    """Parse a port, 0 to 65535."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f'{text!r} is not a port; give a number from 0 to 65535')
    return int(text)


def _refuse_token(_: str) -> str:
    raise argparse.ArgumentTypeError(
        'not supported, as every user of this machine could read the token in the process list; use --token-file or '
        'XMEM_ROS_WEB_TOKEN'
    )


def run(args: argparse.Namespace) -> int:
    """Run the sub-command until a signal ends it; returns the exit code."""
    check_installed('the page', (*ROS, ('aiohttp', 'apt install python3-aiohttp, or pip install aiohttp')))
    from xmem_ros.web.access import Access, choose_token, given_token

    given = given_token(args.token_file, os.environ)
    if args.token_file and Path(args.token_file).expanduser().stat().st_mode & 0o077:
        print(f'xmem-ros web: warning: other users can read {args.token_file}; run chmod 600 on it', file=sys.stderr)
    return asyncio.run(_serve(args, Access(choose_token(args.host, given)), print_token=given is None))


async def _serve(args: argparse.Namespace, access: Access, *, print_token: bool) -> int:
    """Serve the page; `print_token`: the printed address includes the token."""
    from xmem_ros.web.server import serve

    def started(listening: int) -> None:
        fragment = f'#token={access.token}' if access.token and print_token else ''
        for host in _names(args.host):
            print(f'xmem-ros web: http://{host}:{listening}/{fragment}', flush=True)
        if access.token and not print_token:
            print('xmem-ros web: the page requires your token', flush=True)
        print(f'xmem-ros web: page of {for_log(args.node)}; stop it with Ctrl-C', flush=True)

    work = asyncio.ensure_future(serve(args.node, access, args.host, args.port, started))
    for sign in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sign, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await work
    return 0


def _names(host: str) -> list[str]:
    """Return the host names by which a browser reaches a listening address."""
    if host not in ('0.0.0.0', '::'):  # noqa: S104  # compared, not bound
        return [f'[{host}]' if ':' in host else host]
    names = [socket.gethostname()]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(('10.255.255.255', 9))  # sends nothing; selects the address that other machines see
        names.append(probe.getsockname()[0])
    return names
