# SPDX-License-Identifier: MIT
"""Progress lines of `make build` while pip runs."""

import shutil
import subprocess
import threading
from pathlib import Path

import pytest

PROGRESS = Path(__file__).resolve().parents[2] / 'tools' / 'progress.sh'
LONGEST_S = 120.0  # on a busy machine
pytestmark = pytest.mark.skipif(shutil.which('bash') is None, reason='there is no bash')


@pytest.fixture
def shown():
    """A process that prints progress each second: pip's output in, lines out."""
    with subprocess.Popen(
        ['bash', '-euo', 'pipefail', '-c', f'. "{PROGRESS}"; pip_progress 1'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        watchdog = threading.Timer(LONGEST_S, process.kill)
        watchdog.start()
        yield process
        watchdog.cancel()
        process.kill()


def until(process, text):
    """Return the first line that contains the text."""
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f'{text!r} was not said')


def test_the_current_step_of_pip_is_printed_with_the_time_even_while_pip_is_silent(shown):
    for words, said in (
        ('Collecting torch>=2.4 (from xmem-ros==0.1.0)', 'finding out what is needed: package 1, torch>=2.4'),
        ('  Downloading torch-2.9.1-cp311-cp311-manylinux_2_28_x86_64.whl (899.8 MB)', 'downloading torch (899.8 MB)'),
        ('  Building editable for xmem_ros (pyproject.toml): started', 'building xmem_ros'),
        ('Installing collected packages: a, b, c', 'unpacking 3 packages'),
    ):
        shown.stdin.write(words + '\n')
        first = until(shown, said)
        assert first.split(' s:')[0].strip().isdigit()
        later = until(shown, said)  # nothing was said meanwhile
        assert int(later.split(' s:')[0]) > int(first.split(' s:')[0])


def test_progress_ends_with_pip(shown):
    shown.stdin.write('Collecting torch\n')
    shown.stdin.close()
    assert shown.wait(30) == 0


@pytest.mark.parametrize(('seconds', 'text'), [(0, '0 s'), (59, '59 s'), (60, '1 min 00 s'), (3787, '63 min 07 s')])
def test_times_are_printed_in_minutes_and_seconds(seconds, text):
    command = ['bash', '-euo', 'pipefail', '-c', f'. "{PROGRESS}"; elapsed {seconds}']
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == text
