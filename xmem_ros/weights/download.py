# SPDX-License-Identifier: MIT
"""Fetch a large file over HTTP: what has come is kept when the connection breaks, and the rest is asked for."""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from xmem_ros.errors import OutputError, WeightsError
from xmem_ros.progress import Bar

if TYPE_CHECKING:
    from pathlib import Path

ATTEMPTS = 4  # in a row that bring nothing
PAUSE = 1.0  # s, before the second; each further one waits twice as long
TIMEOUT = 30.0  # s without a byte
CHUNK = 1 << 20  # bytes

_BUSY = (http.client.REQUEST_TIMEOUT, http.client.TOO_MANY_REQUESTS)  # which pass, as those from 500 on do


class _IncompleteError(Exception):
    """The connection ended before the file did."""


def download(url: str, part: Path, *, size: int | None = None, progress: bool = True) -> int:
    """Fetch a file to `part`, going on where an earlier attempt stopped; returns its size in bytes.

    Beside it lies what the server calls this version of the file (its ETag), so that two versions are never joined.

    Arguments:
        url: of the file.
        part: where it goes; its folder is there.
        size: bytes that it must have, where that is known.
        progress: show a bar.

    Raises:
        WeightsError: there is no network, the server refuses, or the file has another size; what has come is kept but
            in the last case.
        OutputError: `part` cannot be written.
    """
    failures, pause = 0, PAUSE
    with Bar(total=size, unit='B', unit_scale=True, desc=url.rsplit('/', 1)[-1], disable=not progress) as bar:
        while True:
            before = _length(part)
            try:
                return _attempt(url, part, size, bar)
            except (http.client.HTTPException, urllib.error.URLError, _IncompleteError) as error:
                if isinstance(error, urllib.error.HTTPError) and error.code not in _BUSY and error.code < 500:
                    raise WeightsError(f'{url}: the server answers {error.code} {error.reason}') from error
                failures = 1 if _length(part) > before else failures + 1
                if failures >= ATTEMPTS:
                    raise WeightsError(f'{url}: cannot be fetched ({getattr(error, "reason", error)})') from error
            time.sleep(pause * 2 ** (failures - 1))


def _attempt(url: str, part: Path, size: int | None, bar: Bar) -> int:
    """One connection: fetch from where `part` ends; returns the size of the whole file."""
    begin, version = _length(part), part.with_name(f'{part.name}.etag')
    request = urllib.request.Request(url)
    if begin:
        request.add_header('Range', f'bytes={begin}-')
        if version.is_file():
            request.add_header('If-Range', version.read_text())
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and begin:
            whole = re.fullmatch(r'bytes \*/(\d+)', error.headers.get('Content-Range', ''))
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
        bar.total = total
        bar.n = begin
        bar.refresh()
        try:
            if response.headers.get('ETag') and not response.headers['ETag'].startswith('W/'):
                version.write_text(response.headers['ETag'])
            else:
                version.unlink(missing_ok=True)
            with part.open('ab' if begin else 'wb') as file:
                while chunk := _read(response):
                    file.write(chunk)
                    bar.update(len(chunk))
        except OSError as error:  # of the files: those of the connection are _IncompleteError
            raise OutputError(
                f'{part}: cannot be written ({error.strerror or error}); make room and try again'
            ) from error
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
        given = re.fullmatch(r'bytes (\d+)-\d+/(\d+)', response.headers.get('Content-Range', ''))
        if given and int(given[1]) == wanted:
            return wanted, int(given[2])
        raise _IncompleteError('the server sent another part than was asked for')
    length = response.headers.get('Content-Length')
    return 0, int(length) if length else None


def _forget(part: Path, version: Path) -> None:
    part.unlink(missing_ok=True)
    version.unlink(missing_ok=True)


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
