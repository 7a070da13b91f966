# SPDX-License-Identifier: MIT
"""Work folders with a marker file; only marked folders are ever emptied or removed.

The marker has a fixed content. A folder without it, or a symbolic link to a marked one, is left
alone. No torch, no ROS.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from pathlib import Path
from typing import IO

from xmem_ros import atomic
from xmem_ros.errors import OutputError, ParameterError, Setting, naming

MARK = '.xmem_ros'
LOCK = 'lock'
_TEXT = b'xmem_ros made this folder, and empties and removes it. Keep nothing of your own here.\n'


def make(folder: Path) -> None:
    """Create a marked folder atomically; raises `OSError`, also if the name exists."""
    if _exists(folder):
        raise FileExistsError(errno.EEXIST, 'already exists', str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = atomic.temporary_name(folder)
    part.mkdir()
    try:
        mark(part)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def fresh(folder: Path, what: str) -> None:
    """Create a folder for results, or empty a marked one.

    what: the program that makes such folders, for the error, as in 'a demonstration'.

    Raises:
        ParameterError: an unmarked folder with content exists.
        OSError: the folder cannot be written.
    """
    if is_ours(folder):
        empty(folder)
    elif folder.is_dir() and not any(folder.iterdir()):
        mark(folder)
    elif _exists(folder):
        error = ParameterError(
            f'{folder}: already exists and was not made by {what}; move it away or choose another folder'
        )
        raise naming(Setting.DESTINATION, error)
    else:
        make(folder)


def mark(folder: Path) -> None:
    """Mark a new folder."""
    atomic.write_bytes(folder / MARK, _TEXT, sync=False)


def unmark(folder: Path) -> None:
    """Remove the marker from a finished folder."""
    (folder / MARK).unlink()


def is_ours(folder: Path) -> bool:
    """Return whether a path is a marked folder; a link to one is not."""
    try:
        found = stat.S_ISDIR(folder.lstat().st_mode)
        return found and atomic.read_small(folder / MARK, len(_TEXT) + 1) == _TEXT
    except OSError:
        return False


def claim(folder: Path, busy: str) -> IO[bytes]:
    """Create a work folder, or reuse that of a killed run; return its held lock.

    busy: the process that may hold the lock, for the error, as in 'another run'.

    Raises:
        ParameterError: the folder is unmarked, or `busy` holds its lock.
        OutputError: the folder cannot be created.
    """
    try:
        with contextlib.suppress(FileExistsError):
            make(folder)
    except OSError as error:
        if not _exists(folder):
            raise _unwritable(folder, error) from error
    if not is_ours(folder):
        raise naming(
            Setting.DESTINATION,
            ParameterError(
                f'{folder}: already exists and was not made by a run of xmem-ros; move it away or choose '
                'another destination'
            ),
        )
    try:
        lock = atomic.open_lock(folder / LOCK)
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat((folder / LOCK).lstat(), os.fstat(lock.fileno())):
            raise FileNotFoundError  # its previous owner has removed it
    except OSError:
        lock.close()
        text = f'{folder}: {busy} is writing there; wait for it or choose another destination'
        raise naming(Setting.DESTINATION, ParameterError(text)) from None
    return lock


def empty(folder: Path) -> None:
    """Empty a marked folder, except for marker and lock; raises `OSError`."""
    if is_ours(folder):
        for item in folder.iterdir():
            if item.name not in (MARK, LOCK):
                _remove(item)


def remove(folder: Path, last: str = '') -> None:
    """Remove a marked folder; any other is left alone.

    The marker is removed last, so that an interrupted removal can be repeated.
    last: name of the file that is removed last before lock and marker.
    """
    if not is_ours(folder):
        return
    with contextlib.suppress(OSError):
        for item in sorted(folder.iterdir(), key=lambda item: item.name == last):
            if item.name not in (MARK, LOCK):
                _remove(item)
        for name in (LOCK, MARK):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def _unwritable(folder: Path, error: OSError) -> Exception:
    text = f'{folder}: cannot be written ({error.strerror}); choose another destination'
    return naming(Setting.DESTINATION, OutputError(text))


def _remove(item: Path) -> None:
    if stat.S_ISDIR(item.lstat().st_mode):
        shutil.rmtree(item)
    else:
        item.unlink()


def _exists(path: Path) -> bool:
    """Return whether the name exists, dangling links included."""
    return os.path.lexists(path)
