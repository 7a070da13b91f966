# SPDX-License-Identifier: MIT
"""Fetch a large file over HTTP: what has come is kept when the connection breaks, and the rest is asked for.

A server is not trusted with a size, a name or a place: a file is bounded, redirects lead to HTTPS alone, and nothing is
written through a link.
"""

from __future__ import annotations

import http.client
import os
import re
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from xmem_ros.errors import OutputError, WeightsError, quoted
from xmem_ros.progress import Bar

if TYPE_CHECKING:
    from pathlib import Path

ATTEMPTS = 4  # in a row that bring nothing
PAUSE = 1.0  # s, before the second; each further one waits twice as long
TIMEOUT = 30.0  # s without a byte
CHUNK = 1 << 20  # bytes

_BUSY = (http.client.REQUEST_TIMEOUT, http.client.TOO_MANY_REQUESTS)  # which pass, as those from 500 on do


_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,200}"')


class _ToHttps(urllib.request.HTTPRedirectHandler):
    """Follows redirects to HTTPS alone."""

    def redirect_request(self, *args: Any) -> urllib.request.Request | None:
        """As the base class; the last argument is where the server sends us."""
        if urllib.parse.urlsplit(args[-1]).scheme != 'https':
            raise WeightsError(f'the server leads to {quoted(args[-1])}, and only https:// is followed')
        return super().redirect_request(*args)


class _IncompleteError(Exception):
    """The connection ended before the file did."""


def download(url: str, part: Path, *, most: int, size: int | None = None, progress: bool = True) -> int:
    """Fetch a file to `part`, going on where an earlier attempt stopped; returns its size in bytes.

    Beside it lies what the server calls this version of the file (its ETag), so that two versions are never joined.

    Arguments:
        url: of the file.
        part: where it goes; its folder is there.
        most: bytes that it may have.
        size: bytes that it must have, where that is known.
        progress: show a bar.

    Raises:
        WeightsError: there is no network, the server refuses, or the file has another size; what has come is kept but
            in the last case.
        OutputError: `part` cannot be written, or is a link or somebody else's file.
    """
    if urllib.parse.urlsplit(url).scheme not in ('https', 'http'):
        raise WeightsError(f'{quoted(url)} cannot be fetched: give an address that begins with https:// (or http://)')
    failures, pause = 0, PAUSE
    with Bar(total=size, unit='B', unit_scale=True, desc=url.rsplit('/', 1)[-1], disable=not progress) as bar:
        while True:
            before = _length(part)
            try:
                return _attempt(url, part, size, most, bar)
            except (http.client.HTTPException, urllib.error.URLError, _IncompleteError) as error:
                if isinstance(error, urllib.error.HTTPError) and error.code not in _BUSY and error.code < 500:
                    raise WeightsError(f'{url}: the server answers {error.code} {error.reason}') from error
                failures = 1 if _length(part) > before else failures + 1
                if failures >= ATTEMPTS:
                    raise WeightsError(f'{url}: cannot be fetched ({getattr(error, "reason", error)})') from error
            time.sleep(pause * 2 ** (failures - 1))


def _attempt(url: str, part: Path, size: int | None, most: int, bar: Bar) -> int:
    """One connection: fetch from where `part` ends; returns the size of the whole file."""
    begin, version = _length(part), part.with_name(f'{part.name}.etag')
    request = urllib.request.Request(url)  # noqa: S310  # the opener knows HTTP and HTTPS alone
    if begin:
        request.add_header('Range', f'bytes={begin}-')
        if _length(version):
            tag = version.read_text(errors='replace')
            if not _ETAG.fullmatch(tag):
                _forget(part, version)
                raise _IncompleteError('what had been fetched is of an unknown version; it is fetched anew')
            request.add_header('If-Range', tag)
    try:
        response = urllib.request.build_opener(_ToHttps).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and begin:
            whole = re.fullmatch(r'bytes \*/([0-9]{1,18})', error.headers.get('Content-Range', ''))
            if whole and int(whole[1]) == begin and size in (None, begin):
                return begin
            _forget(part, version)
            raise _IncompleteError('what had been fetched belongs to another file; it is fetched anew') from error
        raise
    except urllib.error.URLError:
        raise
    except OSError as error:
        raise _IncompleteError(str(error)) from error
    with response:
        begin, total = _begin_and_total(response, begin)
        if size is not None and total not in (None, size):
            _forget(part, version)
            raise WeightsError(f'{url}: the server has a file of {total} bytes, and it must have {size}')
        if total is not None and total > most:
            _forget(part, version)
            raise WeightsError(f'{url}: the server has a file of {total} bytes; at most {most} are fetched')
        bar.total = total
        bar.n = begin
        bar.refresh()
        try:
            tag = response.headers.get('ETag') or ''
            if _ETAG.fullmatch(tag):
                with _open(version) as file:
                    file.write(tag.encode())
            else:
                version.unlink(missing_ok=True)
            with _open(part, append=begin > 0) as file:
                while chunk := _read(response):
                    if file.tell() + len(chunk) > min(most, size or most):
                        break
                    file.write(chunk)
                    bar.update(len(chunk))
        except OSError as error:  # of the files: those of the connection are _IncompleteError
            raise OutputError(
                f'{part}: cannot be written ({error.strerror or error}); make room and try again'
            ) from error
    if chunk:
        _forget(part, version)
        raise WeightsError(f'{url}: the server sends more than {min(most, size or most)} bytes, which it may not have')
    got = _length(part)
    if total is not None and got < total:
        raise _IncompleteError(f'the connection ended after {got} of {total} bytes')
    if total is not None and got > total:
        _forget(part, version)
        raise _IncompleteError(f'{got} bytes came of {total}, from two fetches at once; it is fetched anew')
    version.unlink(missing_ok=True)
    return got


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK)  # what there is: a connection that breaks takes nothing with it
    except OSError as error:  # reset, no route any more, TLS that ends too early
        raise _IncompleteError(str(error)) from error


def _begin_and_total(response: http.client.HTTPResponse, wanted: int) -> tuple[int, int | None]:
    """Where what the server sends begins in the file, and the file's size."""
    if response.status == http.client.PARTIAL_CONTENT:
        given = re.fullmatch(
            r'bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})', response.headers.get('Content-Range', '')
        )
        if given and int(given[1]) == wanted:
            return wanted, int(given[2])
        raise _IncompleteError('the server sent another part than was asked for')
    length = response.headers.get('Content-Length')
    return 0, int(length) if length and re.fullmatch('[0-9]{1,18}', length) else None


def _forget(part: Path, version: Path) -> None:
    part.unlink(missing_ok=True)
    version.unlink(missing_ok=True)


def _open(path: Path, *, append: bool = False) -> IO[bytes]:
    """Open for writing what is no link and nobody else's; raises `OSError`, `OutputError`."""
    _length(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_APPEND if append else 0)
    descriptor = os.open(path, flags, 0o644)
    try:
        _check_ours(path, os.fstat(descriptor))
        if not append:
            os.ftruncate(descriptor, 0)
        return os.fdopen(descriptor, 'ab' if append else 'wb')
    except BaseException:
        with suppress(OSError):
            os.close(descriptor)
        raise


def _length(path: Path) -> int:
    """Bytes of a file of ours, 0 where none is; raises `OutputError` where something else is in its place."""
    try:
        found = path.lstat()
    except OSError:
        return 0
    _check_ours(path, found)
    return found.st_size


def _check_ours(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
        raise OutputError(f'{path}: cannot be written: it is a link, no file, or of another user; remove it')
