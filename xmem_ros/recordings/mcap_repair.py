# SPDX-License-Identifier: MIT
"""MCAP files that are not whole, or have no chunks, as rosbags can read them.

rosbags refuses a file that was cut off: it is shown the records that are whole, and an end without an index.
"""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any, BinaryIO

from xmem_ros.errors import BagError

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from pathlib import Path

MAGIC = b'\x89MCAP0\r\n'
_FOOTER = b'\x02' + struct.pack('<QQQI', 20, 0, 0, 0) + MAGIC  # says that there is no summary: all of it is scanned
_RECORD = struct.Struct('<BQ')  # what it is, and how long the rest of it is
_CHUNK = struct.Struct('<QQQII')  # times, size and checksum of a chunk, and the length of its compression's name
_CHUNK_KIND = 0x06
_MESSAGE = struct.Struct('<HIQQ')  # channel, number, when it was received and when it was published [ns], of a message
_MESSAGE_KIND = 0x05
_END_KINDS = (0x00, 0x02, 0x0F)  # never written, footer, end of the data
_TRIES = 5  # last records that may turn out to be damaged


def mcap_reader() -> Any:
    """rosbags' reader of MCAP files, which reads what is whole of one whose end or index is missing or damaged."""
    from rosbags.rosbag2.storage_mcap import McapReader

    class MendingReader(McapReader):
        """Reads an MCAP file whose end or index is missing or damaged, as far as its records are whole."""

        damage = ''

        def open(self) -> None:
            try:
                super().open()
            except Exception:
                path: Any = self.path
                spans = _whole_records(path)
                if not spans:
                    raise
            else:
                return
            for tried in range(min(_TRIES, len(spans))):
                kept = spans[: len(spans) - tried]
                mended: Any = _Mended(path, kept)
                self.path = mended
                try:
                    super().open()
                except Exception:  # the last records were laid out on the disk and not written
                    if tried + 1 == min(_TRIES, len(spans)):
                        raise
                    continue
                self.damage = f'{path} was cut off or lost its index; it is read as far as it is whole'
                return

        def messages(self, connections: Any, start: Any = None, stop: Any = None) -> Any:
            if self.chunks and not self.damage:
                return super().messages(connections, start, stop)
            # rosbags refuses a file without an index once a message is older than the one before it, which recorders
            # do write: they note when a message was received, and write some together
            of = {connection.id: connection for connection in connections}
            places = _loose_messages(self.bio, self.data_start, self.data_end, of)
            if places is None:  # chunks, whose messages cannot be found one by one: as they lie there
                return self.messages_scan(connections, start, stop)
            return self._by_time(places, of)

        def _by_time(self, places: list[tuple[int, int, int, int]], of: dict[int, Any]) -> Iterator[Any]:
            file: Any = self.bio
            for received_ns, place, length, channel in sorted(places):
                file.seek(place)
                raw = file.read(length)
                if len(raw) < length:
                    raise BagError(f'{self.path} ends inside a message')
                yield of[channel], received_ns, raw

    return MendingReader


def _loose_messages(
    file: Any, start: int, end: int, channels: Container[int]
) -> list[tuple[int, int, int, int]] | None:
    """Messages of some channels of an MCAP file that are in no chunk; None where some are in chunks.

    Returns:
        of each, when it was received [ns], where its bytes begin, how many they are, and its channel.
    """
    found = []
    place = start
    while place < end:
        file.seek(place)
        head = file.read(_RECORD.size + _MESSAGE.size)
        if len(head) < _RECORD.size:
            break
        kind, length = _RECORD.unpack_from(head)
        if kind == _CHUNK_KIND:
            return None
        if kind == _MESSAGE_KIND and len(head) == _RECORD.size + _MESSAGE.size and length >= _MESSAGE.size:
            channel, _, received_ns, _ = _MESSAGE.unpack_from(head, _RECORD.size)
            if channel in channels:
                found.append((received_ns, place + len(head), length - _MESSAGE.size, channel))
        place += _RECORD.size + length
    return found


def _whole_records(path: Path) -> list[tuple[int, int]]:
    """Where the whole records of an MCAP file begin and end, up to its index; empty where it is no such file.

    Of a chunk that is not whole, and not compressed, the records inside count.
    """
    size = path.stat().st_size
    with path.open('rb') as file:
        if file.read(len(MAGIC)) != MAGIC:
            return []
        spans, rest = _walk(file, len(MAGIC), size)
        file.seek(rest)
        head = file.read(_RECORD.size + _CHUNK.size)
        if len(head) == _RECORD.size + _CHUNK.size and head[0] == _CHUNK_KIND:
            *_, compression = _CHUNK.unpack(head[_RECORD.size :])
            if not compression:
                inside, _ = _walk(file, rest + len(head) + 8, size)  # 8: the length of what follows
                spans += inside
        return spans


def _walk(file: BinaryIO, place: int, size: int) -> tuple[list[tuple[int, int]], int]:
    """Whole records from a place on, and where the first one lies that is not."""
    spans: list[tuple[int, int]] = []
    while True:
        file.seek(place)
        head = file.read(_RECORD.size)
        if len(head) < _RECORD.size:
            return spans, place
        kind, length = _RECORD.unpack(head)
        end = place + _RECORD.size + length
        if end > size or kind in _END_KINDS:
            return spans, place
        spans.append((place, end))
        place = end


class _Mended:
    """Of a path, what rosbags asks of it: some records of the file, and an end."""

    def __init__(self, path: Path, spans: list[tuple[int, int]]) -> None:
        self._path = path
        # records that lie beside each other are one piece
        self._pieces = [(0, len(MAGIC))]
        for start, end in spans:
            if self._pieces[-1][1] == start:
                self._pieces[-1] = (self._pieces[-1][0], end)
            else:
                self._pieces.append((start, end))

    def __str__(self) -> str:
        return str(self._path)

    def open(self, mode: str = 'rb') -> BinaryIO:
        return io.BufferedReader(_Joined(self._path.open(mode), self._pieces, _FOOTER), 1 << 16)


class _Joined(io.RawIOBase):
    """Pieces of a file, one after the other, and some bytes after them."""

    def __init__(self, file: Any, pieces: list[tuple[int, int]], tail: bytes) -> None:
        self._file, self._pieces, self._tail, self._place = file, pieces, tail, 0
        self._length = sum(end - start for start, end in pieces)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._length + len(self._tail)}[whence]
        self._place = max(0, start + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _read(self, most: int) -> bytes:
        place = self._place
        for start, end in self._pieces:
            if place < end - start:
                self._file.seek(start + place)
                return bytes(self._file.read(min(most, end - start - place)))
            place -= end - start
        return self._tail[place : place + most]
