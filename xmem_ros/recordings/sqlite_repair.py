# SPDX-License-Identifier: MIT
"""sqlite3 files of bags, also those whose recording was not ended, that are damaged, or that were made to do harm.

A database is a program, too: views, triggers and generated columns are SQL that whoever wrote the file chose. Here only
plain columns of known tables are read, by statements of ours, on a connection that permits nothing else. No statement
sorts or adds up, since the pages of a prepared file can hold the same rows any number of times.
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
from xmem_ros.recordings.compression import room_in
from xmem_ros.recordings.limits import (
    MOST_DEFINITION,
    MOST_DEFINITIONS,
    MOST_MESSAGE,
    MOST_TOPICS,
    check_message,
    check_time,
    is_name,
)
from xmem_ros.recordings.metadata import profiles_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_SQLITE = b'SQLite format 3\x00'
_JOURNALS = ('-wal', '-journal')  # what SQLite writes beside a database; empty where all of it is in there
_IN_URIS = str.maketrans({'%': '%25', '?': '%3f', '#': '%23'})  # what has another meaning there
_NAMES_ANOTHER = b'\xd9\xd5\x05\xf9\x20\xa1\x63\xd7'  # end of a journal that names a further file, which is deleted
_TABLES = {  # that are read, and their columns; the last ones are not in all versions
    'topics': ('id', 'name', 'type', 'serialization_format', 'offered_qos_profiles', 'type_description_hash'),
    'messages': ('topic_id', 'timestamp', 'data'),
    'message_definitions': ('topic_type', 'encoding', 'encoded_message_definition'),
}
_LEAST_ROW = 8  # bytes that a row takes in a file


class DatabaseFile:
    """A database of messages that is open.

    What a journal beside it holds is brought in by SQLite, in a copy in the folder for temporary files.

    Raises:
        BagError: it is none, or nothing of it can be read.
        OSError: it cannot be read, or there is no room for a copy.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage = ''  # why not all of it can be read; '' where it can
        self._folder: Any = None
        self._database: Any = None
        try:
            with path.open('rb') as file:
                if file.read(len(_SQLITE)) != _SQLITE:
                    raise BagError('it does not begin as a database of SQLite does')
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

    def messages(self, connections: Collection[Any]) -> Iterator[tuple[Any, int, bytes]]:
        """Yield connection, time [ns] and bytes in the order of time; raises `BagError` where it cannot go on."""
        import apsw

        wanted = {connection.id: connection for connection in connections}
        chosen = np.flatnonzero(np.isin(self._topics, list(wanted)))
        for at in chosen[np.argsort(self._times[chosen], kind='stable')]:
            try:
                rows = self._database.execute('SELECT data FROM messages WHERE rowid = ?', (int(self._rows[at]),))
                ((raw,),) = rows.fetchmany(2) if hasattr(rows, 'fetchmany') else list(rows)
            except (apsw.Error, ValueError, MemoryError) as error:
                raise BagError(f'a message cannot be read ({error or type(error).__name__})') from error
            time_ns = int(self._times[at])
            check_time(time_ns)
            yield wanted[int(self._topics[at])], time_ns, raw if isinstance(raw, bytes) else b''

    # --- inside

    def _read(self, place: Path) -> None:
        import apsw

        try:
            self._database = _guarded(place)
            tables = self._tables()
            self._scan('length(data)')
        except (apsw.Error, BagError) as first:
            if isinstance(first, apsw.CantOpenError):
                raise BagError(str(first)) from first
            # once more, as far as it goes: by this SQLite also reads a file with fewer pages than it says it has
            if self._database is not None:
                self._database.close()
            try:
                self._database = _guarded(place)
                self._database.config(apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1)
                tables = self._tables()
                self._scan('data', to_the_fault=True)
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
        """Known tables that are there → their known columns."""
        found = {}
        for table, known in _TABLES.items():
            kinds = [row[2] for row in self._database.execute(f'PRAGMA table_list({table})') if row[0] == 'main']
            if kinds not in ([], ['table']):
                raise BagError(f'{table} is no table but something that computes its rows')
            columns = {row[1]: row[6] for row in self._database.execute(f'PRAGMA table_xinfo({table})')}
            if computed := [name for name, hidden in columns.items() if hidden]:
                raise BagError(f'the column {computed[0]!r} of {table} is computed')
            if columns:
                found[table] = [name for name in known if name in columns]
        if 'topics' not in found or 'messages' not in found:
            raise BagError('it has no topics and messages of a bag')
        return found

    def _scan(self, looked_at: str, *, to_the_fault: bool = False) -> None:
        """Note where all messages are. What they add up to cannot be more than the file."""
        import apsw

        rows, topics, times = array('q'), array('q'), array('q')
        size = 0
        try:
            for row, topic, time_ns, data in self._database.execute(
                # looked_at is a constant of ours
                f'SELECT rowid, topic_id, timestamp, {looked_at} FROM messages NOT INDEXED'  # noqa: S608
            ):
                length = data if isinstance(data, int) else len(data) if isinstance(data, str | bytes) else 0
                size += length
                check_message(length)
                if size > self._size or len(rows) > self._size // _LEAST_ROW:
                    raise BagError('its messages add up to more than the file')
                if not isinstance(topic, int) or not isinstance(time_ns, int):
                    raise BagError('a message has no topic or no time')
                rows.append(row)
                topics.append(topic)
                times.append(time_ns)
        except (apsw.Error, BagError, MemoryError):
            if not to_the_fault:
                raise
        self._rows, self._topics, self._times = (np.array(item, np.int64) for item in (rows, topics, times))

    def _connections(self, tables: dict[str, list[str]]) -> list[Any]:
        from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition, MessageDefinitionFormat

        formats = {'ros2msg': MessageDefinitionFormat.MSG, 'ros2idl': MessageDefinitionFormat.IDL}
        definitions: dict[str, Any] = {}
        size = 0
        if len(tables.get('message_definitions', ())) == len(_TABLES['message_definitions']):
            for name, written_in, text in self._rows_of('message_definitions', tables):
                if isinstance(text, str) and len(text) <= MOST_DEFINITION and written_in in formats:
                    size += len(text)
                    definitions.setdefault(name, MessageDefinition(formats[written_in], text))
                if size > MOST_DEFINITIONS:
                    raise BagError(f'more than {MOST_DEFINITIONS} characters of message definitions')
        numbers, counts = np.unique(self._topics, return_counts=True)
        count_of = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
        found = []
        unnamed = 0
        for row in self._rows_of('topics', tables):
            told = dict(zip(tables['topics'], row, strict=True))
            number, topic, msgtype = told.get('id'), told.get('name'), told.get('type')
            if not isinstance(number, int) or not is_name(topic) or not is_name(msgtype):
                unnamed += 1
                continue
            digest = told.get('type_description_hash')
            encoding = told.get('serialization_format')
            more = ConnectionExtRosbag2(
                encoding if is_name(encoding) else 'cdr', profiles_of(told.get('offered_qos_profiles') or [])
            )
            definition = definitions.get(msgtype, MessageDefinition(MessageDefinitionFormat.NONE, ''))
            digest = digest if is_name(digest) else ''
            found.append(Connection(number, topic, msgtype, definition, digest, count_of.get(number, 0), more, self))
        if unnamed:
            self._note(f'{self.path}: {unnamed} topics whose name or type is no name are left out')
        return found

    def _rows_of(self, table: str, tables: dict[str, list[str]]) -> Iterator[tuple[Any, ...]]:
        columns = ', '.join(f'"{name}"' for name in tables[table])
        # table and columns are constants of ours
        query = f'SELECT {columns} FROM {table} NOT INDEXED'  # noqa: S608
        for count, row in enumerate(self._database.execute(query)):
            if count >= MOST_TOPICS:
                raise BagError(f'more than {MOST_TOPICS} topics or types')
            yield row

    def _with_journals(self) -> Path:
        """The file, or where there are journals, a copy that SQLite brought up to what was committed last."""
        journals = {ending: found for ending in _JOURNALS if (found := _journal(self.path, ending))}
        if not journals:
            return self.path
        self._folder = tempfile.TemporaryDirectory()
        copy = Path(self._folder.name) / self.path.name
        needed = 2 * (self._size + sum(journal.stat().st_size for journal in journals.values()))
        if needed > (room := room_in(copy.parent)):
            raise OSError(errno.ENOSPC, f'{needed} bytes are needed, and {room} may be used')
        shutil.copyfile(self.path, copy)
        for ending, journal in journals.items():
            if _names_another(journal):
                self._note(f'{journal} names a further file, as no journal of a recorder does, and is left out')
                continue
            self._size += journal.stat().st_size
            shutil.copyfile(journal, copy.with_name(copy.name + ending))
        if reason := _recover(copy):
            self._note(f'{self.path}: what its journal holds cannot be read ({reason})')
        if copy.stat().st_size > self._size:
            raise BagError('its journal makes more of it than both are')
        return copy

    def _note(self, damage: str) -> None:
        self.damage = f'{self.damage}; {damage}' if self.damage else damage


def _guarded(path: Path, *, recovering: bool = False) -> Any:
    """Open a database so that nothing in it can be run, and nothing but known tables be read."""
    import apsw

    if recovering:
        database = apsw.Connection(str(path))
    else:
        uri = f'file:{str(path.resolve()).translate(_IN_URIS)}?immutable=1'
        database = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    for option in (
        apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA,
        apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER,
        apsw.SQLITE_DBCONFIG_ENABLE_VIEW,
    ):
        database.config(option, 0)
    for limit, most in (
        (apsw.SQLITE_LIMIT_LENGTH, MOST_MESSAGE + 2**20),
        (apsw.SQLITE_LIMIT_SQL_LENGTH, 2**16),
        (apsw.SQLITE_LIMIT_ATTACHED, 0),
        (apsw.SQLITE_LIMIT_TRIGGER_DEPTH, 1),
        (apsw.SQLITE_LIMIT_EXPR_DEPTH, 50),
        (apsw.SQLITE_LIMIT_COLUMN, 100),
    ):
        database.limit(limit, most)
    pragmas = ('journal_mode',) if recovering else ('table_list', 'table_xinfo')

    def allow(action: int, one: str | None, two: str | None, _: str | None, inside: str | None) -> int:
        fine = inside is None and (
            action == apsw.SQLITE_SELECT
            or (action == apsw.SQLITE_READ and (one in _TABLES or one == 'sqlite_master'))
            or (action == apsw.SQLITE_FUNCTION and two == 'length')
            or (action == apsw.SQLITE_PRAGMA and one in pragmas)
        )
        return int(apsw.SQLITE_OK if fine else apsw.SQLITE_DENY)

    database.authorizer = allow
    return database


def _journal(path: Path, ending: str) -> Path | None:
    """A journal beside a database, or beside what it is a link to, that has anything in it."""
    for place in (path, path.resolve()):
        journal = place.with_name(place.name + ending)
        if journal.is_file() and journal.stat().st_size:
            return journal
    return None


def _names_another(journal: Path) -> bool:
    """Whether a journal belongs to a transaction over several databases: SQLite deletes the file that it names."""
    with journal.open('rb') as file:
        file.seek(max(0, journal.stat().st_size - len(_NAMES_ANOTHER)))
        return file.read() == _NAMES_ANOTHER


def _recover(copy: Path) -> str:
    """Have SQLite bring in the journals; returns why that could not be, '' where it could.

    In a copy, since a recording is only read; it may lie where nothing can be written.
    """
    import apsw

    database = None
    try:
        database = _guarded(copy, recovering=True)
        list(database.execute('PRAGMA journal_mode=DELETE'))  # reads the journals in, and removes them
        list(database.execute('SELECT name FROM sqlite_master LIMIT 1'))
    except apsw.Error as error:  # what can be read without is looked for next
        return str(error)
    finally:
        if database is not None:
            database.close()
    return ''
