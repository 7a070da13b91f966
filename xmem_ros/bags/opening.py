# SPDX-License-Identifier: MIT
"""Bags as rosbags reads them, also those whose recording was cut off.

rosbags reads whole bags. What a power cut leaves, an MCAP file without its end or a folder without `metadata.yaml`, is
shown to it as a whole one: the records that are complete, and an end without an index.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from xmem_ros.bags.messages import require_rosbags
from xmem_ros.errors import BagError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

SUFFIXES = ('.mcap', '.db3')
MAGIC = b'\x89MCAP0\r\n'
_FOOTER = b'\x02' + struct.pack('<QQQI', 20, 0, 0, 0) + MAGIC  # says that there is no summary: all of it is scanned
_RECORD = struct.Struct('<BQ')  # what it is, and how long the rest of it is
_CHUNK = struct.Struct('<QQQII')  # times, size and checksum of a chunk, and the length of its compression's name
_CHUNK_KIND = 0x06
_END_KINDS = (0x00, 0x02, 0x0F)  # never written, footer, end of the data
_TRIES = 5  # last records that may turn out to be damaged


def is_bag(path: Path) -> bool:
    """Whether a path is a ROS 2 bag: its folder, or a file of its own."""
    if path.suffix in SUFFIXES:
        return True
    return path.is_dir() and ((path / 'metadata.yaml').is_file() or bool(_storage_files(path)))


def _storage_files(folder: Path) -> list[Path]:
    """In the order in which they were recorded: x_2 before x_10."""
    files = [file for file in folder.iterdir() if file.suffix in SUFFIXES and file.is_file()]
    return sorted(files, key=lambda file: [int(part) if part.isdecimal() else 0 for part in _parts(file)] + [0])


def _parts(file: Path) -> list[str]:
    return re.findall(r'\d+', file.stem)[-1:]


class OpenBag:
    """A bag that is open; a context manager.

    Raises:
        BagError: not a bag, or nothing of it can be read.
    """

    def __init__(self, path: Path) -> None:
        require_rosbags(path)
        self.path = path
        self.damage = ''  # why not all of it can be read; '' where it can
        self._stack = contextlib.ExitStack()
        try:
            self._readers = self._open()
        except BaseException:
            self._stack.close()
            raise
        self.connections: list[
            Any
        ] = []  # rosbags' Connection, one for each topic and type, with all its messages counted
        self._of: list[dict[int, Any]] = []  # for each reader: its connection's id → that of `connections`
        for reader in self._readers:
            self._of.append({connection.id: self._joined(connection) for connection in reader.connections})

    def messages(self, connections: Collection[Any] = ()) -> Iterator[tuple[Any, int, bytes]]:
        """Yield connection, time of recording [ns] and serialized message, in the order of the bag.

        connections: of `self.connections`; empty: all. What cannot be read raises whatever rosbags raises.
        """
        wanted = {connection.id for connection in connections or self.connections}
        for reader, of in zip(self._readers, self._of, strict=True):
            own = [connection for connection in reader.connections if of[connection.id] in wanted]
            if not own:
                continue
            by_id = {connection.id: connection for connection in self.connections}
            for connection, received_ns, raw in reader.messages(own):
                yield by_id[of[connection.id]], received_ns, raw

    @property
    def span_ns(self) -> int:
        """From the first message to the last."""
        filled = [reader for reader in self._readers if reader.message_count]
        if not filled:
            return 0
        return int(max(reader.end_time for reader in filled) - min(reader.start_time for reader in filled) - 1)

    def close(self) -> None:
        """Close its files."""
        self._stack.close()

    def __enter__(self) -> OpenBag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _joined(self, connection: Any) -> int:
        """The id of the same topic in `connections`."""
        for place, known in enumerate(self.connections):
            if (known.topic, known.msgtype) == (connection.topic, connection.msgtype):
                self.connections[place] = known._replace(msgcount=known.msgcount + connection.msgcount)
                return int(known.id)
        number = len(self.connections) + 1
        self.connections.append(connection._replace(id=number))
        return number

    def _open(self) -> list[Any]:
        if not self.path.exists():
            raise BagError(f'{self.path}: no such bag')
        if not self.path.is_dir():
            return [self._open_one(self.path)]
        try:
            return [self._open_one(self.path)]
        except BagError as error:
            files = _storage_files(self.path)
            if not files:
                raise
            first = error
        readers = []
        for file in files:
            try:
                readers.append(self._open_one(file))
            except BagError as error:
                if not readers:
                    raise
                self._note(str(error))
                break
        self._note(
            f'{self.path / "metadata.yaml"} is not there: the recording was not ended'
            if not (self.path / 'metadata.yaml').exists()
            else f'its files were read one by one ({first})'
        )
        return readers

    def _open_one(self, path: Path) -> Any:
        try:
            reader = _reader_class()(path)
            reader.open()
        except Exception as error:  # rosbags' readers have no common base for damaged files
            raise BagError(
                f'{path}: not a readable bag ({_plain(error)}); a bag is a folder with metadata.yaml, or an .mcap or '
                '.db3 file: record or copy it again, or try ros2 bag reindex'
            ) from error
        self._stack.callback(reader.close)
        storages = getattr(reader.storage, 'storages', [reader.storage])
        for storage in storages:
            if getattr(storage, 'damage', ''):
                self._note(storage.damage)
        return reader

    def _note(self, damage: str) -> None:
        self.damage = f'{self.damage}; {damage}' if self.damage else damage


def _plain(error: Exception) -> str:
    return str(error).rstrip('.') or type(error).__name__


def _reader_class() -> Any:
    """rosbags' reader of ROS 2 bags, with `_mending_reader` for MCAP files."""
    from rosbags.rosbag2 import Reader
    from rosbags.rosbag2.reader import DirectoryReader

    mcap = _mending_reader()

    class Folder(DirectoryReader):
        STORAGE_PLUGINS = {**DirectoryReader.STORAGE_PLUGINS, 'mcap': mcap}  # noqa: RUF012

    class Any_(Reader):  # noqa: N801
        STORAGE_PLUGINS = {**Reader.STORAGE_PLUGINS, 'dir': Folder, '.mcap': mcap}  # noqa: RUF012

    return Any_


def _mending_reader() -> Any:
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
                self.damage = f'{path} was cut off or lost its index: {len(kept)} of its records are whole'
                return

        def messages(self, connections: Any, start: Any = None, stop: Any = None) -> Any:
            # without an index messages come as they lie there, which need not be by time
            return (
                self.messages_scan(connections, start, stop)
                if self.damage
                else super().messages(connections, start, stop)
            )

    return MendingReader


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
