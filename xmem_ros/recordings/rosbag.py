# SPDX-License-Identifier: MIT
"""rosbag2 bags, complete or truncated, as one stream of messages.

A folder without `metadata.yaml`, for example after a power cut, is read file by file in time order.
Of `metadata.yaml`, only the file names, counts, type hashes and QoS are used.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmem_ros.errors import BagError, listed
from xmem_ros.recordings.compression import COMPRESSED_SUFFIXES, decompress_file, decompress_message
from xmem_ros.recordings.limits import MAX_TOPICS
from xmem_ros.recordings.mcap_reader import McapReader
from xmem_ros.recordings.metadata import METADATA_FILE, BagMetadata, parse_qos_profiles, read_metadata
from xmem_ros.recordings.rosbags_version import require_rosbags
from xmem_ros.recordings.sqlite_reader import SqliteReader

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SUFFIXES = ('.mcap', '.db3')
_ACCEPTED = 'a bag is a folder with metadata.yaml, or an .mcap or .db3 file, optionally .zstd'


def is_bag(path: Path) -> bool:
    """Return whether a path is a ROS 2 bag: its folder, or one of its files."""
    if _is_storage_name(path.name):
        return True
    return path.is_dir() and ((path / 'metadata.yaml').is_file() or bool(_storage_files(path)))


def _is_storage_name(name: str) -> bool:
    return _strip_compression(name).endswith(SUFFIXES)


def _strip_compression(name: str) -> str:
    return next((name.removesuffix(ending) for ending in COMPRESSED_SUFFIXES if name.endswith(ending)), name)


def _storage_files(folder: Path) -> list[Path]:
    """Return the storage files by name, x_2 before x_10.

    A compressed file beside its original is incomplete and skipped.
    """
    files = [file for file in folder.iterdir() if _is_storage_name(file.name) and file.is_file()]
    plain = {file.name for file in files}
    return sorted((file for file in files if not _has_original(file.name, plain)), key=_natural_key)


def _has_original(name: str, names: Collection[str]) -> bool:
    return _strip_compression(name) != name and _strip_compression(name) in names


def _natural_key(file: Path) -> list[tuple[int, str]]:
    """Return a sort key that compares numbers in the name as numbers."""
    return [(int(part), '') if part.isdecimal() else (-1, part) for part in re.split(r'(\d+)', file.name)]


def _in_order(sources: Sequence[Iterator[tuple[Any, int, bytes]]]) -> Iterator[tuple[Any, int, bytes]]:
    return iter(sources[0]) if len(sources) == 1 else heapq.merge(*sources, key=lambda message: message[1])


class OpenBag:
    """An open bag; a context manager.

    Raises:
        BagError: not a bag, or unreadable.
        ParameterError: rosbags is not installed, or its version is unsupported.
    """

    def __init__(self, path: Path) -> None:
        require_rosbags(path)
        self.path = path
        self.damage = ''  # what cannot be read, and why; '' if everything can be read
        self._stack = contextlib.ExitStack()
        self._unpacked = 0  # decompressed bytes of all compressed files
        self._metadata = BagMetadata()
        self.counts: dict[tuple[str, str], int] = {}  # topic and type → messages by `metadata.yaml`
        try:
            self._readers = self._open()
            # rosbags' Connection for each topic and type; `msgcount` is the sum over all files
            self.connections: list[Any] = []
            self._rows: dict[tuple[str, str], int] = {}  # topic and type → index in `connections`
            # for each reader: its connection's id → id in `connections`
            self._merged_ids: list[dict[int, Any]] = [
                {connection.id: self._merge(connection) for connection in reader.connections}
                for reader in self._readers
            ]
            if len(self.connections) > MAX_TOPICS:
                raise BagError(f'{path}: more than {MAX_TOPICS} topics')
        except BaseException:
            self._stack.close()
            raise
        self._add_metadata()

    def messages(
        self, connections: Collection[Any] = (), *, keep_lost: bool = False
    ) -> Iterator[tuple[Any, int, bytes]]:
        """Yield connection, recording time [ns] and serialized message, in time order.

        Files whose times overlap, such as those of several recorders, are merged.

        connections: some of `self.connections`; empty: all. Raises `BagError` on unreadable data.
        keep_lost: see `McapReader.messages`.
        """
        wanted = {connection.id for connection in connections or self.connections}
        group: list[Iterator[tuple[Any, int, bytes]]] = []
        end_ns = 0
        for reader, merged_ids in sorted(
            zip(self._readers, self._merged_ids, strict=True), key=lambda pair: pair[0].start_time
        ):
            if reader.start_time >= end_ns:
                yield from _in_order(group)
                group = []
            group.append(self._messages_of(reader, merged_ids, wanted, keep_lost))
            end_ns = max(end_ns, reader.end_time)
        yield from _in_order(group)

    def _messages_of(
        self,
        reader: McapReader | SqliteReader,
        merged_ids: dict[int, Any],
        wanted: Collection[Any],
        keep_lost: bool,
    ) -> Iterator[tuple[Any, int, bytes]]:
        own = [connection for connection in reader.connections if merged_ids[connection.id] in wanted]
        by_id = {connection.id: connection for connection in self.connections}
        for connection, received_ns, raw in reader.messages(own, keep_lost=keep_lost) if own else ():
            yield by_id[merged_ids[connection.id]], received_ns, decompress_message(raw)

    @property
    def span_ns(self) -> int:
        """Time from the first message to the last [ns]."""
        filled = [reader for reader in self._readers if reader.message_count]
        if not filled:
            return 0
        return int(max(reader.end_time for reader in filled) - min(reader.start_time for reader in filled) - 1)

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    def __enter__(self) -> OpenBag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _merge(self, connection: Any) -> int:
        """Add a file's connection to `connections`; return its id there."""
        key = (connection.topic, connection.msgtype)
        if key in self._rows:
            row = self._rows[key]
            known = self.connections[row]
            self.connections[row] = known._replace(msgcount=known.msgcount + connection.msgcount)
            return int(known.id)
        self._rows[key] = len(self.connections)
        number = len(self.connections) + 1
        self.connections.append(connection._replace(id=number))
        return number

    def _add_metadata(self) -> None:
        """Add counts, type hashes and QoS that only `metadata.yaml` has."""
        for topic in self._metadata.topics:
            self.counts[topic.name, topic.msgtype] = topic.count
            row = self._rows.get((topic.name, topic.msgtype))
            if row is not None:
                known = self.connections[row]
                profiles = known.ext.offered_qos_profiles or parse_qos_profiles(topic.profiles)
                more = known.ext._replace(offered_qos_profiles=profiles)
                self.connections[row] = known._replace(digest=known.digest or topic.digest, ext=more)

    def _open(self) -> list[Any]:
        if not self.path.exists():
            raise BagError(f'{self.path}: no such bag')
        if not self.path.is_dir():
            return [self._open_file(self.path)]
        metadata_error = ''
        if (self.path / METADATA_FILE).is_file():
            try:
                return self._open_listed()
            except BagError as error:
                metadata_error = str(error)
        files = _storage_files(self.path)
        if not files:
            raise BagError(
                f'{self.path}: not a readable bag ({metadata_error or "no bag files in it"}); {_ACCEPTED}: record '
                'or copy it again, or try ros2 bag reindex'
            )
        readers, errors = [], []
        for file in files:
            try:
                readers.append(self._open_file(file))
            except BagError as error:
                errors.append(error)
        if not readers:
            raise errors[0]
        for skipped in errors:
            self._note(str(skipped))
        readers.sort(key=lambda reader: reader.start_time)  # stable: equal times keep the order of names
        self._note(
            f'{self.path}: the files of this bag were read one by one ({metadata_error})'
            if metadata_error
            else f'{self.path / METADATA_FILE} is missing: the recording was not completed'
        )
        return readers

    def _open_listed(self) -> list[Any]:
        """Open the files that `metadata.yaml` lists; raises `BagError`."""
        self._metadata = read_metadata(self.path / METADATA_FILE)
        files = [self.path / name for name in self._metadata.files]
        if missing := [file for file in files if not file.is_file()]:
            raise BagError(f'some storage files are missing: {listed([str(file) for file in missing])}')
        damage = self.damage
        with contextlib.ExitStack() as opened:
            before, self._stack = self._stack, opened
            try:
                readers = [self._open_file(file) for file in files]
            except BaseException:
                self.damage = damage
                raise
            finally:
                self._stack = before
            self._stack.push(opened.pop_all())
        return readers

    def _open_file(self, path: Path) -> Any:
        file = path
        try:
            if not path.is_file():  # reading a pipe would block
                raise BagError('not a regular file')
            if path.suffix in COMPRESSED_SUFFIXES:
                file = self._decompressed(path)
            if file.suffix not in SUFFIXES:
                raise BagError(f'its name does not end in {" or ".join(SUFFIXES)}')
            reader = McapReader(file) if file.suffix == '.mcap' else SqliteReader(file)
        except Exception as error:  # a damaged file can make a reader raise anything
            if isinstance(error, OSError) and error.errno in _NO_SPACE:
                raise BagError(
                    f'{path}: no room to unpack or copy it in {tempfile.gettempdir()}, the folder for temporary files '
                    f'({error.strerror}); set TMPDIR to a folder on a disk with room'
                ) from error
            if isinstance(error, PermissionError):
                raise BagError(
                    f'{path}: cannot be read ({error.strerror}); give yourself permission to read it (chmod u+r)'
                ) from error
            reason = _reason(error).replace(str(file), str(path))
            raise BagError(
                f'{path}: not a readable bag ({reason}); {_ACCEPTED}: record or copy it again, or try ros2 bag reindex'
            ) from error
        self._stack.callback(reader.close)
        if reader.damage:
            self._note(reader.damage.replace(str(file), str(path)))
        return reader

    def _decompressed(self, path: Path) -> Path:
        """Decompress a file into a temporary folder, which exists until the bag is closed."""
        file = Path(self._stack.enter_context(tempfile.TemporaryDirectory())) / _strip_compression(path.name)
        try:
            if damage := decompress_file(path, file, self._unpacked):
                self._note(damage)
        finally:
            self._unpacked += file.stat().st_size if file.exists() else 0
        return file

    def _note(self, damage: str) -> None:
        self.damage = f'{self.damage}; {damage}' if self.damage else damage


def _reason(error: Exception) -> str:
    return str(error).rstrip('.') or type(error).__name__
