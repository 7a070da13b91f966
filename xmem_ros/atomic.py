# SPDX-License-Identifier: MIT
"""Atomic file writes: a file is written beside its place and renamed, so that it appears whole or not at all.

Temporary names cannot be guessed. A symbolic link, a folder or a device in the file's place is refused, never followed
or replaced. A file that is replaced keeps its mode; a new one has the mode that the umask allows. No torch, no ROS.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

PART = '.part'  # ending of temporary files
_KEPT = 40  # characters of a name that its temporary name begins with: the longest names have no room for more


class Replacement:
    """A file that takes its place when it is committed; a context manager that commits unless an error leaves it.

    Arguments:
        target: the file to make or to replace.
        suffix: ending of the temporary name, for libraries that tell a format by it.
        sync: have the disk hold the content before the name is given, so that a loss of power leaves the old file.

    Attributes:
        path: the temporary file, which is there and empty. Write it by name, then commit.

    Raises:
        OSError: something else than a regular file is at `target`, or nothing can be written there.
    """

    def __init__(self, target: Path, *, suffix: str = PART, sync: bool = True) -> None:
        self.target, self._sync = target, sync
        mode = _mode_of(target)
        self.path = temporary_name(target, suffix)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        self._mode = stat.S_IMODE(os.fstat(descriptor).st_mode) if mode is None else mode
        os.close(descriptor)

    def commit(self) -> None:
        """Give the file its name; raises `OSError`, and then nothing has changed."""
        try:
            self._settle()
            _mode_of(self.target)  # a link may have come meanwhile
            self.path.replace(self.target)
        except BaseException:
            self.discard()
            raise
        if self._sync:
            sync_folder(self.target.parent)

    def discard(self) -> None:
        """Remove the temporary file."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    def _settle(self) -> None:
        """Set the mode, which the library that wrote may have changed, and put the content on the disk."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, 'its temporary file was exchanged', str(self.path))
            if stat.S_IMODE(found.st_mode) != self._mode:
                os.fchmod(descriptor, self._mode)
            if self._sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def __enter__(self) -> Replacement:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()


@contextlib.contextmanager
def writing(target: Path, *, suffix: str = PART, sync: bool = True) -> Iterator[Path]:
    """The temporary file to write by its name; it takes its place when the block ends without an error."""
    with Replacement(target, suffix=suffix, sync=sync) as replacement:
        yield replacement.path


def write_bytes(target: Path, data: bytes, *, sync: bool = True) -> None:
    """Write a file at once; raises `OSError`."""
    with writing(target, sync=sync) as path:
        path.write_bytes(data)


def write_text(target: Path, text: str, *, sync: bool = True) -> None:
    """Write a text in UTF-8 at once; raises `OSError`. What UTF-8 cannot hold is escaped with a backslash."""
    write_bytes(target, text.encode('utf-8', errors='backslashreplace'), sync=sync)


def open_new(target: Path) -> IO[bytes]:
    """Open a file that is written over a long time, such as a log; an old one of that name is emptied.

    Raises:
        OSError: a symbolic link or something else than a regular file is there.
    """
    return _opened(target, os.O_WRONLY | os.O_TRUNC, 'wb')


def open_append(target: Path) -> IO[bytes]:
    """Open a file to add to it, unbuffered; raises `OSError` as `open_new`."""
    return _opened(target, os.O_WRONLY | os.O_APPEND, 'ab')


def open_lock(target: Path) -> IO[bytes]:
    """Open a file to lock; what it holds stays. Raises `OSError` as `open_new`."""
    return _opened(target, os.O_RDWR, 'r+b')


def read_small(path: Path, most: int) -> bytes:
    """The first `most` bytes of a regular file that is no link; raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, 'rb') as file:
        _check_regular(os.fstat(descriptor), path)
        return file.read(most)


def check_target(target: Path) -> None:
    """Raise `OSError` for a file that could not be written; a folder that is not there is no hindrance."""
    _mode_of(target)
    temporary_name(target)
    if target.parent.is_dir() and not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f'{target.parent} allows no new files', str(target))


def temporary_name(target: Path, suffix: str = PART) -> Path:
    """A name beside the target that nobody can guess; its length does not depend on the target's."""
    if not target.name:
        raise IsADirectoryError(errno.EISDIR, 'it is a folder', str(target))
    begins = target.name[:_KEPT].encode('utf-8', 'ignore').decode().lstrip('.')
    return target.with_name(f'.{begins}.{secrets.token_hex(8)}{suffix}')


@contextlib.contextmanager
def utf8_name(path: Path) -> Iterator[Path]:
    """A name of a file in UTF-8, for libraries that open no other: its own, or a link in a folder of ours."""
    if _is_utf8(str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix='xmem_ros_') as folder:
        if _is_utf8(path.name):
            link = Path(folder) / 'folder'
            link.symlink_to(path.parent.absolute(), target_is_directory=True)
            yield link / path.name
        else:
            link = Path(folder) / f'file{path.suffix if _is_utf8(path.suffix) else ""}'
            link.symlink_to(path.absolute())
            yield link


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Have the disk hold the names in a folder, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # of file systems that sync no folders
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _opened(target: Path, flags: int, mode: str) -> IO[bytes]:
    # emptied only when it is known for a regular file
    descriptor = os.open(
        target, (flags & ~os.O_TRUNC) | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666
    )
    try:
        _check_regular(os.fstat(descriptor), target)
        os.set_blocking(descriptor, True)
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
        return os.fdopen(descriptor, mode, buffering=0)
    except BaseException:
        os.close(descriptor)
        raise


def _mode_of(target: Path) -> int | None:
    """The mode of the file that is to be replaced; None: there is none. Raises `OSError` for what is no file."""
    if '\0' in str(target):
        raise OSError(errno.EINVAL, 'its name holds a NUL character')
    try:
        found = target.lstat()
    except FileNotFoundError:
        return None
    _check_regular(found, target)
    return stat.S_IMODE(found.st_mode) & 0o777


def _check_regular(found: os.stat_result, path: Path) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, 'it is a symbolic link, and none is followed: name the file itself', str(path))
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, 'it is a folder', str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, 'it is not a regular file', str(path))
