# SPDX-License-Identifier: MIT
"""Work folders: marked as ours when they are made, so that nothing that is not ours is emptied or removed.

The mark is a file of a fixed content. A folder without it, or a symbolic link in its place, is left as it is. No torch,
no ROS.
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
from xmem_ros.errors import OutputError, ParameterError

MARK = '.xmem_ros'
LOCK = 'lock'
_TEXT = b'xmem_ros made this folder, and empties and removes it. Keep nothing of your own here.\n'


def make(folder: Path) -> None:
    """Make a folder with its mark, at once; raises `OSError`, as where one of that name is there."""
    if _is_there(folder):
        raise FileExistsError(errno.EEXIST, 'is there already', str(folder))
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
    """Make a folder for results, or empty one that we made; any other with something in it is left as it is.

    what: who makes it, for the error, as in 'a demonstration'.

    Raises:
        ParameterError: somebody else's things are there.
        OSError: the folder cannot be written.
    """
    if is_ours(folder):
        empty(folder)
    elif folder.is_dir() and not any(folder.iterdir()):
        mark(folder)
    elif _is_there(folder):
        raise ParameterError(f'{folder}: is there already and not of {what}; move it away, or choose another --out')
    else:
        make(folder)


def mark(folder: Path) -> None:
    """Mark a folder that was made just now."""
    atomic.write_bytes(folder / MARK, _TEXT, sync=False)


def unmark(folder: Path) -> None:
    """Take the mark away from a folder that is handed over."""
    (folder / MARK).unlink()


def is_ours(folder: Path) -> bool:
    """Whether it is a folder that carries our mark; a link to one does not."""
    try:
        found = stat.S_ISDIR(folder.lstat().st_mode)
        return found and atomic.read_small(folder / MARK, len(_TEXT) + 1) == _TEXT
    except OSError:
        return False


def claim(folder: Path, busy: str) -> IO[bytes]:
    """Make a work folder, or take one that is left of a run that was killed; returns its lock, which is held.

    busy: who may be at it, for the error, as in 'another run'.

    Raises:
        ParameterError: somebody else made the folder, or `busy` is at it.
        OutputError: it cannot be made.
    """
    try:
        with contextlib.suppress(FileExistsError):
            make(folder)
    except OSError as error:
        if not _is_there(folder):
            raise OutputError(f'{folder}: cannot be written ({error.strerror}); choose another --out') from error
    if not is_ours(folder):
        raise ParameterError(
            f'{folder}: is there already and not of a run of xmem-ros; move it away, or choose another --out'
        )
    try:
        lock = atomic.open_lock(folder / LOCK)
    except OSError as error:
        raise OutputError(f'{folder}: cannot be written ({error.strerror}); choose another --out') from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat((folder / LOCK).lstat(), os.fstat(lock.fileno())):
            raise FileNotFoundError  # the run that had it has removed it
    except OSError:
        lock.close()
        raise ParameterError(f'{folder}: {busy} writes there; wait for it, or choose another --out') from None
    return lock


def empty(folder: Path) -> None:
    """Remove all but mark and lock, if the folder is ours; raises `OSError`."""
    if is_ours(folder):
        for item in folder.iterdir():
            if item.name not in (MARK, LOCK):
                _remove(item)


def remove(folder: Path, last: str = '') -> None:
    """Remove a folder that is ours, and leave any other. Its mark goes last, so that the rest can be removed again.

    last: of the other files the one that goes last.
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


def _remove(item: Path) -> None:
    if stat.S_ISDIR(item.lstat().st_mode):
        shutil.rmtree(item)
    else:
        item.unlink()


def _is_there(path: Path) -> bool:
    """Whether anything has the name, a link that leads nowhere, too."""
    return os.path.lexists(path)
