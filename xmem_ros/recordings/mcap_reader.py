# SPDX-License-Identifier: MIT
"""Reader of MCAP files, including truncated, unindexed, unchunked and hostile ones.

Sizes and positions in a file are checked against the file's size and `limits` before use.
"""

from __future__ import annotations

import heapq
import os
import struct
from array import array
from binascii import crc32
from typing import TYPE_CHECKING, Any

import numpy as np

from xmem_ros.errors import BagError
from xmem_ros.recordings.compression import decompress
from xmem_ros.recordings.limits import (
    LOST,
    MAX_DEFINITION_LENGTH,
    MAX_DEFINITIONS_LENGTH,
    MAX_INDEX_BYTES,
    MAX_OPEN_BYTES,
    MAX_QOS_LENGTH,
    MAX_TOPICS,
    check_message,
    check_time,
    is_name,
)
from xmem_ros.recordings.mcap_records import (
    CHANNEL_COUNT,
    CHUNK,
    CHUNK_INDEX,
    END_OPCODES,
    FOOTER,
    MAGIC,
    MESSAGE,
    OP_CHANNEL,
    OP_CHUNK,
    OP_CHUNK_INDEX,
    OP_FOOTER,
    OP_HEADER,
    OP_MESSAGE,
    OP_MESSAGE_INDEX,
    OP_SCHEMA,
    OP_STATISTICS,
    RECORD,
    STATISTICS,
    U16,
    U32,
    U64,
    Chunk,
    FieldReader,
    MessageCursor,
    MessageTable,
    chunk_messages,
    iter_records,
)
from xmem_ros.recordings.metadata import parse_qos_profiles

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

_CUT_OFF = 'was cut off or lost its index; only its complete records are read'


class McapReader:
    """An open MCAP file. If it is damaged, only its complete records are read.

    Raises:
        BagError: the file is not an MCAP file of ROS 2, or exceeds the limits.
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage = ''  # what cannot be read, and why; '' if everything can be read
        self._file = path.open('rb')
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            self._start = self._read_header()
            self._clear()
            if not self._read_summary():
                self._clear()
                self._scan()
            self.connections = self._connections()  # rosbags' Connection, with the channel as its id
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def messages(self, connections: Collection[Any], *, keep_lost: bool = False) -> Iterator[tuple[Any, int, bytes]]:
        """Yield connection, time [ns] and bytes in order of time.

        Arguments:
            connections: those that are read.
            keep_lost: yield `LOST` for each message in a damaged chunk, by the index after it, and
                continue.

        Raises:
            BagError: the file cannot be read further.
        """
        wanted = {connection.id: connection for connection in connections}
        if not self._chunks and not self._scanned:
            self._scan()
        waiting: list[tuple[int, int, MessageCursor]] = []  # time of the next message, chunk number, cursor
        held_bytes = 0
        loose = MessageCursor(self._read, self._loose, wanted, 0)
        if loose.time_ns is not None:
            waiting.append((loose.time_ns, -1, loose))
        chunks = [item for item in self._chunks if not item.channels or item.channels & wanted.keys()]
        for number, chunk in enumerate([*sorted(chunks, key=lambda item: (item.start_ns, item.position)), None]):
            while waiting and (chunk is None or waiting[0][0] < chunk.start_ns):
                received_ns, first, cursor = waiting[0]
                channel, raw = cursor.take()
                if cursor.time_ns is None:
                    heapq.heappop(waiting)
                    held_bytes -= cursor.held_bytes
                else:
                    heapq.heapreplace(waiting, (cursor.time_ns, first, cursor))
                check_time(received_ns)
                yield wanted[channel], received_ns, raw
            if chunk is None:
                return
            cursor = self._cursor(chunk, wanted, keep_lost=keep_lost)
            if cursor.time_ns is not None:
                held_bytes += cursor.held_bytes
                if held_bytes > MAX_OPEN_BYTES:
                    raise BagError(f'its chunks overlap in time: more than {MAX_OPEN_BYTES} bytes must be held at once')
                heapq.heappush(waiting, (cursor.time_ns, number, cursor))

    def _cursor(self, chunk: Chunk, wanted: Mapping[int, Any], *, keep_lost: bool) -> MessageCursor:
        try:
            data = self._read_chunk(chunk.position, chunk.length)
            table = chunk_messages(data, chunk.length)
            if not table.times and self._lost_messages(chunk) is not None:
                raise BagError('a chunk lacks its messages')
        except BagError:
            lost = self._lost_messages(chunk) if keep_lost else None
            if lost is None:
                raise
            return MessageCursor(lambda *_: LOST, lost, wanted, 0)
        return MessageCursor(lambda position, length: data[position : position + length], table, wanted, len(data))

    def _lost_messages(self, chunk: Chunk) -> MessageTable | None:
        """Return the messages of a damaged chunk by the index after it; None if it has none."""
        table = MessageTable()
        record = self._record(chunk.position + chunk.length)
        while record is not None and record[0] == OP_MESSAGE_INDEX:
            _, position, length = record
            check_message(length)
            try:
                table.add_index(self._read(position, length), chunk.length)
            except (BagError, struct.error):
                return None
            record = self._record(position + length)
        return table if table.times else None

    # --- index

    def _clear(self) -> None:
        self._schemas: dict[int, tuple[str, str, str]] = {}  # id → name, encoding, definition
        self._channels: dict[int, tuple[int, str, str, Any]] = {}  # id → schema, topic, encoding, QoS
        self._chunks: list[Chunk] = []
        self._loose = MessageTable()  # messages outside chunks
        self._scanned = False  # whether all records have been read
        self._counted = False  # whether the index gave the message counts
        self._defined = 0  # characters in all definitions together
        self._qos_length = 0  # characters in the QoS of all topics together
        self._counts: dict[int, int] = {}
        self.message_count, self.start_time, self.end_time = 0, 2**63 - 1, 0

    def _read_header(self) -> int:
        """Check the header; return the position of the first record after it."""
        if self._file.read(len(MAGIC)) != MAGIC:
            raise BagError('the file is empty' if not self._size else 'the file does not begin like an MCAP file')
        record = self._record(len(MAGIC))
        if record is None or record[0] != OP_HEADER:
            raise BagError('the file has no header')
        check_message(record[2])
        if FieldReader(self._read(*record[1:])).text() != 'ros2':
            raise BagError('the file is not a recording of ROS 2: its profile is not ros2')
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
            more = ConnectionExtRosbag2(encoding, parse_qos_profiles(profiles))
            found.append(Connection(number, topic, msgtype, definition, '', self._counts.get(number, 0), more, self))
        if unnamed:
            self._note(f'{self.path}: {unnamed} topics with an invalid name or type are skipped')
        return found

    def _read_summary(self) -> bool:
        """Read the index at the end of the file; return whether it is present and consistent."""
        if self._size < self._start + FOOTER.size + len(MAGIC):
            self._note(f'{self.path} {_CUT_OFF}')
            return False
        at = self._size - FOOTER.size - len(MAGIC)
        opcode, length, begin, _, _ = FOOTER.unpack(self._read(at, FOOTER.size))
        if opcode != OP_FOOTER or length != FOOTER.size - RECORD.size or self._read(at + FOOTER.size, 8) != MAGIC:
            self._note(f'{self.path} {_CUT_OFF}')
            return False
        if not begin:
            return False  # an index is optional
        try:
            if not self._start <= begin <= at or at - begin > MAX_INDEX_BYTES:
                raise BagError('the index lies outside the file, or is too large')
            known = self._parse_summary(self._read(begin, at - begin), begin)
        except (BagError, ValueError, struct.error):
            self._note(f'{self.path} {_CUT_OFF}')
            return False
        return known

    def _parse_summary(self, data: bytes, begin: int) -> bool:
        """Parse the index; return whether it is complete."""
        statistics = None
        channel_sets: dict[bytes, frozenset[int]] = {}
        for opcode, position, length in iter_records(data):
            if opcode in (OP_SCHEMA, OP_CHANNEL):
                self._define(opcode, data[position : position + length])
            elif opcode == OP_CHUNK_INDEX:
                fields = FieldReader(data[position : position + length])
                first, _, at, size = fields.numbers(CHUNK_INDEX)
                offsets = fields.raw()
                channels = bytes(b''.join(offsets[i : i + 2] for i in range(0, len(offsets) - 9, 10)))
                if channels not in channel_sets:
                    channel_sets[channels] = frozenset(array('H', channels)) if channels else frozenset()
                if size < RECORD.size:
                    raise BagError('the index lists a chunk without content')
                chunk = Chunk(first, at + RECORD.size, size - RECORD.size, channel_sets[channels])
                self._chunks.append(chunk)
            elif opcode == OP_STATISTICS:
                fields = FieldReader(data[position : position + length])
                statistics = fields.numbers(STATISTICS)
                self._counts = {channel: count for channel, count in CHANNEL_COUNT.iter_unpack(fields.raw())}  # noqa: C416
        after = self._start
        for chunk in sorted(self._chunks, key=lambda item: item.position):
            if chunk.position - RECORD.size < after or chunk.position + chunk.length > begin:
                raise BagError('chunks overlap, or lie outside the file')
            after = chunk.position + chunk.length
        if statistics is None or len(self._channels) < statistics[2] or len(self._chunks) < statistics[5]:
            return False
        self.message_count, self.start_time, self.end_time = statistics[0], statistics[6], statistics[7] + 1
        self._counted = True
        return True

    def _scan(self) -> None:
        """Read all records, including those in chunks."""
        self._scanned = True
        self._scan_records()
        if not self._counted:
            self._count(self._loose)

    def _scan_records(self) -> None:
        record = self._record(self._start)
        stopped = self._start
        while record is not None and record[0] not in END_OPCODES:
            opcode, position, length = record
            stopped = position + length
            if opcode == OP_CHUNK:
                try:
                    data = self._read_chunk(position, length)
                    found = chunk_messages(data, length)
                except BagError as error:
                    self._note(f'{self.path}: a chunk cannot be read ({error}); the rest of the file is skipped')
                    return
                self._chunks.append(Chunk(min(found.times, default=0), position, length, frozenset(found.channels)))
                if not self._counted:
                    self._count(found)
                for inner, at, size in iter_records(data):
                    if inner in (OP_SCHEMA, OP_CHANNEL):
                        self._define(inner, data[at : at + size])
            elif opcode == OP_MESSAGE and length >= MESSAGE.size:
                self._loose.add(self._read(position, MESSAGE.size), 0, position, length)
            elif opcode in (OP_SCHEMA, OP_CHANNEL):
                check_message(length)
                self._define(opcode, self._read(position, length))
            record = self._record(stopped)
        if record is None or record[0] == 0:
            self._note(f'{self.path} {_CUT_OFF}')
            self._scan_rest(stopped)

    def _scan_rest(self, position: int) -> None:
        """Read the complete records of a truncated, uncompressed chunk at the end of the file."""
        head = self._read(position, RECORD.size + CHUNK.size + U32.size + U64.size, short=True)
        if len(head) < RECORD.size + CHUNK.size + U32.size + U64.size or head[0] != OP_CHUNK:
            return
        if U32.unpack_from(head, RECORD.size + CHUNK.size) != (0,):
            return
        record = self._record(position + len(head))
        while record is not None and record[0] not in END_OPCODES:
            opcode, at, length = record
            if opcode == OP_MESSAGE and length >= MESSAGE.size:
                self._loose.add(self._read(at, MESSAGE.size), 0, at, length)
            elif opcode in (OP_SCHEMA, OP_CHANNEL):
                check_message(length)
                self._define(opcode, self._read(at, length))
            record = self._record(at + length)

    def _count(self, messages: MessageTable) -> None:
        if not messages.times:
            return
        self.message_count += len(messages.times)
        self.start_time = min(self.start_time, min(messages.times))
        self.end_time = max(self.end_time, max(messages.times) + 1)
        channels, counts = np.unique(np.frombuffer(messages.channels, np.uint16), return_counts=True)
        for channel, count in zip(channels.tolist(), counts.tolist(), strict=True):
            self._counts[channel] = self._counts.get(channel, 0) + count

    def _define(self, opcode: int, content: bytes) -> None:
        """Store a schema or channel; later ones with the same id are ignored."""
        fields = FieldReader(content)
        (number,) = fields.numbers(U16)
        if opcode == OP_SCHEMA and number not in self._schemas:
            name, written_in, text = fields.text(), fields.text(), bytes(fields.raw())
            definition = text.decode(errors='replace') if len(text) <= MAX_DEFINITION_LENGTH else ''
            self._defined += len(definition)
            if self._defined > MAX_DEFINITIONS_LENGTH:
                raise BagError(f'more than {MAX_DEFINITIONS_LENGTH} characters of message definitions')
            self._schemas[number] = (name, written_in, definition)
        elif opcode == OP_CHANNEL and number not in self._channels:
            (schema,) = fields.numbers(U16)
            topic, encoding, more = fields.text(), fields.text(), FieldReader(fields.raw())
            profiles: Any = []
            while not profiles and not more.at_end:
                key, value = more.text(), more.text()
                profiles = value if key == 'offered_qos_profiles' else []
            self._qos_length += len(profiles)
            if self._qos_length > MAX_QOS_LENGTH:
                raise BagError(f'more than {MAX_QOS_LENGTH} characters of QoS')
            self._channels[number] = (schema, topic, encoding, profiles)
            if len(self._channels) > MAX_TOPICS:
                raise BagError(f'more than {MAX_TOPICS} topics')

    # --- bytes

    def _record(self, position: int) -> tuple[int, int, int] | None:
        """Return opcode, content position and length of a record; None if it is truncated."""
        head = self._read(position, RECORD.size, short=True)
        if len(head) < RECORD.size:
            return None
        opcode, length = RECORD.unpack(head)
        return (opcode, position + RECORD.size, length) if position + RECORD.size + length <= self._size else None

    def _read_chunk(self, position: int, length: int) -> bytes:
        """Return the decompressed records of a chunk."""
        check_message(length)
        fields = FieldReader(self._read(position, length))
        _, _, size, checksum = fields.numbers(CHUNK)
        compression = fields.text()
        (packed,) = fields.numbers(U64)
        data = decompress(fields.take(packed), compression, size)
        if len(data) != size:
            raise BagError(f'a chunk has {len(data)} bytes instead of {size}')
        if checksum and crc32(data) != checksum:
            raise BagError('the checksum of a chunk does not match')
        return data

    def _read(self, position: int, length: int, *, short: bool = False) -> bytes:
        if position + length > self._size and not short:
            raise BagError('the file ends inside a record')
        self._file.seek(min(position, self._size))
        data = self._file.read(max(0, min(length, self._size - position)))
        if len(data) < length and not short:
            raise BagError('the file ends inside a record')
        return data

    def _note(self, damage: str) -> None:
        if damage not in self.damage:
            self.damage = f'{self.damage}; {damage}' if self.damage else damage
