# SPDX-License-Identifier: MIT
"""Kinds `mcap`, `db3` and `folder`: mutated records, rows, metadata and messages of bags."""

from __future__ import annotations

import functools
import sqlite3
import struct
import tempfile
from pathlib import Path
from typing import Any

import yaml
from bag_files import TOPIC, image_message, seeds_message, stamp_of, write_bag, write_without_chunks

from fuzz.documents import dumped, mutate_yaml
from fuzz.kinds import Kind, encoded, frames, mask, track, tree_of
from fuzz.mutation import Source, mutate_bytes, mutate_tree
from fuzz.sandbox import Link, Places

RECORDED = 'recorded.mcap'  # holds seeds
MAGIC = b'\x89MCAP0\r\n'
SQL = [
    'DROP TABLE {table}',
    'DELETE FROM {table}',
    'ALTER TABLE {table} ADD COLUMN x',
    'UPDATE messages SET data = zeroblob(20000000)',
    "UPDATE messages SET data = 'text'",
    'UPDATE messages SET data = NULL',
    'UPDATE messages SET data = 3.5',
    'UPDATE messages SET timestamp = {number}',
    'UPDATE messages SET topic_id = {number}',
    'UPDATE topics SET id = {number}',
    'UPDATE topics SET {column} = {text}',
    'UPDATE topics SET {column} = {number}',
    'UPDATE topics SET {column} = NULL',
    'INSERT INTO topics SELECT id + 1, name, type, serialization_format, offered_qos_profiles{more} FROM topics',
    'UPDATE schema SET schema_version = {number}',
    # endless views in place of tables
    'ALTER TABLE messages RENAME TO old; CREATE VIEW messages AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x '
    "FROM n) SELECT x AS id, 1 AS topic_id, x AS timestamp, x'00' AS data FROM n",
    'ALTER TABLE topics RENAME TO old; CREATE VIEW topics AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 '
    "FROM n) SELECT x AS id, '/a' || x AS name, 'sensor_msgs/msg/Image' AS type, 'cdr' AS serialization_format, "
    "'' AS offered_qos_profiles, '' AS type_description_hash FROM n",
    'ALTER TABLE messages RENAME TO old; CREATE VIEW messages AS SELECT id, topic_id, timestamp, '
    'randomblob(50000000) AS data FROM old, (SELECT 1 UNION SELECT 2 UNION SELECT 3)',
    "CREATE TRIGGER t AFTER INSERT ON messages BEGIN SELECT load_extension('x'); END",
    'CREATE TABLE "a""; DROP TABLE messages; --" (x); INSERT INTO "a""; DROP TABLE messages; --" VALUES(1)',
    'CREATE TABLE g (a, b AS (randomblob(2000000000))); INSERT INTO g(a) VALUES(1)',
    'CREATE VIRTUAL TABLE v USING fts5(x)',
    'PRAGMA journal_mode = WAL',
    'PRAGMA page_size = 65536; VACUUM',
]
ODD_DEFINITIONS = [
    'sensor_msgs/Image x',
    'uint8[999999999] x',
    'uint8[<=99999999999999999999] x',
    "string x='{0.__class__}'",
    "uint8 X=__import__('os').mkdir('EXECUTED')",
    "uint8 x=1\\n\\n    __import__('os').mkdir('EXECUTED')",
    'uint8 __class__\nuint8 self\nuint8 import',
    'a/b/c/d e',
    '=' * 80 + '\nMSG: x/Y\nx/Y y',
    'string[<=3]<=4[] x',
    'x' * 10000,
    '\x00',
]


@functools.cache
def items() -> tuple[Any, ...]:
    """Build the images of every bag, as `write_bag` takes them."""
    return tuple((TOPIC, stamp_of(index) + 1, image_message(index, frame)) for index, frame in enumerate(frames()))


@functools.cache
def seeded_items() -> tuple[Any, ...]:
    """Build the images and recorded seeds of every kind."""
    from xmem_ros.recordings import typestore as messages

    seeds = [
        messages.seed(0, name='mask', mask=mask()),
        messages.seed(1, name='box', around=(18, 17, 13, 7)),
        messages.seed(2, points=[(25, 20), (3, 3)], point_labels=[1, 0]),
    ]
    given = [seeds_message(0, seeds[:2], [1, 2]), seeds_message(1, seeds[2:], [3])]
    recorded = [('/xmem/seeds', stamp_of(place) + 2, message) for place, message in enumerate(given)]
    return tuple(sorted([*items(), *recorded], key=lambda item: item[1]))


@functools.cache
def bag(storage: str, compression: str = '') -> dict[str, bytes]:
    """Build a bag; returns the files of its folder."""
    with tempfile.TemporaryDirectory() as folder:
        return tree_of(write_bag(Path(folder) / 'walk', list(items()), storage=storage, compression=compression))


def _single(files: dict[str, bytes]) -> dict[str, bytes]:
    """Drop the metadata."""
    return {name: content for name, content in files.items() if name != 'metadata.yaml'}


def _make_mcap() -> list[dict[str, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        loose = write_without_chunks(Path(folder) / 'walk.mcap', list(items())).read_bytes()
    found = [_single(bag('mcap', compression)) for compression in ('', 'storage', 'file', 'message')]
    return [*found, {'walk.mcap': loose}, {RECORDED: _recorded()}]


@functools.cache
def _recorded() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_without_chunks(Path(folder) / 'x.mcap', list(seeded_items())).read_bytes()


def records(data: bytes) -> list[tuple[int, bytes]]:
    """Split an MCAP file into complete records: opcode and content."""
    place, found = len(MAGIC), []
    while place + 9 <= len(data) - len(MAGIC):
        kind, length = struct.unpack_from('<BQ', data, place)
        found.append((kind, data[place + 9 : place + 9 + length]))
        place += 9 + length
    return found


def mcap_of(found: list[tuple[int, bytes]]) -> bytes:
    """Join records into an MCAP file; the index may point to wrong offsets."""
    return MAGIC + b''.join(struct.pack('<BQ', kind, len(content)) + content for kind, content in found) + MAGIC


def mutate_mcap(source: Source, data: bytes) -> bytes:
    """Mutate records: opcodes, lengths, contents, order, chunks."""
    found = records(data)
    if not found or source.chance(20):
        return mutate_bytes(source, data)
    for _ in source.several():
        place = source.between(0, len(found) - 1)
        kind, content = found[place]
        how = source.between(0, 9)
        source.note(f'record {place} of kind {kind}: {how}')
        if how < 4:
            content = mutate_bytes(source, content, 0, 80)
        elif how == 4 and kind == 6 and len(content) > 60:
            content = _mutate_chunk(source, content)
        elif how == 5:
            kind = source.pick([0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 15, 200])
        elif how == 6:
            found.insert(place, found[source.between(0, len(found) - 1)])
            continue
        elif how == 7 and len(found) > 1:
            found.pop(place)
            continue
        elif kind in (3, 4):
            content = _mutate_strings(source, content)
        found[place] = (kind, content)
    return mcap_of(found)


def _mutate_strings(source: Source, content: bytes) -> bytes:
    """Replace a length-prefixed string: a topic, type or definition."""
    place, found = 2, []
    while place + 4 <= len(content) and len(found) < 3:
        (length,) = struct.unpack_from('<I', content, place)
        if place + 4 + length <= len(content):
            found.append((place, length))
        place += 4 + length
    if not found:
        return mutate_bytes(source, content)
    place, length = source.pick(found)
    text = source.text() if source.chance(50) else source.pick(ODD_DEFINITIONS)
    raw = text.encode(errors='replace')
    size = len(raw) if source.chance(85) else int(source.pick([0, 2**31, 2**32 - 1]))
    return content[:place] + struct.pack('<I', size) + raw + content[place + 4 + length :]


def _mutate_chunk(source: Source, content: bytes) -> bytes:
    """Replace sizes and checksums of a chunk, or mutate its records."""
    if source.chance(60):
        field, size = source.pick([(16, 8), (16, 8), (24, 4), (0, 8), (8, 8)])
        number = source.pick([0, 1, 2**31, 2**33, 2**40, 2**63, 2**64 - 1]) % (1 << 8 * size)
        return content[:field] + number.to_bytes(size, 'little') + content[field + size :]
    return mutate_bytes(source, content, 40)


@functools.cache
def _zeros() -> bytes:
    from backports import zstd

    return bytes(zstd.compress(bytes(1 << 26)))


def _bomb(source: Source) -> bytes:
    """Build a decompression bomb: concatenated zstd frames are one stream."""
    source.note('zstd: unpacks to very much')
    return _zeros() * source.pick([2, 20, 200])


def _mutate_file(source: Source, name: str, data: bytes) -> bytes:
    from backports import zstd

    if name.endswith('.zstd'):
        how = source.between(0, 9)
        if how == 0:
            return _bomb(source)
        if how < 4:
            return mutate_bytes(source, data)
        inside = name.removesuffix('.zstd')
        return bytes(zstd.compress(_mutate_file(source, inside, bytes(zstd.decompress(data)))))
    return mutate_mcap(source, data) if name.endswith('.mcap') else mutate_db3(source, data)


def mutate_db3(source: Source, data: bytes) -> bytes:
    """Mutate a database by SQL, its schema, or its bytes."""
    how = source.between(0, 9)
    if how < 3:
        return mutate_bytes(source, data, 0, 200 if how == 0 else None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'x.db3'
        path.write_bytes(data)
        database = sqlite3.connect(path)
        database.execute('PRAGMA synchronous = OFF')
        try:
            for _ in source.several():
                text = source.pick(SQL).format(
                    table=source.pick(['topics', 'messages', 'schema', 'metadata']),
                    column=source.pick(['name', 'type', 'serialization_format', 'offered_qos_profiles']),
                    number=str(source.number())[:40],
                    text="'" + source.text().replace("'", "''").replace('\0', '') + "'",
                    more=source.pick(['', ', type_description_hash']),
                )
                source.note(text[:80])
                try:
                    database.executescript(text)
                except (sqlite3.Error, UnicodeError, ValueError):
                    continue
            if source.chance(15):
                source.note('schema of its own')
                odd = source.pick(
                    ['CREATE TABLE messages(x', "CREATE TABLE messages AS SELECT '1'", '', 'DROP TABLE x']
                )
                database.execute('PRAGMA writable_schema=ON')
                database.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'messages'", [odd])
            database.commit()
        except sqlite3.Error:
            pass
        finally:
            database.close()
        return path.read_bytes()


def mutate_message(source: Source, raw: bytes) -> bytes:
    """Mutate a serialized message."""
    return mutate_bytes(source, raw, 0, 80 if source.chance(80) else None)


def _rewritten(source: Source, storage: str, compression: str, recorded: tuple[Any, ...]) -> dict[str, bytes]:
    """Build a valid bag with mutated messages."""
    from xmem_ros.recordings import typestore as messages

    found = []
    for topic, received_ns, message in recorded:
        raw = messages.serialize(message)
        if source.chance(80 if topic != TOPIC else 20 if len(recorded) > len(items()) else 100):
            raw = mutate_message(source, raw)
        found.append((topic, received_ns, (message.__msgtype__, raw)))
    source.note('messages')
    with tempfile.TemporaryDirectory() as folder:
        return tree_of(write_bag(Path(folder) / 'walk', found, storage=storage, compression=compression))


def _mutate_single(source: Source, files: dict[str, bytes]) -> dict[str, bytes | Link]:
    ((name, data),) = files.items()
    if name == RECORDED and source.chance(70):
        return {RECORDED: next(iter(_single(_rewritten(source, 'mcap', '', seeded_items())).values()))}
    if source.chance(25):
        compression = source.pick(['', 'message', 'file']) if name.endswith('.zstd') else ''
        return dict(_single(_rewritten(source, 'mcap' if '.mcap' in name else 'sqlite3', compression, items())))
    found: dict[str, bytes | Link] = {name: _mutate_file(source, name, data)}
    if '.db3' in name and source.chance(15):
        found[f'{name}-wal'] = source.data() * 100
        found[f'{name}-journal'] = mutate_bytes(source, b'\xd9\xd5\x05\xf9\x20\xa1\x63\xd7' + bytes(600))
    return found


def _mutate_folder(source: Source, files: dict[str, bytes]) -> dict[str, bytes | Link]:
    found: dict[str, bytes | Link] = dict(files)
    how = source.between(0, 9)
    (storage,) = _single(files)
    about = yaml.safe_load(files['metadata.yaml'])
    inside = about['rosbag2_bagfile_information']
    if how < 3:
        found['metadata.yaml'] = dumped(mutate_tree(source, about))
    elif how == 3:
        found['metadata.yaml'] = mutate_yaml(source, files['metadata.yaml'])
    elif how < 6:
        path = source.pick(
            ['../canary/keep.mcap', '../../canary/keep.txt', '/dev/zero', f'{source.canary}/keep.mcap', '.']
        )
        path = path if source.chance(70) else source.text()
        source.note(f'names the file {path[:60]!r}')
        inside['relative_file_paths'] = [path] * source.pick([1, 1, 2])
        inside['compression_format'] = source.pick(['', 'zstd', 'x'])
        inside['compression_mode'] = source.pick(['', 'FILE', 'MESSAGE', 'x'])
        inside['storage_identifier'] = source.pick(['mcap', 'sqlite3', '../x'])
        for item in inside.get('files', []):
            item['path'] = path
        found['metadata.yaml'] = dumped(about)
    elif how == 6:
        target = source.pick(['/dev/zero', '/dev/null', storage, '.', 'missing'])
        source.note(f'{storage} leads to {target}')
        found[storage] = Link(target)
    elif how == 7:
        found.pop('metadata.yaml')
        found[storage] = _mutate_file(source, storage, files[storage])
    else:
        found[storage] = _mutate_file(source, storage, files[storage])
    return {f'walk/{name}': content for name, content in found.items()}


def _make_folder() -> list[dict[str, bytes]]:
    return [bag('mcap'), bag('sqlite3'), bag('mcap', 'file'), bag('sqlite3', 'message')]


def _use_single(places: Places) -> int:
    (path,) = (path for path in places.input.iterdir() if not path.name.endswith(('-wal', '-journal')))
    return _use(places, path)


def _use_folder(places: Places) -> int:
    if not (places.input / 'walk').exists():  # of the seed corpus
        return _use(places, places.input)
    return _use(places, places.input / 'walk')


def _use(places: Places, path: Path) -> int:
    seed = places.work / 'seed.png'
    seed.write_bytes(encoded(mask(), '.png'))
    given = () if path.name == RECORDED else ('--seed', str(seed))
    return track(places, path, *given, '--format', 'png', '--format', 'bag')


def kinds() -> list[Kind]:
    """List the kinds of this module."""
    return [
        Kind('mcap', _make_mcap, _mutate_single, _use_single),
        Kind('db3', lambda: [_single(bag('sqlite3', c)) for c in ('', 'file', 'message')], _mutate_single, _use_single),
        Kind('folder', _make_folder, _mutate_folder, _use_folder),
    ]
