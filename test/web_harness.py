# SPDX-License-Identifier: MIT
"""The page's server for tests: as a process, or in this one; and pages that talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import aiohttp
from node_harness import wait_until

from xmem_ros.web.access import Access
from xmem_ros.web.server import serve

SLOW_S = 120.0  # on a busy machine
TOKEN = 'a-token-of-20-letters'


class WebProcess:
    """`xmem-ros web` in a process of its own.

    Arguments:
        node: name of the tracker's node.
        port: to listen on; 0: any that is free.
        arguments: further ones.
        files: the most files that it may have open; None: as this process.
    """

    def __init__(self, node: str, port: int = 0, arguments: tuple[str, ...] = (), files: int | None = None) -> None:
        self._log = Path(tempfile.mkstemp(prefix='xmem_web_', suffix='.log')[1])
        with self._log.open('w') as log:
            command = [sys.executable, '-m', 'xmem_ros.cli.main', 'web', '--node', node, '--port', str(port)]
            self.process = subprocess.Popen(
                [*command, *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, 'PYTHONUNBUFFERED': '1'},
                preexec_fn=files and (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))),
            )
        found = wait_until(lambda: re.search(r'http://127\.0\.0\.1:(\d+)/', self.output), 'the address', SLOW_S)
        self.address, self.port = found[0], int(found[1])

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._log.read_text()

    @property
    def resident(self) -> int:
        """Memory that it takes [bytes]."""
        status = Path(f'/proc/{self.process.pid}/status').read_text()
        return int(re.search(r'VmRSS:\s+(\d+) kB', status)[1]) * 1024

    @property
    def peak(self) -> int:
        """The most memory that it took [bytes]."""
        status = Path(f'/proc/{self.process.pid}/status').read_text()
        return int(re.search(r'VmHWM:\s+(\d+) kB', status)[1]) * 1024

    def close(self) -> None:
        """End it as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        try:
            assert self.process.wait(30) == 0, self.output
            assert 'Traceback' not in self.output, self.output
        finally:
            self.process.kill()
            self._log.unlink()


def run(coroutine):
    """Run it, for a minute at most."""
    return asyncio.run(asyncio.wait_for(coroutine, 60))


@contextlib.asynccontextmanager
async def serving(token='', node='/nowhere/xmem'):
    """The server on a free port; gives its address."""
    begun = asyncio.get_running_loop().create_future()
    work = asyncio.ensure_future(serve(node, Access(token), '127.0.0.1', 0, begun.set_result))
    await asyncio.wait([begun, work], return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        work.result()
    try:
        yield f'127.0.0.1:{begun.result()}'
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work


@contextlib.asynccontextmanager
async def page_of(address):
    """A page's WebSocket."""
    origin = f'http://{address}'
    async with aiohttp.ClientSession(origin) as session, session.ws_connect('/socket', origin=origin) as page:
        yield page


async def answer(page):
    """The next answer to a command of a page's."""
    while True:
        message = json.loads(await page.receive_str(timeout=30))
        if message['type'] == 'answer':
            return message
