# SPDX-License-Identifier: MIT
"""Resumable HTTP download of a large file.

The server is not trusted: the file's size is bounded, redirects are followed to HTTPS only, and
nothing is written through a link.
"""

from __future__ import annotations

import errno
import http.client
import os
import re
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

from xmem_ros import atomic
from xmem_ros.errors import OutputError, WeightsError, quoted
from xmem_ros.progress import Bar

if TYPE_CHECKING:
    from pathlib import Path

ATTEMPTS = 4  # maximum of consecutive attempts without progress
PAUSE = 1.0  # s, before the second attempt; doubles for each further one
TIMEOUT = 30.0  # s without data
CHUNK = 1 << 20  # bytes

_BUSY = (http.client.REQUEST_TIMEOUT, http.client.TOO_MANY_REQUESTS)  # temporary, like codes from 500
_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,200}"')


class _HttpsRedirectHandler(urllib.request.HTTPRedirectHandler):
    """Handler that follows redirects to HTTPS only."""

    def redirect_request(self, *args: Any) -> urllib.request.Request | None:
        """Check the new address (the last argument), then follow it as the base class does."""
        if urllib.parse.urlsplit(args[-1]).scheme != 'https':
            raise WeightsError(f'the server redirects to {quoted(args[-1])}; only https:// is allowed')
        return super().redirect_request(*args)


class _IncompleteError(Exception):
    """The connection ended before the file was complete."""


def download(url: str, part: Path, *, most: int, size: int | None = None, progress: bool = True) -> int:
    """Download a file to `part`, resuming an earlier attempt; returns its size [bytes].

    The file's ETag is kept beside `part`, so that two versions are never mixed.

    Arguments:
        url: address of the file.
        part: target, in an existing folder.
        most: largest allowed size [bytes].
        size: required size [bytes], if known.
        progress: show a progress bar.

    Raises:
        WeightsError: no network, an error of the server, or a wrong size. The received part is
            kept, except after a wrong size.
        OutputError: `part` cannot be written, is a link, or belongs to another user.
    """
    if urllib.parse.urlsplit(url).scheme not in ('https', 'http'):
        raise WeightsError(f'{quoted(url)} is not a valid address: give one that begins with https:// (or http://)')
    failures, pause = 0, PAUSE
    with Bar(total=size, unit='B', unit_scale=True, desc=url.rsplit('/', 1)[-1], disable=not progress) as bar:
        while True:
            before = _length(part)
            try:
                return _attempt(url, part, size, most, bar)
            except (http.client.HTTPException, urllib.error.URLError, _IncompleteError) as error:
                if isinstance(error, urllib.error.HTTPError) and error.code not in _BUSY and error.code < 500:
                    raise WeightsError(f'{url}: the server responded {error.code} {error.reason}') from error
                failures = 1 if _length(part) > before else failures + 1
                if failures >= ATTEMPTS:
                    raise WeightsError(f'{url}: download failed ({getattr(error, "reason", error)})') from error
            time.sleep(pause * 2 ** (failures - 1))


def _attempt(url: str, part: Path, size: int | None, most: int, bar: Bar) -> int:
    """Download from the end of `part` over one connection; returns the size of the file."""
    begin, etag_file = _length(part), part.with_name(f'{part.name}.etag')
    request = urllib.request.Request(url)  # noqa: S310  # the opener knows HTTP and HTTPS alone
    if begin:
        request.add_header('Range', f'bytes={begin}-')
        if _length(etag_file):
            tag = etag_file.read_text(errors='replace')
            if not _ETAG.fullmatch(tag):
                _discard(part, etag_file)
                raise _IncompleteError('the version of the partial download is unknown; starting over')
            request.add_header('If-Range', tag)
    try:
        response = urllib.request.build_opener(_HttpsRedirectHandler).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and begin:
            whole = re.fullmatch(r'bytes \*/([0-9]{1,18})', error.headers.get('Content-Range', ''))
            if whole and int(whole[1]) == begin and size in (None, begin):
                return begin
            _discard(part, etag_file)
            raise _IncompleteError('the partial download belongs to another file; starting over') from error
        raise
    except urllib.error.URLError:
        raise
    except OSError as error:
        raise _IncompleteError(str(error)) from error
    with response:
        begin, total = _begin_and_total(response, begin)
        if size is not None and total not in (None, size):
            _discard(part, etag_file)
            raise WeightsError(f'{url}: the file on the server has {total} bytes instead of {size}')
        if total is not None and total > most:
            _discard(part, etag_file)
            raise WeightsError(f'{url}: the file on the server has {total} bytes; at most {most} are allowed')
        bar.total = total
        bar.n = begin
        bar.refresh()
        for path in (part, etag_file):
            _length(path)  # raises for a link and for another user's file
        try:
            tag = response.headers.get('ETag') or ''
            if _ETAG.fullmatch(tag):
                atomic.write_text(etag_file, tag, sync=False)
            else:
                etag_file.unlink(missing_ok=True)
            with atomic.open_append(part) if begin else atomic.open_new(part) as file:
                while chunk := _read(response):
                    if file.tell() + len(chunk) > min(most, size or most):
                        break
                    if file.write(chunk) < len(chunk):  # unbuffered: a full disk cuts the first write short
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    bar.update(len(chunk))
        except OSError as error:  # of the file; errors of the connection are _IncompleteError
            raise OutputError(
                f'{part}: cannot be written ({error.strerror or error}); free some space and try again'
            ) from error
    if chunk:
        _discard(part, etag_file)
        raise WeightsError(f'{url}: the server sends more than the allowed {min(most, size or most)} bytes')
    got = _length(part)
    if total is not None and got < total:
        raise _IncompleteError(f'the connection ended after {got} of {total} bytes')
    if total is not None and got > total:
        _discard(part, etag_file)
        raise _IncompleteError(f'received {got} of {total} bytes, perhaps by two downloads at once; starting over')
    etag_file.unlink(missing_ok=True)
    return got


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK)  # the available bytes at once, so that a broken connection loses none
    except OSError as error:  # reset, no route, TLS ended early
        raise _IncompleteError(str(error)) from error


def _begin_and_total(response: http.client.HTTPResponse, wanted: int) -> tuple[int, int | None]:
    """Return the offset of the response in the file, and the file's size if known."""
    if response.status == http.client.PARTIAL_CONTENT:
        given = re.fullmatch(
            r'bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})', response.headers.get('Content-Range', '')
        )
        if given and int(given[1]) == wanted:
            return wanted, int(given[2])
        raise _IncompleteError('the server sent another part than requested')
    length = response.headers.get('Content-Length')
    return 0, int(length) if length and re.fullmatch('[0-9]{1,18}', length) else None


def _discard(part: Path, etag_file: Path) -> None:
    part.unlink(missing_ok=True)
    etag_file.unlink(missing_ok=True)


def _length(path: Path) -> int:
    """Return the size [bytes] of this user's file, 0 without one; raises `OutputError`."""
    try:
        status = path.lstat()
    except OSError:
        return 0
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink != 1:
        raise OutputError(f'{path}: is a link, not a regular file, or owned by another user; remove it')
    return status.st_size
