# SPDX-License-Identifier: MIT
"""Where results are delivered: a folder that appears at once, by being renamed. What stands against that is told first.

No rclpy, no torch.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from xmem_ros.errors import ParameterError


def part_of(out: Path) -> Path:
    """Where the results of a run are made: `.NAME.part` beside the destination."""
    return out.with_name(f'.{out.name}.part')


def check_out(out: Path) -> None:
    """Raise `ParameterError` where results would cover something, or could not be renamed to `out` in the end.

    out: absolute. Nothing is changed.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ParameterError(f'{out}: is there already and not an empty folder; choose another --out or remove it')
    if _is_mounted(out):
        raise ParameterError(
            f'{out}: something is mounted there (a volume of a container, a disk), and results appear by renaming, '
            f'which a mount point does not allow; name a folder in it: --out {out / "result"}'
        )
    above = next(folder for folder in out.parents if folder.exists())
    if not above.is_dir():
        raise ParameterError(f'{out}: {above} is a file, not a folder; choose another --out')
    if not os.access(above, os.W_OK | os.X_OK):
        raise ParameterError(
            f'{out}: {above} cannot be written to, and what is tracked is made there, beside the destination; choose '
            'an --out in a folder that can be written to, or make this one writable'
        )


def _is_mounted(path: Path) -> bool:
    if os.path.ismount(path):
        return True
    try:  # folders of the same file system that are mounted elsewhere
        table = Path('/proc/self/mountinfo').read_text(encoding='utf-8', errors='surrogateescape')
    except OSError:
        return False
    places = (line.split(' ')[4] for line in table.splitlines() if line.count(' ') > 4)
    return str(path) in {re.sub(r'\\([0-7]{3})', lambda found: chr(int(found[1], 8)), place) for place in places}
