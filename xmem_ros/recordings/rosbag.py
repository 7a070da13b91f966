# SPDX-License-Identifier: MIT
"""Bags as rosbags reads them, also those whose recording was cut off.

A folder without `metadata.yaml`, as a power cut leaves it, is read file by file, in the order of their times.
`mending` and `databases` read files that are not whole.
"""

from __future__ import annotations

import contextlib
import errno
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmem_ros.errors import BagError
from xmem_ros.recordings.compression import ENDINGS, unpack, unpacked
from xmem_ros.recordings.mcap_repair import mcap_reader
from xmem_ros.recordings.rosbags_version import require_rosbags
from xmem_ros.recordings.sqlite_repair import sqlite_reader

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SUFFIXES = ('.mcap', '.db3')


def is_bag(path: Path) -> bool:
    """Whether a path is a ROS 2 bag: its folder, or a file of its own."""
    if _is_storage(path.name):
        return True
    return path.is_dir() and ((path / 'metadata.yaml').is_file() or bool(_storage_files(path)))


def _is_storage(name: str) -> bool:
    return _without_compression(name).endswith(SUFFIXES)


def _without_compression(name: str) -> str:
    return next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), name)


def _storage_files(folder: Path) -> list[Path]:
    """By name, x_2 before x_10. A file of which there is a compressed one, too, was left while that was made."""
    files = [file for file in folder.iterdir() if _is_storage(file.name) and file.is_file()]
    plain = {file.name for file in files}
    return sorted((file for file in files if not _is_double(file.name, plain)), key=_in_order)


def _is_double(name: str, names: Collection[str]) -> bool:
    return _without_compression(name) != name and _without_compression(name) in names


def _in_order(file: Path) -> list[tuple[int, str]]:
    """Of a name, what sorts numbers in it as numbers."""
    return [(int(part), '') if part.isdecimal() else (-1, part) for part in re.split(r'(\d+)', file.name)]


class OpenBag:
    """A bag that is open; a context manager.

    Raises:
        BagError: not a bag, or nothing of it can be read.
        ParameterError: rosbags is not installed, or in a version that cannot be used.
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
                yield by_id[of[connection.id]], received_ns, unpacked(raw)

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
        readers, useless = [], []
        for file in files:
            try:
                readers.append(self._open_one(file))
            except BagError as error:
                useless.append(error)
        if not readers:
            raise useless[0]
        for what in useless:
            self._note(str(what))
        readers.sort(key=lambda reader: reader.start_time)  # names need not tell; where times are equal, they do
        self._note(
            f'{self.path / "metadata.yaml"} is not there: the recording was not ended'
            if not (self.path / 'metadata.yaml').exists()
            else f'its files were read one by one ({first})'
        )
        return readers

    def _open_one(self, path: Path) -> Any:
        readers = _reader_class()  # what rosbags lacks is no damage
        file = path
        try:
            if path.suffix in ENDINGS:
                file = self._unpacked(path)
            reader = readers(file)
            reader.open()
        except Exception as error:  # rosbags' readers have no common base for damaged files
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                raise BagError(
                    f'{path}: no room to unpack or copy it in {tempfile.gettempdir()}, the folder for temporary files '
                    f'({error.strerror}): let TMPDIR name one that has room'
                ) from error
            if isinstance(error, PermissionError):
                raise BagError(f'{path}: cannot be read ({error.strerror}): give yourself the right to') from error
            reason = _plain(error).replace(str(file), str(path))
            raise BagError(
                f'{path}: not a readable bag ({reason}); a bag is a folder with metadata.yaml, or an .mcap or .db3 '
                'file, also .zstd: record or copy it again, or try ros2 bag reindex'
            ) from error
        self._stack.callback(reader.close)
        storages = getattr(reader.storage, 'storages', [reader.storage])
        for storage in storages:
            if getattr(storage, 'damage', ''):
                self._note(storage.damage.replace(str(file), str(path)))
        return reader

    def _unpacked(self, path: Path) -> Path:
        """What a compressed file holds, in the folder for temporary files until the bag is closed."""
        file = Path(self._stack.enter_context(tempfile.TemporaryDirectory())) / _without_compression(path.name)
        if damage := unpack(path, file):
            self._note(damage)
        return file

    def _note(self, damage: str) -> None:
        self.damage = f'{self.damage}; {damage}' if self.damage else damage


def _plain(error: Exception) -> str:
    return str(error).rstrip('.') or type(error).__name__


def _reader_class() -> Any:
    """rosbags' reader of ROS 2 bags, with those of `mending` for their files."""
    from rosbags.rosbag2 import Reader
    from rosbags.rosbag2.reader import DirectoryReader

    class Folder(DirectoryReader):
        def open(self) -> None:
            super().open()
            # a message that cannot be unpacked is not to end the reading: `OpenBag` unpacks each
            if self.metadata.compression_mode == 'message':
                self.metadata = self.metadata._replace(compression_mode=None)

        STORAGE_PLUGINS = {**DirectoryReader.STORAGE_PLUGINS, 'mcap': mcap_reader(), 'sqlite3': sqlite_reader()}  # noqa: RUF012

    class Any_(Reader):  # noqa: N801
        STORAGE_PLUGINS = {**Reader.STORAGE_PLUGINS, 'dir': Folder, '.mcap': mcap_reader(), '.db3': sqlite_reader()}  # noqa: RUF012

    return Any_
