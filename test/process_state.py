# SPDX-License-Identifier: MIT
"""Waiting for processes, for tests that start some."""

from __future__ import annotations

import time
from pathlib import Path


def is_alive(number):
    try:
        state = Path(f'/proc/{number}/stat').read_text().rpartition(')')[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != 'Z'


def wait_until(done, seconds=20.0):
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.05)
    return done()
