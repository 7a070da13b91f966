# SPDX-License-Identifier: MIT
"""Where results are delivered: a folder that appears at once, by being renamed. What stands against that is told first.

No rclpy, no torch.
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

from xmem_ros import atomic, work_folder
from xmem_ros.errors import OutputError, ParameterError, quoted
from xmem_ros.work_folder import LOCK

DELIVERED = 'delivered'
MOST_BYTES = 255  # of a name, on the file systems of Linux
_AROUND = len('..replay')  # bytes that the name of a work folder has beside the destination's


def part_of(out: Path) -> Path:
    """The work folder of a run: `.NAME.part` beside the destination."""
    return out.with_name(f'.{out.name}.part')


def deliver(results: Path, out: Path) -> None:
    """Rename a folder in the part folder to the destination, which may be there empty; raises `OutputError`.

    A note in the part folder says of which folder it is, so that after a crash it can be told that it has arrived.
    """
    try:
        atomic.write_text(part_of(out) / DELIVERED, _mark(results))
        results.rename(out)  # takes the place of an empty folder, and of nothing else
    except OSError as error:
        raise OutputError(f'{out}: results cannot be put there ({error.strerror}); make room for them') from error


def discard(out: Path) -> None:
    """Remove the work folder; the note of what has arrived goes last."""
    work_folder.remove(part_of(out), last=DELIVERED)


def check_out(out: Path) -> None:
    """Raise `ParameterError` where results would cover something, or could not be renamed to `out` in the end.

    out: absolute. Nothing is changed, but what a run left that was killed when its results had arrived is removed.
    """
    check_name(out)
    try:
        out.lstat()
    except (FileNotFoundError, NotADirectoryError):  # which is told below
        pass
    except OSError as error:
        raise ParameterError(f'{out}: no folder can be there ({error.strerror}); choose another --out') from error
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


def resolved(out: Path) -> Path:
    """The destination without links; raises `ParameterError` for one that leads nowhere."""
    try:
        return out.resolve()
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # RuntimeError: of a link to itself, before 3.13
        raise ParameterError(f'{out}: leads nowhere ({error}); choose another --out') from error


def check_name(out: Path) -> None:
    """Raise `ParameterError` for a destination beside which no work folder can lie; out: absolute."""
    if not out.name:
        raise ParameterError(f'{out}: results need a folder of their own; name one in it: --out {out / "result"}')
    if '\0' in str(out) or len(os.fsencode(out.name)) > MOST_BYTES - _AROUND:
        raise ParameterError(
            f'--out ends in {quoted(out.name)}: a name holds no NUL character and at most '
            f'{MOST_BYTES - _AROUND} bytes; choose a shorter one'
        )


def _clear_up(out: Path) -> bool:
    """Remove the work folder of results that have arrived, unless a run is at it; returns whether that was done."""
    part = part_of(out)
    try:
        if not work_folder.is_ours(part) or (part / DELIVERED).read_text(encoding='utf-8') != _mark(out):
            return False
        with atomic.open_lock(part / LOCK) as lock:
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
