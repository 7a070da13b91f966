# SPDX-License-Identifier: MIT
"""MCAP files, also those that are not whole, lost their index, have no chunks, or were made to do harm.

What a file says of itself is compared with its size and with `limits` before anything is read or unpacked.
"""

from __future__ import annotations

import heapq
import os
import struct
from array import array
from binascii import crc32
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xmem_ros.errors import BagError
from xmem_ros.recordings.compression import inflated
from xmem_ros.recordings.limits import (
    MOST_DEFINITION,
    MOST_DEFINITIONS,
    MOST_INDEX,
    MOST_OPEN,
    MOST_TOPICS,
    check_message,
    check_time,
    is_name,
)
from xmem_ros.recordings.metadata import profiles_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

MAGIC = b'\x89MCAP0\r\n'
_RECORD = struct.Struct('<BQ')  # what it is, and how long the rest of it is
_FOOTER = struct.Struct('<BQQQI')  # the same, where the summary and its offsets begin, and its checksum
_CHUNK = struct.Struct('<QQQI')  # times, size and checksum of a chunk
_CHUNK_INDEX = struct.Struct('<QQQQ')  # times of a chunk, where its record begins, and how long that is
_MESSAGE = struct.Struct('<HIQQ')  # channel, number, when it was received and when it was published [ns]
_STATISTICS = struct.Struct('<QHIIIIQQ')  # messages, schemas, channels, …, first and last time
_U16, _U32, _U64 = struct.Struct('<H'), struct.Struct('<I'), struct.Struct('<Q')
_COUNT = struct.Struct('<HQ')  # of a channel
_HEADER, _END, _SCHEMA, _CHANNEL, _OF_MESSAGE, _OF_CHUNK = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
_OF_INDEX, _OF_STATISTICS, _DATA_END = 0x08, 0x0B, 0x0F
_END_KINDS = (0x00, _END, _DATA_END)  # never written, footer, end of the data
_CUT = 'was cut off or lost its index; it is read as far as it is whole'


@dataclass(frozen=True)
class _Chunk:
    start: int  # time of its first message [ns], as the file says
    place: int  # of its content
    length: int
    channels: frozenset[int] = frozenset()  # empty: not known


@dataclass
class _Places:
    """Messages: when they were received [ns], where their bytes begin, how many they are, and their channel."""

    times: array[int] = field(default_factory=lambda: array('Q'))
    starts: array[int] = field(default_factory=lambda: array('Q'))
    lengths: array[int] = field(default_factory=lambda: array('Q'))
    channels: array[int] = field(default_factory=lambda: array('H'))

    def add(self, head: Any, at: int, content: int, length: int) -> None:
        """Note a message whose first bytes are in `head` at `at`; its record's content lies elsewhere."""
        channel, _, received_ns, _ = _MESSAGE.unpack_from(head, at)
        self.times.append(received_ns)
        self.starts.append(content + _MESSAGE.size)
        self.lengths.append(length - _MESSAGE.size)
        self.channels.append(channel)


class _Cursor:
    """Messages of some channels in the order of their times, in a chunk that is held or in the file."""

    def __init__(self, source: Any, places: _Places, wanted: Mapping[int, Any], held: int) -> None:
        self._source, self._places, self.held = source, places, held
        channels = np.frombuffer(places.channels, np.uint16) if places.channels else np.zeros(0, np.uint16)
        chosen = np.flatnonzero(np.isin(channels, list(wanted)))
        times = np.frombuffer(places.times, np.uint64) if places.times else np.zeros(0, np.uint64)
        self._order = chosen[np.argsort(times[chosen], kind='stable')]
        self._next = 0

    @property
    def time(self) -> int | None:
        """Of the next message; None at the end."""
        return self._places.times[self._order[self._next]] if self._next < len(self._order) else None

    def take(self) -> tuple[int, bytes]:
        """Channel and bytes of the next message."""
        at = self._order[self._next]
        self._next += 1
        start, length = self._places.starts[at], self._places.lengths[at]
        check_message(length)
        return self._places.channels[at], self._source(start, length)


class McapFile:
    """An MCAP file that is open, read as far as its records are whole.

    Raises:
        BagError: it is none, or more is in it than is read.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage = ''  # why not all of it can be read; '' where it can
        self._file = path.open('rb')
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            self._start = self._after_header()
            self._forget()
            if not self._read_summary():
                self._forget()
                self._scan()
            self.connections = self._connections()  # rosbags' Connection, ids are channels
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def messages(self, connections: Collection[Any]) -> Iterator[tuple[Any, int, bytes]]:
        """Yield connection, time [ns] and bytes in the order of time; raises `BagError` where it cannot go on."""
        wanted = {connection.id: connection for connection in connections}
        if not self._chunks and not self._scanned:
            self._scan()
        waiting: list[tuple[int, int, _Cursor]] = []  # time of the next message, number, and where it is
        held = 0
        loose = _Cursor(self._read, self._loose, wanted, 0)
        if loose.time is not None:
            waiting.append((loose.time, -1, loose))
        fitting = [item for item in self._chunks if not item.channels or item.channels & wanted.keys()]
        for number, chunk in enumerate([*sorted(fitting, key=lambda item: (item.start, item.place)), None]):
            while waiting and (chunk is None or waiting[0][0] < chunk.start):
                received_ns, first, cursor = waiting[0]
                channel, raw = cursor.take()
                if cursor.time is None:
                    heapq.heappop(waiting)
                    held -= cursor.held
                else:
                    heapq.heapreplace(waiting, (cursor.time, first, cursor))
                check_time(received_ns)
                yield wanted[channel], received_ns, raw
            if chunk is None:
                return
            data = self._inflate(chunk.place, chunk.length)
            cursor = _Cursor(
                lambda start, length, data=data: data[start : start + length], _inside(data), wanted, len(data)
            )
            if cursor.time is not None:
                held += len(data)
                if held > MOST_OPEN:
                    raise BagError(f'the times of its chunks overlap so that more than {MOST_OPEN} bytes are held')
                heapq.heappush(waiting, (cursor.time, number, cursor))

    # --- what there is

    def _forget(self) -> None:
        self._schemas: dict[int, tuple[str, str, str]] = {}  # name, encoding, definition
        self._channels: dict[int, tuple[int, str, str, Any]] = {}  # schema, topic, encoding, QoS
        self._chunks: list[_Chunk] = []
        self._loose = _Places()  # of no chunk
        self._scanned = self._counted = False  # counted: by the index
        self._defined = 0  # characters of definitions
        self._counts: dict[int, int] = {}
        self.message_count, self.start_time, self.end_time = 0, 2**63 - 1, 0

    def _after_header(self) -> int:
        """Where the first record after the header begins."""
        if self._file.read(len(MAGIC)) != MAGIC:
            raise BagError('the file is empty' if not self._size else 'it does not begin as an MCAP file does')
        record = self._record(len(MAGIC))
        if record is None or record[0] != _HEADER:
            raise BagError('it has no header')
        check_message(record[2])
        if _Fields(self._read(*record[1:])).text() != 'ros2':
            raise BagError('it is no recording of ROS 2: its profile is not ros2')
        return record[1] + record[2]

    def _connections(self) -> list[Any]:
        from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition, MessageDefinitionFormat

        formats = {
            'ros2msg': MessageDefinitionFormat.MSG,
            'ros2idl': MessageDefinitionFormat.IDL,
            'omgidl': MessageDefinitionFormat.IDL,
        }
        found = []
        unnamed = 0
        for number, (schema, topic, encoding, profiles) in self._channels.items():
            msgtype, written_in, text = self._schemas.get(schema, ('__schemaless__', '', ''))
            if not is_name(topic) or not is_name(msgtype):
                unnamed += 1
                continue
            kind = formats.get(written_in, MessageDefinitionFormat.NONE)
            definition = MessageDefinition(kind, text if kind != MessageDefinitionFormat.NONE else '')
            more = ConnectionExtRosbag2(encoding, profiles_of(profiles))
            found.append(Connection(number, topic, msgtype, definition, '', self._counts.get(number, 0), more, self))
        if unnamed:
            self._note(f'{self.path}: {unnamed} topics whose name or type is no name are left out')
        return found

    def _read_summary(self) -> bool:
        """Take the index at the file's end; returns whether it is there and fits the file."""
        if self._size < self._start + _FOOTER.size + len(MAGIC):
            self._note(f'{self.path} {_CUT}')
            return False
        at = self._size - _FOOTER.size - len(MAGIC)
        kind, length, begin, _, _ = _FOOTER.unpack(self._read(at, _FOOTER.size))
        if kind != _END or length != _FOOTER.size - _RECORD.size or self._read(at + _FOOTER.size, 8) != MAGIC:
            self._note(f'{self.path} {_CUT}')
            return False
        if not begin:
            return False  # it has none, which is no damage
        try:
            if not self._start <= begin <= at or at - begin > MOST_INDEX:
                raise BagError('the index lies nowhere, or is too large')
            known = self._parse_summary(self._read(begin, at - begin), begin)
        except (BagError, ValueError, struct.error):
            self._note(f'{self.path} {_CUT}')
            return False
        return known

    def _parse_summary(self, data: bytes, begin: int) -> bool:
        """Read the index; returns whether it says all that is needed."""
        told = None
        sets: dict[bytes, frozenset[int]] = {}
        for kind, place, length in _records(data):
            if kind in (_SCHEMA, _CHANNEL):
                self._define(kind, data[place : place + length])
            elif kind == _OF_INDEX:
                fields = _Fields(data[place : place + length])
                first, _, at, size = fields.numbers(_CHUNK_INDEX)
                offsets = fields.raw()
                channels = bytes(b''.join(offsets[i : i + 2] for i in range(0, len(offsets) - 9, 10)))
                if channels not in sets:
                    sets[channels] = frozenset(array('H', channels)) if channels else frozenset()
                if size < _RECORD.size:
                    raise BagError('a chunk without content')
                chunk = _Chunk(first, at + _RECORD.size, size - _RECORD.size, sets[channels])
                self._chunks.append(chunk)
            elif kind == _OF_STATISTICS:
                fields = _Fields(data[place : place + length])
                told = fields.numbers(_STATISTICS)
                self._counts = {channel: count for channel, count in _COUNT.iter_unpack(fields.raw())}  # noqa: C416
        after = self._start
        for chunk in sorted(self._chunks, key=lambda item: item.place):
            if chunk.place - _RECORD.size < after or chunk.place + chunk.length > begin:
                raise BagError('chunks that overlap or lie nowhere')
            after = chunk.place + chunk.length
        if told is None or len(self._channels) < told[2] or (told[5] and not self._chunks):
            return False
        self.message_count, self.start_time, self.end_time = told[0], told[6], told[7] + 1
        self._counted = True
        return True

    def _scan(self) -> None:
        """Walk through all records, and through those in chunks."""
        self._scanned = True
        self._walk()
        if not self._counted:
            self._count(self._loose)

    def _walk(self) -> None:
        record = self._record(self._start)
        stopped = self._start
        while record is not None and record[0] not in _END_KINDS:
            kind, place, length = record
            stopped = place + length
            if kind == _OF_CHUNK:
                try:
                    data = self._inflate(place, length)
                    found = _inside(data)
                except BagError as error:
                    self._note(f'{self.path}: a chunk cannot be read ({error}); what follows it is left out')
                    return
                self._chunks.append(_Chunk(min(found.times, default=0), place, length, frozenset(found.channels)))
                if not self._counted:
                    self._count(found)
                for inner, at, size in _records(data):
                    if inner in (_SCHEMA, _CHANNEL):
                        self._define(inner, data[at : at + size])
            elif kind == _OF_MESSAGE and length >= _MESSAGE.size:
                self._loose.add(self._read(place, _MESSAGE.size), 0, place, length)
            elif kind in (_SCHEMA, _CHANNEL):
                check_message(length)
                self._define(kind, self._read(place, length))
            record = self._record(stopped)
        if record is None or record[0] == 0:
            self._note(f'{self.path} {_CUT}')
            self._scan_rest(stopped)

    def _scan_rest(self, place: int) -> None:
        """Of a chunk at the end that is not whole, and not compressed, the records inside count."""
        head = self._read(place, _RECORD.size + _CHUNK.size + _U32.size + _U64.size, short=True)
        if len(head) < _RECORD.size + _CHUNK.size + _U32.size + _U64.size or head[0] != _OF_CHUNK:
            return
        if _U32.unpack_from(head, _RECORD.size + _CHUNK.size) != (0,):
            return
        record = self._record(place + len(head))
        while record is not None and record[0] not in _END_KINDS:
            kind, at, length = record
            if kind == _OF_MESSAGE and length >= _MESSAGE.size:
                self._loose.add(self._read(at, _MESSAGE.size), 0, at, length)
            elif kind in (_SCHEMA, _CHANNEL):
                check_message(length)
                self._define(kind, self._read(at, length))
            record = self._record(at + length)

    def _count(self, found: _Places) -> None:
        if not found.times:
            return
        self.message_count += len(found.times)
        self.start_time = min(self.start_time, min(found.times))
        self.end_time = max(self.end_time, max(found.times) + 1)
        channels, counts = np.unique(np.frombuffer(found.channels, np.uint16), return_counts=True)
        for channel, count in zip(channels.tolist(), counts.tolist(), strict=True):
            self._counts[channel] = self._counts.get(channel, 0) + count

    def _define(self, kind: int, content: bytes) -> None:
        """Note a schema or a channel; the first of a number counts."""
        fields = _Fields(content)
        (number,) = fields.numbers(_U16)
        if kind == _SCHEMA and number not in self._schemas:
            name, written_in, text = fields.text(), fields.text(), bytes(fields.raw())
            definition = text.decode(errors='replace') if len(text) <= MOST_DEFINITION else ''
            self._defined += len(definition)
            if self._defined > MOST_DEFINITIONS:
                raise BagError(f'more than {MOST_DEFINITIONS} characters of message definitions')
            self._schemas[number] = (name, written_in, definition)
        elif kind == _CHANNEL and number not in self._channels:
            (schema,) = fields.numbers(_U16)
            topic, encoding, more = fields.text(), fields.text(), _Fields(fields.raw())
            profiles: Any = []
            while not profiles and not more.ended:
                key, value = more.text(), more.text()
                profiles = value if key == 'offered_qos_profiles' else []
            self._channels[number] = (schema, topic, encoding, profiles)
            if len(self._channels) > MOST_TOPICS:
                raise BagError(f'more than {MOST_TOPICS} topics')

    # --- bytes

    def _record(self, place: int) -> tuple[int, int, int] | None:
        """What a record is, where its content begins and how long that is; None where it is not whole."""
        head = self._read(place, _RECORD.size, short=True)
        if len(head) < _RECORD.size:
            return None
        kind, length = _RECORD.unpack(head)
        return (kind, place + _RECORD.size, length) if place + _RECORD.size + length <= self._size else None

    def _inflate(self, place: int, length: int) -> bytes:
        """The records of a chunk."""
        check_message(length)
        fields = _Fields(self._read(place, length))
        _, _, size, checksum = fields.numbers(_CHUNK)
        compression = fields.text()
        (packed,) = fields.numbers(_U64)
        data = inflated(fields.take(packed), compression, size)
        if len(data) != size:
            raise BagError(f'a chunk has {len(data)} bytes, and should have {size}')
        if checksum and crc32(data) != checksum:
            raise BagError('the checksum of a chunk is another')
        return data

    def _read(self, place: int, length: int, *, short: bool = False) -> bytes:
        if place + length > self._size and not short:
            raise BagError('it ends inside a record')
        self._file.seek(min(place, self._size))
        data = self._file.read(max(0, min(length, self._size - place)))
        if len(data) < length and not short:
            raise BagError('it ends inside a record')
        return data

    def _note(self, damage: str) -> None:
        if damage not in self.damage:
            self.damage = f'{self.damage}; {damage}' if self.damage else damage


class _Fields:
    """Fields of a record, one after the other; raises `BagError` where it is too short."""

    def __init__(self, content: Any) -> None:
        self._content, self._place = memoryview(content), 0

    @property
    def ended(self) -> bool:
        return self._place >= len(self._content)

    def take(self, length: int) -> memoryview:
        if length > len(self._content) - self._place:
            raise BagError('a record is shorter than what it holds')
        self._place += length
        return self._content[self._place - length : self._place]

    def numbers(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self.take(layout.size))

    def raw(self) -> memoryview:
        return self.take(self.numbers(_U32)[0])

    def text(self) -> str:
        try:
            return bytes(self.raw()).decode()
        except UnicodeDecodeError as error:
            raise BagError('a name is not UTF-8') from error


def _records(data: bytes) -> Iterator[tuple[int, int, int]]:
    """What each record in a chunk or index is, where its content begins, and how long that is."""
    place = 0
    while place < len(data):
        if place + _RECORD.size > len(data):
            raise BagError('a chunk or index ends inside a record')
        kind, length = _RECORD.unpack_from(data, place)
        place += _RECORD.size
        if length > len(data) - place:
            raise BagError('a chunk or index ends inside a record')
        yield kind, place, length
        place += length


def _inside(data: bytes) -> _Places:
    """The messages of a chunk."""
    found = _Places()
    for kind, place, length in _records(data):
        if kind == _OF_MESSAGE:
            if length < _MESSAGE.size:
                raise BagError('a message is shorter than its header')
            found.add(data, place, place, length)
        elif kind == _OF_CHUNK:
            raise BagError('a chunk lies in a chunk')
    return found
