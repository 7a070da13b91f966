# SPDX-License-Identifier: MIT
"""Child processes end with their parent, and their end is reported."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from process_state import is_alive, wait_until

from xmem_ros import child_process
from xmem_ros.child_process import Child, ProcessError, uninterrupted

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def stubborn(tmp_path, monkeypatch):
    """A module that ignores SIGINT and SIGTERM, and has a child of its own."""
    (tmp_path / 'stubborn.py').write_text(
        textwrap.dedent("""
            import signal, subprocess, sys, time
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
            print(other.pid, flush=True)
            time.sleep(600)
        """)
    )
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{os.environ.get("PYTHONPATH", "")}')
    monkeypatch.setattr(child_process, 'GRACE_S', 0.3)
    return 'stubborn'


def test_a_stubborn_child_is_killed_with_its_own_children(tmp_path, stubborn):
    log = tmp_path / 'log'
    with Child(stubborn, [], log) as child:
        assert wait_until(lambda: log.read_text().endswith('\n'))
        grandchild = int(log.read_text())
        assert is_alive(grandchild)
        child.check_running()
    assert child.exit_code == -signal.SIGKILL
    assert wait_until(lambda: not is_alive(grandchild))


@pytest.mark.skipif(sys.platform != 'linux', reason='the kernel of Linux only ends children with their parent')
def test_a_child_ends_when_its_parent_is_killed(tmp_path, monkeypatch):
    (tmp_path / 'sleeper.py').write_text('import time; time.sleep(600)')
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{ROOT}:{os.environ.get("PYTHONPATH", "")}')
    script = (
        'import pathlib, time; from xmem_ros.child_process import Child; '
        f'c = Child("sleeper", [], pathlib.Path({str(tmp_path / "log")!r})); '
        'print(c._process.pid, flush=True); time.sleep(600)'
    )
    with subprocess.Popen([sys.executable, '-c', script], stdout=subprocess.PIPE, text=True) as parent:
        number = int(parent.stdout.readline())
        assert is_alive(number)
        parent.kill()
    assert wait_until(lambda: not is_alive(number))


def test_an_ended_child_is_reported_with_the_end_of_its_log(tmp_path, monkeypatch):
    (tmp_path / 'failing.py').write_text('raise SystemExit("no camera at all")')
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{os.environ.get("PYTHONPATH", "")}')
    with Child('failing', [], tmp_path / 'log') as child:
        assert wait_until(lambda: child.exit_code is not None)
        with pytest.raises(ProcessError, match=r'failing ended with exit code 1(.|\n)*no camera at all'):
            child.check_running()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_an_uninterrupted_block(number):
    before = signal.getsignal(number)
    steps = []

    def interrupted_block():
        with uninterrupted():
            os.kill(os.getpid(), number)
            steps.append('the rest of the block')

    with pytest.raises(KeyboardInterrupt):
        interrupted_block()
    assert steps
    assert signal.getsignal(number) == before


def test_an_error_in_an_uninterrupted_block_is_raised_as_it_is():
    with pytest.raises(ProcessError), uninterrupted():
        raise ProcessError
