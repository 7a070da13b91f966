# SPDX-License-Identifier: MIT
"""Where results are delivered: a folder that appears at once, by being renamed. What stands against that is told first.

No rclpy, no torch.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from pathlib import Path

from xmem_ros.errors import OutputError, ParameterError

LOCK = 'lock'
DELIVERED = 'delivered'


def part_of(out: Path) -> Path:
    """Where the results of a run are made: `.NAME.part` beside the destination."""
    return out.with_name(f'.{out.name}.part')


def deliver(results: Path, out: Path) -> None:
    """Rename a folder in the part folder to the destination, which may be there empty; raises `OutputError`.

    A note in the part folder says of which folder it is, so that after a crash it can be told that it has arrived.
    """
    try:
        (part_of(out) / DELIVERED).write_text(_mark(results), encoding='utf-8')
        if out.exists():
            out.rmdir()
        results.rename(out)
    except OSError as error:
        raise OutputError(f'{out}: results cannot be put there ({error.strerror}); make room for them') from error


def discard(out: Path) -> None:
    """Remove the part folder; the note of what has arrived goes last."""
    part = part_of(out)
    if (part / DELIVERED).exists():
        for item in part.iterdir():
            if item.name not in (LOCK, DELIVERED):
                shutil.rmtree(item, ignore_errors=True) if item.is_dir() else item.unlink(missing_ok=True)
    shutil.rmtree(part, ignore_errors=True)


def check_out(out: Path) -> None:
    """Raise `ParameterError` where results would cover something, or could not be renamed to `out` in the end.

    out: absolute. Nothing is changed, but what a run left that was killed when its results had arrived is removed.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if _clear_up(out):
            raise ParameterError(
                f'{out}: the results are there, whole: the run that was killed had delivered them. What else it left '
                'is removed now; nothing remains to be done'
            )
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


def _clear_up(out: Path) -> bool:
    """Remove the part folder of results that have arrived, unless a run is at it; returns whether that was done."""
    part = part_of(out)
    try:
        if (part / DELIVERED).read_text(encoding='utf-8') != _mark(out):
            return False
        with (part / LOCK).open('w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            discard(out)
    except (OSError, ValueError):
        return False
    return not part.exists()


def _mark(folder: Path) -> str:
    """Of a folder, whatever it is called."""
    return f'{folder.stat().st_ino}'


def _is_mounted(path: Path) -> bool:
    if os.path.ismount(path):
        return True
    try:  # folders of the same file system that are mounted elsewhere
        table = Path('/proc/self/mountinfo').read_text(encoding='utf-8', errors='surrogateescape')
    except OSError:
        return False
    places = (line.split(' ')[4] for line in table.splitlines() if line.count(' ') > 4)
    return str(path) in {re.sub(r'\\([0-7]{3})', lambda found: chr(int(found[1], 8)), place) for place in places}
