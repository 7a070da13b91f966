# SPDX-License-Identifier: MIT
"""Progress display: a bar on a terminal, lines in a log."""

import fcntl
import io
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from xmem_ros import progress
from xmem_ros.progress import Bar


def work(file, states: int = 200) -> None:
    with Bar(total=states, desc='sequence', unit='frame', file=file) as bar:
        for _ in range(states):
            bar.set_description('another', refresh=False)
            bar.update()


def test_a_short_task_writes_nothing_to_a_log() -> None:
    log = io.StringIO()
    work(log)
    assert log.getvalue() == ''


def test_a_log_gets_occasional_complete_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, 'LINE_EVERY', 0.05)
    log = io.StringIO()
    begun = time.monotonic()
    with Bar(total=10_000, unit='frame', file=log) as bar:
        while time.monotonic() - begun < 0.5:
            bar.update()
            time.sleep(0.0005)
    took = time.monotonic() - begun
    lines = log.getvalue().splitlines()
    assert 1 <= len(lines) <= took / 0.05 + 1
    assert '\r' not in log.getvalue()
    assert all('/10000 [' in line and 'frame/s' in line for line in lines)


def test_a_terminal_gets_a_bar_that_is_redrawn() -> None:
    ours, theirs = pty.openpty()
    with open(theirs, 'w', encoding='utf-8') as terminal:  # noqa: PTH123
        work(terminal, states=3)
        terminal.flush()
        shown = ''
        while '3/3' not in shown and select.select([ours], [], [], 10)[0]:
            shown += os.read(ours, 100_000).decode(errors='replace')
    os.close(ours)
    assert shown.count('\r') > 1
    assert '3/3' in shown


def test_a_terminal_of_zero_columns_gets_a_bar() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 0, 0, 0, 0))
    program = 'from xmem_ros.progress import Bar; list(Bar(range(3)))'
    subprocess.run([sys.executable, '-c', program], stdin=theirs, stdout=theirs, stderr=theirs, check=True, timeout=60)
    assert '3/3' in os.read(ours, 100_000).decode()
    os.close(theirs)
    os.close(ours)


def test_all_modules_show_progress_with_this_bar() -> None:
    package = Path(progress.__file__).parent
    others = [path for path in package.rglob('*.py') if 'tqdm(' in path.read_text() and path.name != 'progress.py']
    assert others == []
