# SPDX-License-Identifier: MIT
"""Databases of bags whose recording was not ended, or that are damaged, as rosbags can read them.

rosbags looks at the one file alone. What a journal beside it holds is brought in by SQLite, and the rows that can be
read of a damaged database are copied to another, both in the folder for temporary files.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

_SQLITE = b'SQLite format 3\x00'
_JOURNALS = ('-wal', '-journal')  # what SQLite writes beside a database; empty where all of it is in there
_IN_URIS = str.maketrans({'%': '%25', '?': '%3f', '#': '%23'})  # what has another meaning there


def sqlite_reader() -> Any:
    """rosbags' reader of databases, which reads the rows of a journal, too, and those of a damaged one."""
    import apsw
    from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader

    class MendingReader(Sqlite3Reader):
        """Reads what can be read of a database, where need be out of a copy in the folder for temporary files."""

        damage = ''
        _folder: Any = None
        _opened = False

        def open(self) -> None:
            try:
                self._open_mended()
            except BaseException:
                self._discard()
                raise
            self._opened = True

        def _open_mended(self) -> None:
            given: Any = self.path
            if any(_journal(given, ending) for ending in _JOURNALS):
                self.path = self._copy_of(given)
                self.damage = _recover(given, self.path)
            try:
                self._open_named()
            except Exception as error:
                if isinstance(error.__cause__, apsw.CantOpenError):  # says nothing of what is in there
                    raise
                path: Any = self.path
                copy = self._copy_of(path)
                count = _copy_rows(path, copy)
                if not count:
                    raise
                self.path = copy
                self._open_named()
                found = f'{given} was cut off or is damaged: {count} messages of it can be read'
                self.damage = f'{self.damage}; {found}' if self.damage else found

        def _open_named(self) -> None:
            """Open the file of whatever name: rosbags makes a URI of it as it is."""
            path: Any = self.path
            self.path = Path(str(path).translate(_IN_URIS))
            try:
                super().open()
            finally:
                self.path = path

        def close(self) -> None:
            super().close()
            if self._opened:  # rosbags also closes what it could not open, and a copy may still be tried
                self._discard()

        def _copy_of(self, path: Path) -> Path:
            """Where a copy may lie that has the file's name."""
            self._folder = self._folder or tempfile.TemporaryDirectory()
            return Path(tempfile.mkdtemp(dir=self._folder.name)) / path.name

        def _discard(self) -> None:
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None

    return MendingReader


def _journal(path: Path, ending: str) -> Path | None:
    """A journal beside a database, or beside what it is a link to, that has anything in it."""
    for place in (path, path.resolve()):
        journal = place.with_name(place.name + ending)
        if journal.is_file() and journal.stat().st_size:
            return journal
    return None


def _recover(path: Path, copy: Path) -> str:
    """Copy a database with its journals, and have SQLite bring it up to what was committed last.

    In a copy, since a recording is only read; it may lie where nothing can be written.

    Returns:
        why that could not be, in words; '' where it could.
    """
    shutil.copyfile(path, copy)
    for ending in _JOURNALS:
        if journal := _journal(path, ending):
            shutil.copyfile(journal, copy.with_name(copy.name + ending))
    database = sqlite3.connect(copy)
    try:
        database.execute('PRAGMA journal_mode=DELETE').fetchall()  # reads the journals in, and removes them
        database.execute('SELECT count(*) FROM sqlite_master').fetchall()
    except sqlite3.Error as error:  # what can be read without is looked for next
        return f'{path}: what its journal holds cannot be read ({error})'
    finally:
        database.close()
    return ''


def _copy_rows(path: Path, copy: Path) -> int:
    """Copy what can be read of a database; returns how many messages that is."""
    with path.open('rb') as file:
        if file.read(len(_SQLITE)) != _SQLITE:
            return 0
    count = 0
    source = sqlite3.connect(f'{path.resolve().as_uri()}?immutable=1', uri=True)
    target = sqlite3.connect(copy)
    try:
        source.execute('PRAGMA writable_schema=ON')  # else SQLite refuses a file with fewer pages than it says it has
        tables = source.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        # messages last: what comes after the first page that is missing is lost
        for name, sql in sorted(tables.fetchall(), key=lambda table: table[0] == 'messages'):
            target.execute(sql)
            for row in source.execute(f'SELECT * FROM "{name}" NOT INDEXED ORDER BY rowid'):
                target.execute(f'INSERT INTO "{name}" VALUES({", ".join("?" * len(row))})', row)
                count += name == 'messages'
    except sqlite3.Error:
        pass
    finally:
        target.commit()
        target.close()
        source.close()
    return count
