# SPDX-License-Identifier: MIT
"""Nodes forked from one process that has imported torch.

Importing torch takes some 3 s of CPU time, most of what a node takes to start.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

_CONTEXT = multiprocessing.get_context('forkserver')
_CONTEXT.set_forkserver_preload(['torch', 'xmem_ros.stream.session'])


class ForkedNode:
    """What `node_harness` uses of `subprocess.Popen`, for a node.

    Arguments:
        arguments: command line.
        log: file for its output.
        environment: environment variables; OpenMP and Python's own are those of the first node.
    """

    def __init__(self, arguments: list[str], log: Path, environment: dict[str, str]) -> None:
        self._process = _CONTEXT.Process(target=_run, args=(arguments, str(log), environment), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code; negative after a signal, None while the process runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; raise `subprocess.TimeoutExpired` after `timeout` seconds."""
        self._process.join(timeout)
        if self.returncode is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired('xmem_node', timeout)
        return self.returncode

    def send_signal(self, sign: signal.Signals) -> None:
        """Send a signal, if the process runs."""
        if self.returncode is None:
            os.kill(self.pid, sign)


def _run(arguments: list[str], log: str, environment: dict[str, str]) -> None:
    """Become a node, in the forked process."""
    os.environ.clear()
    os.environ.update(environment)
    with Path(log).open('ab', buffering=0) as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through=True)  # type: ignore[union-attr]
    faulthandler.enable()
    sys.argv = ['xmem_node', *arguments]
    from xmem_ros.node.main import main

    main()
