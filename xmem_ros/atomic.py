# SPDX-License-Identifier: MIT
"""Atomic file writes: a temporary file beside the target, then a rename.

Temporary names are random. A symbolic link, folder or device at the target is refused, never
followed or replaced. A replaced file keeps its mode; a new one gets the umask's. No torch, no ROS.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

PART = '.part'  # suffix of temporary files
_PREFIX_LENGTH = 40  # characters of the target's name in the temporary name


_unfinished: set[Path] = set()  # temporary files of this process


def discard_unfinished() -> None:
    """Remove the temporary files of a process that is about to end."""
    for path in list(_unfinished):
        with contextlib.suppress(OSError):
            path.unlink()


class Replacement:
    """A new version of a file; a context manager that commits unless its block raises.

    Arguments:
        target: the file to create or replace.
        suffix: suffix of the temporary name, for libraries that derive the format from it.
        sync: flush the content to disk before the rename, so that a power cut leaves the old file.

    Attributes:
        path: the temporary file, created empty. Write it by name, then commit.

    Raises:
        OSError: `target` is not a regular file, or its folder is not writable.
    """

    def __init__(self, target: Path, *, suffix: str = PART, sync: bool = True) -> None:
        self.target, self._sync = target, sync
        mode = _mode_of(target)
        self.path = temporary_name(target, suffix)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        _unfinished.add(self.path)
        self._mode = stat.S_IMODE(os.fstat(descriptor).st_mode) if mode is None else mode
        os.close(descriptor)

    def commit(self) -> None:
        """Rename the file to the target; raises `OSError` with the target unchanged."""
        try:
            self._finalize()
            _mode_of(self.target)  # a link may have appeared meanwhile
            self.path.replace(self.target)
        except BaseException:
            self.discard()
            raise
        _unfinished.discard(self.path)
        if self._sync:
            sync_folder(self.target.parent)

    def discard(self) -> None:
        """Remove the temporary file."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        _unfinished.discard(self.path)

    def _finalize(self) -> None:
        """Restore the mode, which the writing library may have changed, and flush the content."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, 'its temporary file was replaced by another program', str(self.path))
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
    """Yield the temporary path to write; the target is replaced unless the block raises."""
    with Replacement(target, suffix=suffix, sync=sync) as replacement:
        yield replacement.path


def write_bytes(target: Path, data: bytes, *, sync: bool = True) -> None:
    """Write a file atomically; raises `OSError`."""
    with writing(target, sync=sync) as path:
        path.write_bytes(data)


def write_text(target: Path, text: str, *, sync: bool = True) -> None:
    """Write UTF-8 text atomically; raises `OSError`. Lone surrogates are backslash-escaped."""
    write_bytes(target, text.encode('utf-8', errors='backslashreplace'), sync=sync)


def open_new(target: Path) -> IO[bytes]:
    """Open and truncate a file that is written over a long time, such as a log.

    Raises:
        OSError: a symbolic link or another non-regular file has this name.
    """
    return _opened(target, os.O_WRONLY | os.O_TRUNC, 'wb')


def open_append(target: Path) -> IO[bytes]:
    """Open a file for appending, unbuffered; raises `OSError` as `open_new`."""
    return _opened(target, os.O_WRONLY | os.O_APPEND, 'ab')


def open_lock(target: Path) -> IO[bytes]:
    """Open a file to lock, content kept; raises `OSError` as `open_new`."""
    return _opened(target, os.O_RDWR, 'r+b')


def read_small(path: Path, max_bytes: int) -> bytes:
    """Read up to `max_bytes` of a regular file; a link or another file raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, 'rb') as file:
        _check_regular(os.fstat(descriptor), path)
        return file.read(max_bytes)


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file to read; links are followed.

    Raises `OSError`, also for a pipe, which could block, or a device, which may be endless.
    """
    if '\0' in str(path):
        raise OSError(errno.EINVAL, 'its name holds a NUL character')
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_regular(os.fstat(descriptor), path)
        return os.fdopen(descriptor, 'rb')
    except BaseException:
        os.close(descriptor)
        raise


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a plain file, in hexadecimal; raises OSError."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_target(target: Path) -> None:
    """Raise `OSError` for a file that could not be written; its folder need not exist yet."""
    _mode_of(target)
    temporary_name(target)
    if target.parent.is_dir() and not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f'files cannot be created in {target.parent}', str(target))


def temporary_name(target: Path, suffix: str = PART) -> Path:
    """Return a random name beside the target, of bounded length."""
    if not target.name:
        raise IsADirectoryError(errno.EISDIR, 'it is a folder', str(target))
    prefix = target.name[:_PREFIX_LENGTH].encode('utf-8', 'ignore').decode().lstrip('.')
    return target.with_name(f'.{prefix}.{secrets.token_hex(8)}{suffix}')


@contextlib.contextmanager
def utf8_name(path: Path) -> Iterator[Path]:
    """Yield a UTF-8 path of a file, for libraries that need one: its own, or a temporary link."""
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
    """Flush a folder's entries to disk, if the file system supports it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot sync folders
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _opened(target: Path, flags: int, mode: str) -> IO[bytes]:
    # truncated only once it is known to be a regular file
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
    """Return the mode of an existing target, or None; raises `OSError` unless it is a file."""
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
        raise OSError(errno.ELOOP, 'it is a symbolic link, which is not followed; name the file itself', str(path))
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, 'it is a folder', str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, 'it is not a regular file', str(path))
