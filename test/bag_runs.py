# SPDX-License-Identifier: MIT
"""`xmem-ros track` on a small bag, here and in another process, for tests of runs that do not end well."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
GOES_ON = 'the work so far is kept: run the same command again to resume'


def arguments(bag, out, *more):
    """Of the command line: masks of a bag, with the mask beside it as its seed, in segments of four images."""
    seed = ['--seed', bag.parent / 'mask.png', '--format', 'png']
    return [*map(str, ['track', bag, '--out', out, '--size', 64, '--device', 'cpu', '--segment', 4, *seed, *more])]


def elsewhere(script, *given, wrapped=()):
    """Run a script in another process, with the command line's arguments."""
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    command = [*wrapped, sys.executable, '-c', script, *given]
    return subprocess.run(
        command, env=os.environ | {'PYTHONPATH': path}, capture_output=True, text=True, timeout=300, check=False
    )


def left(folder):
    """What is in a folder beside the bag and its mask."""
    return sorted(file.name for file in folder.iterdir() if file.name not in ('bag', 'mask.png'))


def digests(folder):
    """Name → hash of each file."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}
