# SPDX-License-Identifier: MIT
"""Bags, also those whose recording was cut off.

A folder without `metadata.yaml`, as a power cut leaves it, is read file by file, in the order of their times.
`mending` and `databases` read the files; of `metadata.yaml` only the files' names, hashes of types and QoS are taken.
"""

from __future__ import annotations

import contextlib
import errno
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmem_ros.errors import BagError, listed
from xmem_ros.recordings.compression import ENDINGS, unpack, unpacked
from xmem_ros.recordings.limits import MOST_TOPICS
from xmem_ros.recordings.mcap_repair import McapFile
from xmem_ros.recordings.metadata import FILE, Told, profiles_of, read_metadata
from xmem_ros.recordings.rosbags_version import require_rosbags
from xmem_ros.recordings.sqlite_repair import DatabaseFile

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SUFFIXES = ('.mcap', '.db3')
_WHAT_IS_READ = 'a bag is a folder with metadata.yaml, or an .mcap or .db3 file, also .zstd'


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
        self._told = Told()
        try:
            self._readers = self._open()
            # rosbags' Connection, one for each topic and type, with all its messages counted
            self.connections: list[Any] = []
            self._places: dict[tuple[str, str], int] = {}  # topic and type → place in there
            # for each reader: its connection's id → that of `connections`
            self._of: list[dict[int, Any]] = [
                {connection.id: self._joined(connection) for connection in reader.connections}
                for reader in self._readers
            ]
            if len(self.connections) > MOST_TOPICS:
                raise BagError(f'{path}: more than {MOST_TOPICS} topics')
        except BaseException:
            self._stack.close()
            raise
        self._complete()

    def messages(self, connections: Collection[Any] = ()) -> Iterator[tuple[Any, int, bytes]]:
        """Yield connection, time of recording [ns] and serialized message, in the order of the bag.

        connections: of `self.connections`; empty: all. What cannot be read raises `BagError`.
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
        key = (connection.topic, connection.msgtype)
        if key in self._places:
            place = self._places[key]
            known = self.connections[place]
            self.connections[place] = known._replace(msgcount=known.msgcount + connection.msgcount)
            return int(known.id)
        self._places[key] = len(self.connections)
        number = len(self.connections) + 1
        self.connections.append(connection._replace(id=number))
        return number

    def _complete(self) -> None:
        """Add what `metadata.yaml` alone says of topics: the hash of the type, and QoS where the file has none."""
        for told in self._told.topics:
            place = self._places.get((told.name, told.msgtype))
            if place is not None:
                known = self.connections[place]
                profiles = known.ext.offered_qos_profiles or profiles_of(told.profiles)
                more = known.ext._replace(offered_qos_profiles=profiles)
                self.connections[place] = known._replace(digest=known.digest or told.digest, ext=more)

    def _open(self) -> list[Any]:
        if not self.path.exists():
            raise BagError(f'{self.path}: no such bag')
        if not self.path.is_dir():
            return [self._open_one(self.path)]
        first = ''
        if (self.path / FILE).is_file():
            try:
                return self._open_told()
            except BagError as error:
                first = str(error)
        files = _storage_files(self.path)
        if not files:
            raise BagError(
                f'{self.path}: not a readable bag ({first or "it has no files of a bag"}); {_WHAT_IS_READ}: record or '
                'copy it again, or try ros2 bag reindex'
            )
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
            f'its files were read one by one ({first})'
            if first
            else f'{self.path / FILE} is not there: the recording was not ended'
        )
        return readers

    def _open_told(self) -> list[Any]:
        """The files that `metadata.yaml` names; raises `BagError`."""
        self._told = read_metadata(self.path / FILE)
        files = [self.path / name for name in self._told.files]
        if missing := [file for file in files if not file.is_file()]:
            raise BagError(f'Some database files are missing: {listed([str(file) for file in missing])}')
        damage = self.damage
        with contextlib.ExitStack() as opened:
            before, self._stack = self._stack, opened
            try:
                readers = [self._open_one(file) for file in files]
            except BaseException:
                self.damage = damage
                raise
            finally:
                self._stack = before
            self._stack.push(opened.pop_all())
        return readers

    def _open_one(self, path: Path) -> Any:
        file = path
        try:
            if not path.is_file():  # a pipe would be waited for
                raise BagError('it is no file')
            if path.suffix in ENDINGS:
                file = self._unpacked(path)
            if file.suffix not in SUFFIXES:
                raise BagError(f'its name does not end in {" or ".join(SUFFIXES)}')
            reader = McapFile(file) if file.suffix == '.mcap' else DatabaseFile(file)
        except Exception as error:  # of whatever the bytes say
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                raise BagError(
                    f'{path}: no room to unpack or copy it in {tempfile.gettempdir()}, the folder for temporary files '
                    f'({error.strerror}): let TMPDIR name one that has room'
                ) from error
            if isinstance(error, PermissionError):
                raise BagError(f'{path}: cannot be read ({error.strerror}): give yourself the right to') from error
            reason = _plain(error).replace(str(file), str(path))
            raise BagError(
                f'{path}: not a readable bag ({reason}); {_WHAT_IS_READ}: record or copy it again, or try ros2 bag '
                'reindex'
            ) from error
        self._stack.callback(reader.close)
        if reader.damage:
            self._note(reader.damage.replace(str(file), str(path)))
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
