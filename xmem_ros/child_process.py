# SPDX-License-Identifier: MIT
"""Child processes that never outlive their parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from xmem_ros import atomic
from xmem_ros.errors import XMemError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

PR_SET_PDEATHSIG = 1  # Linux, prctl(2)
GRACE_S = 5.0  # after each signal


class ProcessError(XMemError, RuntimeError):
    """A child process ended or does not respond."""


class Child:
    """Python module in a process of its own; a context manager that ends the process.

    Arguments:
        module: name, as for `python -m`.
        arguments: command line of the module.
        log: file for its standard output and error.
        stdin: pass on standard input; else it is empty.
        variables: additional environment variables.
    """

    def __init__(
        self,
        module: str,
        arguments: list[str],
        log: Path,
        *,
        stdin: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.module, self.log = module, log
        with atomic.open_new(log) as output:
            self._process = subprocess.Popen(
                [sys.executable, '-m', module, *arguments],
                stdin=None if stdin else subprocess.DEVNULL,
                stdout=output,
                env={**os.environ, **(variables or {})},
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only the parent, which ends its children in order
                preexec_fn=_end_with_parent if sys.platform == 'linux' else None,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code; None while the process runs."""
        return self._process.poll()

    def check_running(self) -> None:
        """Raise `ProcessError`, with the end of the log, if the process has ended."""
        if self.exit_code is not None:
            raise ProcessError(
                f'{self.module} ended with exit code {self.exit_code}; the end of {self.log}:\n{self.tail()}'
            )

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of the log, indented."""
        text = self.log.read_text(errors='replace').splitlines()[-lines:]
        return '\n'.join(f'    {line}' for line in text)

    def end(self) -> None:
        """End the process: SIGINT, SIGTERM, SIGKILL, each after `GRACE_S`."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is not None:
                break
            self._signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S)
        self._signal(signal.SIGKILL)  # to remaining processes of its group

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait for the end of a block, so that nothing is left half made.

    Raises:
        KeyboardInterrupt: after the block, if one of them came.
    """
    came = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def _end_with_parent() -> None:
    """Have the kernel end this process when its parent dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
