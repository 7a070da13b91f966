# SPDX-License-Identifier: MIT
"""Test harness of the web server: the server as a process or in this one, and pages."""

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

SLOW_S = 120.0  # for a busy machine
TOKEN = 'a-token-of-20-letters'


class WebProcess:
    """Process of `xmem-ros web`.

    Arguments:
        node: name of the tracker's node.
        port: port to listen on; 0: any free port.
        arguments: further arguments of the command.
        files: limit of open files; None: the limit of this process.
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
        """Output of the process so far."""
        return self._log.read_text()

    @property
    def resident(self) -> int:
        """Resident memory [bytes]."""
        status = Path(f'/proc/{self.process.pid}/status').read_text()
        return int(re.search(r'VmRSS:\s+(\d+) kB', status)[1]) * 1024

    @property
    def peak(self) -> int:
        """Peak resident memory [bytes]."""
        status = Path(f'/proc/{self.process.pid}/status').read_text()
        return int(re.search(r'VmHWM:\s+(\d+) kB', status)[1]) * 1024

    def close(self) -> None:
        """End the process as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        try:
            assert self.process.wait(30) == 0, self.output
            assert 'Traceback' not in self.output, self.output
        finally:
            self.process.kill()
            self._log.unlink()


def run(coroutine):
    """Run a coroutine, for a minute at most."""
    return asyncio.run(asyncio.wait_for(coroutine, 60))


@contextlib.asynccontextmanager
async def serving(token='', node='/nowhere/xmem'):
    """Run the server on a free port; yield its address."""
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
    """Open the WebSocket of a page."""
    origin = f'http://{address}'
    async with aiohttp.ClientSession(origin) as session, session.ws_connect('/socket', origin=origin) as page:
        yield page


async def answer(page):
    """Return the next answer to a command of the page."""
    while True:
        message = json.loads(await page.receive_str(timeout=30))
        if message['type'] == 'answer':
            return message
