# SPDX-License-Identifier: MIT
"""MCAP records: their layouts, and the messages of a chunk. See mcap.dev/spec.

Every length is checked against the available bytes before it is used.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xmem_ros.errors import BagError
from xmem_ros.recordings.limits import check_message

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAGIC = b'\x89MCAP0\r\n'
RECORD = struct.Struct('<BQ')  # opcode, content length
FOOTER = struct.Struct('<BQQQI')  # opcode, length, start of summary and of its offsets, checksum
CHUNK = struct.Struct('<QQQI')  # first and last time, decompressed size, checksum
CHUNK_INDEX = struct.Struct('<QQQQ')  # first and last time, position and length of the chunk record
MESSAGE = struct.Struct('<HIQQ')  # channel, sequence number, log time, publish time [ns]
STATISTICS = struct.Struct('<QHIIIIQQ')  # messages, schemas, channels, …, first and last time
CHANNEL_COUNT = struct.Struct('<HQ')  # channel, messages
INDEX_ENTRY = struct.Struct('<QQ')  # log time [ns], position in the chunk
U16, U32, U64 = struct.Struct('<H'), struct.Struct('<I'), struct.Struct('<Q')

# opcodes
OP_HEADER, OP_FOOTER, OP_SCHEMA, OP_CHANNEL, OP_MESSAGE, OP_CHUNK = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
OP_MESSAGE_INDEX, OP_CHUNK_INDEX, OP_STATISTICS, OP_DATA_END = 0x07, 0x08, 0x0B, 0x0F
END_OPCODES = (0x00, OP_FOOTER, OP_DATA_END)  # 0: allocated, but never written


@dataclass(frozen=True)
class Chunk:
    """Position of a chunk in the file."""

    start_ns: int  # time of its first message, according to the file
    position: int  # position of its content in the file
    length: int
    channels: frozenset[int] = frozenset()  # empty: unknown


@dataclass
class MessageTable:
    """Log time [ns], position, length and channel of each message."""

    times: array[int] = field(default_factory=lambda: array('Q'))
    positions: array[int] = field(default_factory=lambda: array('Q'))
    lengths: array[int] = field(default_factory=lambda: array('Q'))
    channels: array[int] = field(default_factory=lambda: array('H'))

    def add(self, head: Any, offset: int, position: int, length: int) -> None:
        """Add a message: header in `head` at `offset`, record content at `position`."""
        channel, _, received_ns, _ = MESSAGE.unpack_from(head, offset)
        self.times.append(received_ns)
        self.positions.append(position + MESSAGE.size)
        self.lengths.append(length - MESSAGE.size)
        self.channels.append(channel)

    def add_index(self, content: bytes, most: int) -> None:
        """Add the messages of a record MessageIndex, without content; at most `most` in all."""
        fields = FieldReader(content)
        (channel,) = fields.numbers(U16)
        entries = fields.raw()
        count = len(entries) // INDEX_ENTRY.size
        if len(self.times) + count > most:
            raise BagError(f'an index lists more than {most} messages')
        self.times.extend(time_ns for time_ns, _ in INDEX_ENTRY.iter_unpack(entries))
        self.channels.extend([channel] * count)
        self.positions.extend([0] * count)
        self.lengths.extend([0] * count)


class MessageCursor:
    """Messages of some channels in order of time, from a chunk, or from the file outside chunks."""

    def __init__(self, read: Any, table: MessageTable, wanted: Mapping[int, Any], held_bytes: int) -> None:
        self._read, self._table, self.held_bytes = read, table, held_bytes
        channels = np.frombuffer(table.channels, np.uint16) if table.channels else np.zeros(0, np.uint16)
        chosen = np.flatnonzero(np.isin(channels, list(wanted)))
        times = np.frombuffer(table.times, np.uint64) if table.times else np.zeros(0, np.uint64)
        self._order = chosen[np.argsort(times[chosen], kind='stable')]
        self._next = 0

    @property
    def time_ns(self) -> int | None:
        """Time of the next message; None at the end."""
        return self._table.times[self._order[self._next]] if self._next < len(self._order) else None

    def take(self) -> tuple[int, bytes]:
        """Return channel and bytes of the next message."""
        row = self._order[self._next]
        self._next += 1
        position, length = self._table.positions[row], self._table.lengths[row]
        check_message(length)
        return self._table.channels[row], self._read(position, length)


class FieldReader:
    """Reader of a record's fields in order; raises `BagError` past the record's end."""

    def __init__(self, content: Any) -> None:
        self._content, self._position = memoryview(content), 0

    @property
    def at_end(self) -> bool:
        """Whether all fields have been read."""
        return self._position >= len(self._content)

    def take(self, length: int) -> memoryview:
        """Return the next bytes."""
        if length > len(self._content) - self._position:
            raise BagError('a field extends beyond the end of its record')
        self._position += length
        return self._content[self._position - length : self._position]

    def numbers(self, layout: struct.Struct) -> tuple[int, ...]:
        """Return the next fixed-size fields."""
        return layout.unpack(self.take(layout.size))

    def raw(self) -> memoryview:
        """Return the next byte array, which is stored after its length."""
        return self.take(self.numbers(U32)[0])

    def text(self) -> str:
        """Return the next string."""
        try:
            return bytes(self.raw()).decode()
        except UnicodeDecodeError as error:
            raise BagError('a name is not UTF-8') from error


def iter_records(data: bytes, most: int | None = None) -> Iterator[tuple[int, int, int]]:
    """Yield opcode, content position and length of each record in a chunk or index.

    Raises `BagError` for a truncated record and for more than `most` records.
    """
    position = count = 0
    while position < len(data):
        count += 1
        if most is not None and count > most:
            raise BagError(f'a chunk of {most} bytes holds more than {most} records')
        if position + RECORD.size > len(data):
            raise BagError('a chunk or index ends inside a record')
        opcode, length = RECORD.unpack_from(data, position)
        position += RECORD.size
        if length > len(data) - position:
            raise BagError('a chunk or index ends inside a record')
        yield opcode, position, length
        position += length


def chunk_messages(data: bytes, packed: int) -> MessageTable:
    """Return the messages of a decompressed chunk.

    packed: its size in the file [bytes]. It may have no more records than that, so a small file
    cannot expand to millions of records.
    """
    messages = MessageTable()
    for opcode, position, length in iter_records(data, packed):
        if opcode == OP_MESSAGE:
            if length < MESSAGE.size:
                raise BagError('a message is shorter than its header')
            messages.add(data, position, position, length)
        elif opcode == OP_CHUNK:
            raise BagError('a chunk contains another chunk')
    return messages
