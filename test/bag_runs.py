# SPDX-License-Identifier: MIT
"""Runs of `xmem-ros track` on a small bag, for tests of interrupted and failed runs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
GOES_ON = 'the work so far is kept: run the same command again to resume'


def arguments(bag, out, *more):
    """Return arguments that track a bag in segments of 4 images, seeded by mask.png beside it."""
    seed = ['--seed', bag.parent / 'mask.png', '--format', 'png']
    return [*map(str, ['track', bag, '--out', out, '--size', 64, '--device', 'cpu', '--segment', 4, *seed, *more])]


def elsewhere(script, *given, wrapped=()):
    """Run a Python script in another process with command-line arguments."""
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    command = [*wrapped, sys.executable, '-c', script, *given]
    return subprocess.run(
        command, env=os.environ | {'PYTHONPATH': path}, capture_output=True, text=True, timeout=300, check=False
    )


def left(folder):
    """List the files of a folder except the bag and its mask."""
    return sorted(file.name for file in folder.iterdir() if file.name not in ('bag', 'mask.png'))


def digests(folder):
    """Return name → hash of each file."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}
