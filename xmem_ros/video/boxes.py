# SPDX-License-Identifier: MIT
"""Sample counts and duration in MP4 and QuickTime files; FFmpeg allocates memory for the counts.

A count needs no data in the file where all samples have one size or duration, so that a few bytes
can promise billions. Here a sample takes at least a byte of the file.
"""

from __future__ import annotations

import os
import struct
from typing import IO, TYPE_CHECKING

from xmem_ros.errors import FrameError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PARENTS = frozenset(b'moov trak mdia minf stbl edts dinf udta tref meta wide mvex moof traf'.split())
_ENTRY_BYTES = {b'stts': 8, b'ctts': 8, b'stco': 4, b'co64': 8, b'stsc': 12, b'stss': 4, b'stps': 4}  # of tables
_COUNTED = frozenset((b'stsz', b'trun', *_ENTRY_BYTES))
_MAX_DEPTH = 12  # FFmpeg's is 10
_MAX_BOXES = 1_000_000
_ENTRIES = 4096  # of a table that are read at once


def check_counts(file: IO[bytes]) -> None:
    """Raise `FrameError` if the boxes of a file count more samples than it can hold.

    Other formats have no such boxes. The position in the file is kept.
    """
    position = file.tell()
    end = file.seek(0, os.SEEK_END)
    total = 0
    for kind, start, stop in _boxes(file, end):
        if kind in _COUNTED:
            total += _count(file, kind, start, stop, end)
        if total > 4 * end:
            raise FrameError(f'its header counts more than {total} samples, in a file of {end} bytes')
    file.seek(position)


def movie_seconds(file: IO[bytes]) -> float:
    """Return the duration [s] in the movie's header, apart from those of its tracks; 0: unknown."""
    position = file.tell()
    end = file.seek(0, os.SEEK_END)
    start = next((start for kind, start, _ in _boxes(file, end) if kind == b'mvhd'), None)
    seconds = 0.0
    if start is not None:
        file.seek(start)
        head = file.read(32)
        layout = '>IQ' if head[:1] == b'\1' else '>II'
        place = 20 if head[:1] == b'\1' else 12
        if len(head) == 32:
            scale, length = struct.unpack_from(layout, head, place)
            seconds = length / scale if scale else 0.0
    file.seek(position)
    return seconds


def _boxes(file: IO[bytes], end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, begin and end of the content of each box that has no boxes in it."""
    left = _MAX_BOXES
    waiting = [(0, end, 0)]
    while waiting:
        place, limit, depth = waiting.pop()
        while place + 8 <= limit and left:
            left -= 1
            file.seek(place)
            head = file.read(16)
            size, kind = struct.unpack_from('>I4s', head)
            start = place + 8
            if size == 1 and len(head) == 16:
                size, start = struct.unpack_from('>Q', head, 8)[0], place + 16
            stop = limit if size == 0 else min(place + size, limit)
            if stop < start:
                break
            if kind in _PARENTS and depth < _MAX_DEPTH:
                waiting += [(stop, limit, depth), (start + 4 * (kind == b'meta'), stop, depth + 1)]
                break
            yield kind, start, stop
            place = stop


def _count(file: IO[bytes], kind: bytes, start: int, stop: int, most: int) -> int:
    """Return the samples that a box counts without an entry in it for each.

    A table that counts more entries than it has room for gives its count.
    """
    file.seek(start)
    head = file.read(12)
    if len(head) < 12:
        return 0
    first, second = struct.unpack_from('>II', head, 4)
    if kind == b'stsz':
        return second if first or second > (stop - start - 12) // 4 else 0
    if kind == b'trun':
        return first
    if first > (stop - start - 8) // _ENTRY_BYTES[kind]:
        return first
    if kind not in (b'stts', b'ctts'):
        return 0
    file.seek(start + 8)
    found, entries = 0, first
    while entries > 0 and found <= 4 * most:
        data = file.read(8 * min(entries, _ENTRIES))
        if len(data) < 8:
            break
        found += sum(struct.unpack(f'>{len(data) // 8 * 2}I', data[: len(data) // 8 * 8])[::2])
        entries -= _ENTRIES
    return found
