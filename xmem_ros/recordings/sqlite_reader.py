# SPDX-License-Identifier: MIT
"""Reader of sqlite3 bag files, including unfinished, damaged and hostile ones.

A database can contain code: views, triggers and generated columns are SQL by the file's author.
Only plain columns of known tables are read, with fixed statements, on a connection that denies
everything else. No statement sorts or aggregates, because a hostile file can repeat the same rows
any number of times.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xmem_ros.errors import BagError
from xmem_ros.recordings.compression import writable_bytes
from xmem_ros.recordings.limits import (
    MAX_DEFINITION_LENGTH,
    MAX_DEFINITIONS_LENGTH,
    MAX_MESSAGE_BYTES,
    MAX_QOS_LENGTH,
    MAX_TOPICS,
    check_message,
    check_time,
    is_name,
)
from xmem_ros.recordings.metadata import parse_qos_profiles

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_MAGIC = b'SQLite format 3\x00'
_JOURNALS = ('-wal', '-journal')  # suffixes of SQLite's journals; an empty one has nothing to recover
_URI_ESCAPES = str.maketrans({'%': '%25', '?': '%3f', '#': '%23'})
_SUPER_JOURNAL_MAGIC = b'\xd9\xd5\x05\xf9\x20\xa1\x63\xd7'  # ends a journal with a super-journal's name
_TABLES = {  # table → columns that are read; older versions lack the last ones
    'topics': ('id', 'name', 'type', 'serialization_format', 'offered_qos_profiles', 'type_description_hash'),
    'messages': ('topic_id', 'timestamp', 'data'),
    'message_definitions': ('topic_type', 'encoding', 'encoded_message_definition'),
}
_ROW_IDS = ('rowid', 'oid', '_rowid_')  # names of the row number, by which messages are found
_MIN_ROW_BYTES = 8


class SqliteReader:
    """An open sqlite3 bag file.

    A journal beside it is recovered by SQLite in a temporary copy of both.

    Raises:
        BagError: not a bag's database, or unreadable.
        OSError: the file cannot be read, or the disk has no room for the copy.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage = ''  # what cannot be read, and why; '' if everything can be read
        self._folder: Any = None
        self._database: Any = None
        try:
            with path.open('rb') as file:
                if file.read(len(_MAGIC)) != _MAGIC:
                    raise BagError('it does not begin like an SQLite database')
            self._size = path.stat().st_size
            place = self._with_journals()
            self._read(place)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file, and remove the copy."""
        if self._database is not None:
            self._database.close()
        if self._folder is not None:
            self._folder.cleanup()
        self._database = self._folder = None

    def messages(
        self,
        connections: Collection[Any],
        *,
        keep_lost: bool = False,  # noqa: ARG002
    ) -> Iterator[tuple[Any, int, bytes]]:
        """Yield connection, time [ns] and bytes in order of time; `keep_lost` has no effect.

        Raises:
            BagError: the file cannot be read further.
        """
        import apsw

        wanted = {connection.id: connection for connection in connections}
        chosen = np.flatnonzero(np.isin(self._topics, list(wanted)))
        for row in chosen[np.argsort(self._times[chosen], kind='stable')]:
            try:
                cursor = self._database.execute('SELECT data FROM messages WHERE rowid = ?', (int(self._rowids[row]),))
                ((raw,),) = cursor.fetchmany(2) if hasattr(cursor, 'fetchmany') else list(cursor)
            except (apsw.Error, ValueError, MemoryError) as error:
                raise BagError(f'a message cannot be read ({error or type(error).__name__})') from error
            time_ns = int(self._times[row])
            check_time(time_ns)
            yield wanted[int(self._topics[row])], time_ns, raw if isinstance(raw, bytes) else b''

    def _read(self, place: Path) -> None:
        import apsw

        try:
            self._database = _open_restricted(place)
            tables = self._tables()
            self._scan('length(data)')
        except (apsw.Error, BagError) as first:
            if isinstance(first, apsw.CantOpenError):
                raise BagError(str(first)) from first
            # read again up to the damage; with this setting SQLite accepts missing pages
            if self._database is not None:
                self._database.close()
            try:
                self._database = _open_restricted(place)
                self._database.config(apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1)
                tables = self._tables()
                self._scan('data', until_damage=True)
            except apsw.Error as error:
                raise BagError(str(error)) from error
            if not len(self._times):
                raise BagError(str(first)) from first
            self._note(f'{self.path} was cut off or is damaged: {len(self._times)} messages of it can be read')
        try:
            self.connections = self._connections(tables)
        except apsw.Error as error:
            raise BagError(str(error)) from error
        self.message_count = len(self._times)
        self.start_time = int(self._times.min()) if self.message_count else 2**63 - 1
        self.end_time = int(self._times.max()) + 1 if self.message_count else 0

    def _tables(self) -> dict[str, list[str]]:
        """Return the known tables in the file → their known columns."""
        found = {}
        for table, known in _TABLES.items():
            kinds = [row[2] for row in self._database.execute(f'PRAGMA table_list({table})') if row[0] == 'main']
            if kinds not in ([], ['table']):
                raise BagError(f'{table} is not a plain table: its rows are computed')
            columns = {row[1]: row[6] for row in self._database.execute(f'PRAGMA table_xinfo({table})')}
            if computed := [name for name, hidden in columns.items() if hidden]:
                raise BagError(f'the column {computed[0]!r} of {table} is computed')
            if shadowed := [name for name in columns if name.lower() in _ROW_IDS]:
                raise BagError(f'the column {shadowed[0]!r} of {table} hides the row number')
            if columns:
                found[table] = [name for name in known if name in columns]
        if 'topics' not in found or 'messages' not in found:
            raise BagError('it lacks the tables topics and messages of a bag')
        return found

    def _scan(self, data_column: str, *, until_damage: bool = False) -> None:
        """List all messages; together they cannot be larger than the file."""
        import apsw

        rows, topics, times = array('q'), array('q'), array('q')
        size = 0
        try:
            for row, topic, time_ns, data in self._database.execute(
                # data_column is one of two constants
                f'SELECT rowid, topic_id, timestamp, {data_column} FROM messages NOT INDEXED'  # noqa: S608
            ):
                length = data if isinstance(data, int) else len(data) if isinstance(data, str | bytes) else 0
                size += length
                check_message(length)
                if size > self._size or len(rows) > self._size // _MIN_ROW_BYTES:
                    raise BagError('its messages add up to more than the file')
                if not isinstance(topic, int) or not isinstance(time_ns, int):
                    raise BagError('a message has no topic or no time')
                rows.append(row)
                topics.append(topic)
                times.append(time_ns)
        except (apsw.Error, BagError, MemoryError):
            if not until_damage:
                raise
        self._rowids, self._topics, self._times = (np.array(item, np.int64) for item in (rows, topics, times))

    def _connections(self, tables: dict[str, list[str]]) -> list[Any]:
        from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition, MessageDefinitionFormat

        formats = {'ros2msg': MessageDefinitionFormat.MSG, 'ros2idl': MessageDefinitionFormat.IDL}
        definitions: dict[str, Any] = {}
        size = 0
        if len(tables.get('message_definitions', ())) == len(_TABLES['message_definitions']):
            for name, written_in, text in self._rows_of('message_definitions', tables):
                if isinstance(text, str) and len(text) <= MAX_DEFINITION_LENGTH and written_in in formats:
                    size += len(text)
                    definitions.setdefault(name, MessageDefinition(formats[written_in], text))
                if size > MAX_DEFINITIONS_LENGTH:
                    raise BagError(f'more than {MAX_DEFINITIONS_LENGTH} characters of message definitions')
        numbers, counts = np.unique(self._topics, return_counts=True)
        count_of = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
        found = []
        unnamed = qos_length = 0
        for row in self._rows_of('topics', tables):
            values = dict(zip(tables['topics'], row, strict=True))
            qos_length += len(values.get('offered_qos_profiles') or '')
            if qos_length > MAX_QOS_LENGTH:
                raise BagError(f'more than {MAX_QOS_LENGTH} characters of QoS')
            number, topic, msgtype = values.get('id'), values.get('name'), values.get('type')
            if not isinstance(number, int) or not is_name(topic) or not is_name(msgtype):
                unnamed += 1
                continue
            digest = values.get('type_description_hash')
            encoding = values.get('serialization_format')
            more = ConnectionExtRosbag2(
                encoding if is_name(encoding) else 'cdr', parse_qos_profiles(values.get('offered_qos_profiles') or [])
            )
            definition = definitions.get(msgtype, MessageDefinition(MessageDefinitionFormat.NONE, ''))
            digest = digest if is_name(digest) else ''
            found.append(Connection(number, topic, msgtype, definition, digest, count_of.get(number, 0), more, self))
        if unnamed:
            self._note(f'{self.path}: {unnamed} topics with an invalid name or type are skipped')
        return found

    def _rows_of(self, table: str, tables: dict[str, list[str]]) -> Iterator[tuple[Any, ...]]:
        columns = ', '.join(f'"{name}"' for name in tables[table])
        # table and columns are from _TABLES
        query = f'SELECT {columns} FROM {table} NOT INDEXED'  # noqa: S608
        for count, row in enumerate(self._database.execute(query)):
            if count >= MAX_TOPICS:
                raise BagError(f'more than {MAX_TOPICS} topics or types')
            yield row

    def _with_journals(self) -> Path:
        """Return the file or, if it has journals, a copy with the last commit recovered."""
        journals = {ending: found for ending in _JOURNALS if (found := _journal(self.path, ending))}
        if not journals:
            return self.path
        self._folder = tempfile.TemporaryDirectory()
        copy = Path(self._folder.name) / self.path.name
        needed = 2 * (self._size + sum(journal.stat().st_size for journal in journals.values()))
        if needed > (room := writable_bytes(copy.parent)):
            raise OSError(errno.ENOSPC, f'{needed} bytes are needed, but only {room} may be used')
        shutil.copyfile(self.path, copy)
        for ending, journal in journals.items():
            if _has_super_journal(journal):
                self._note(f'{journal} names a super-journal, which no recorder writes, and is ignored')
                continue
            self._size += journal.stat().st_size
            shutil.copyfile(journal, copy.with_name(copy.name + ending))
        if reason := _recover(copy):
            self._note(f'{self.path}: its journal cannot be recovered ({reason})')
        if copy.stat().st_size > self._size:
            raise BagError('its journal expands it beyond the size of both files')
        return copy

    def _note(self, damage: str) -> None:
        self.damage = f'{self.damage}; {damage}' if self.damage else damage


def _open_restricted(path: Path, *, recovering: bool = False) -> Any:
    """Open a database so that only known tables can be read and no code in it runs."""
    import apsw

    if recovering:
        database = apsw.Connection(str(path))
    else:
        uri = f'file:{str(path.resolve()).translate(_URI_ESCAPES)}?immutable=1'
        database = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    for option in (
        apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA,
        apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER,
        apsw.SQLITE_DBCONFIG_ENABLE_VIEW,
    ):
        database.config(option, 0)
    for limit, value in (
        (apsw.SQLITE_LIMIT_LENGTH, MAX_MESSAGE_BYTES + 2**20),
        (apsw.SQLITE_LIMIT_SQL_LENGTH, 2**16),
        (apsw.SQLITE_LIMIT_ATTACHED, 0),
        (apsw.SQLITE_LIMIT_TRIGGER_DEPTH, 1),
        (apsw.SQLITE_LIMIT_EXPR_DEPTH, 50),
        (apsw.SQLITE_LIMIT_COLUMN, 100),
    ):
        database.limit(limit, value)
    pragmas = ('journal_mode',) if recovering else ('table_list', 'table_xinfo')

    def authorize(action: int, first: str | None, second: str | None, _: str | None, trigger: str | None) -> int:
        allowed = trigger is None and (
            action == apsw.SQLITE_SELECT
            or (action == apsw.SQLITE_READ and (first in _TABLES or first == 'sqlite_master'))
            or (action == apsw.SQLITE_FUNCTION and second == 'length')
            or (action == apsw.SQLITE_PRAGMA and first in pragmas)
        )
        return int(apsw.SQLITE_OK if allowed else apsw.SQLITE_DENY)

    database.authorizer = authorize
    return database


def _journal(path: Path, ending: str) -> Path | None:
    """Return the non-empty journal beside a database or beside its link's target."""
    for place in (path, path.resolve()):
        journal = place.with_name(place.name + ending)
        if journal.is_file() and journal.stat().st_size:
            return journal
    return None


def _has_super_journal(journal: Path) -> bool:
    """Return whether a journal names a super-journal, which SQLite would delete."""
    with journal.open('rb') as file:
        file.seek(max(0, journal.stat().st_size - len(_SUPER_JOURNAL_MAGIC)))
        return file.read() == _SUPER_JOURNAL_MAGIC


def _recover(copy: Path) -> str:
    """Let SQLite recover the journals of a copy; return the reason if it fails, '' otherwise.

    A recording itself is never written, and its folder may be read-only.
    """
    import apsw

    database = None
    try:
        database = _open_restricted(copy, recovering=True)
        list(database.execute('PRAGMA journal_mode=DELETE'))  # recovers and removes the journals
        list(database.execute('SELECT name FROM sqlite_master LIMIT 1'))
    except apsw.Error as error:  # the file is then read without them
        return str(error)
    finally:
        if database is not None:
            database.close()
    return ''
