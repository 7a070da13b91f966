# SPDX-License-Identifier: MIT
"""Destination folder of results: checks beforehand, and delivery by a rename.

Imports neither rclpy nor torch.
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

from xmem_ros import atomic, work_folder
from xmem_ros.errors import OutputError, ParameterError, Setting, naming, quoted
from xmem_ros.work_folder import LOCK

DELIVERED = 'delivered'
MAX_NAME_BYTES = 255  # on Linux file systems
_WORK_FOLDER_AFFIX_BYTES = len('..replay')  # added to the destination's name for a work folder


def work_folder_of(out: Path) -> Path:
    """Return the work folder of a run: `.NAME.part` beside the destination."""
    return out.with_name(f'.{out.name}.part')


def deliver(results: Path, out: Path) -> None:
    """Rename a folder of the work folder to the destination, which may exist if empty.

    The inode is noted first, so that a completed delivery is recognised after a crash.
    Raises `OutputError`.
    """
    try:
        atomic.write_text(work_folder_of(out) / DELIVERED, _inode(results))
        results.rename(out)  # replaces an empty folder, and nothing else
    except OSError as error:
        raise OutputError(
            f'{out}: the results cannot be moved there ({error.strerror}); remove or rename the existing file or folder'
        ) from error


def discard(out: Path) -> None:
    """Remove the work folder, the delivery note last."""
    work_folder.remove(work_folder_of(out), last=DELIVERED)


def check_destination(out: Path) -> None:
    """Raise `ParameterError` unless a folder can be renamed to the destination.

    out: absolute. The only change is that the work folder of a delivered run is removed.
    """
    check_name(out)
    try:
        out.lstat()
    except (FileNotFoundError, NotADirectoryError):  # reported below
        pass
    except OSError as error:
        raise _misplaced(f'{out}: it cannot be a folder ({error.strerror}); choose another destination') from error
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if _remove_delivered(out):
            raise ParameterError(
                f'{out}: already has complete results, from a run that was killed after delivering them; its work '
                'folder has been removed, and nothing is left to do'
            )
        raise _misplaced(f'{out}: already exists and is not an empty folder; remove it or choose another destination')
    if _is_mounted(out):
        raise _misplaced(
            f'{out}: is a mount point (a container volume or a disk), which a folder cannot be renamed to; '
            f'name a folder in it, such as {out / "result"}'
        )
    above = next(folder for folder in out.parents if folder.exists())
    if not above.is_dir():
        raise _misplaced(f'{out}: {above} is a file, not a folder; choose another destination')
    if not os.access(above, os.W_OK | os.X_OK):
        raise _misplaced(
            f'{out}: {above} is not writable, and the work folder is created there; make it writable, or choose a '
            'destination in a writable folder'
        )


def resolved(out: Path) -> Path:
    """Return the destination without symbolic links; raises `ParameterError` for a loop."""
    try:
        return out.resolve()
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # RuntimeError: link loop, before Python 3.13
        raise _misplaced(f'{out}: cannot be resolved ({error}); choose another destination') from error


def check_name(out: Path) -> None:
    """Raise `ParameterError` for a name too long for a work folder's name; out: absolute."""
    if not out.name:
        raise _misplaced(f'{out}: results need their own folder; name one in it, such as {out / "result"}')
    if '\0' in str(out) or len(os.fsencode(out.name)) > MAX_NAME_BYTES - _WORK_FOLDER_AFFIX_BYTES:
        raise _misplaced(
            f'the destination ends in {quoted(out.name)}: a name has at most '
            f'{MAX_NAME_BYTES - _WORK_FOLDER_AFFIX_BYTES} bytes and no NUL character; choose another one'
        )


def _misplaced(text: str) -> Exception:
    return naming(Setting.DESTINATION, ParameterError(text))


def _remove_delivered(out: Path) -> bool:
    """Remove the work folder of delivered results, if it is not locked; return whether it was."""
    part = work_folder_of(out)
    try:
        if not work_folder.is_ours(part) or (part / DELIVERED).read_text(encoding='utf-8') != _inode(out):
            return False
        with atomic.open_lock(part / LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            discard(out)
    except (OSError, ValueError):
        return False
    return not part.exists()


def _inode(folder: Path) -> str:
    """Return a folder's inode number, which a rename keeps."""
    return f'{folder.stat().st_ino}'


def _is_mounted(path: Path) -> bool:
    if os.path.ismount(path):
        return True
    try:  # bind mounts, which ismount misses
        table = Path('/proc/self/mountinfo').read_text(encoding='utf-8', errors='surrogateescape')
    except OSError:
        return False
    places = (line.split(' ')[4] for line in table.splitlines() if line.count(' ') > 4)
    return str(path) in {re.sub(r'\\([0-7]{3})', lambda found: chr(int(found[1], 8)), place) for place in places}
