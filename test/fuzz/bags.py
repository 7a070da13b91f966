# SPDX-License-Identifier: MIT
"""Kinds `mcap`, `db3` and `folder`: bags, spoilt record by record, row by row, message by message."""

from __future__ import annotations

import functools
import sqlite3
import struct
import tempfile
from pathlib import Path
from typing import Any

import yaml
from bag_files import TOPIC, image_message, seeds_message, stamp_of, write_bag, write_without_chunks

from fuzz.chance import Chance, spoil_bytes, spoil_tree
from fuzz.kind import Kind, encoded, frames, mask, track, tree_of
from fuzz.sandbox import Link, Places
from fuzz.texts import spoil_yaml

RECORDED = 'recorded.mcap'  # with seeds
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
    # what never ends, where a table is expected
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
    """Of `write_bag`."""
    return tuple((TOPIC, stamp_of(index) + 1, image_message(index, frame)) for index, frame in enumerate(frames()))


@functools.cache
def seeded_items() -> tuple[Any, ...]:
    """The same with recorded seeds, of every kind."""
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
    """The files of a bag's folder."""
    with tempfile.TemporaryDirectory() as folder:
        return tree_of(write_bag(Path(folder) / 'walk', list(items()), storage=storage, compression=compression))


def _single(files: dict[str, bytes]) -> dict[str, bytes]:
    """The storage file alone."""
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
    """Kind and content of each record of an MCAP file, as far as they are whole."""
    place, found = len(MAGIC), []
    while place + 9 <= len(data) - len(MAGIC):
        kind, length = struct.unpack_from('<BQ', data, place)
        found.append((kind, data[place + 9 : place + 9 + length]))
        place += 9 + length
    return found


def mcap_of(found: list[tuple[int, bytes]]) -> bytes:
    """An MCAP file of records, whose places in the index may be wrong."""
    return MAGIC + b''.join(struct.pack('<BQ', kind, len(content)) + content for kind, content in found) + MAGIC


def spoil_mcap(chance: Chance, data: bytes) -> bytes:
    """Edit records: kinds, lengths, contents, order; the messages in chunks, too."""
    found = records(data)
    if not found or chance.often(20):
        return spoil_bytes(chance, data)
    for _ in chance.several():
        place = chance.whole(0, len(found) - 1)
        kind, content = found[place]
        how = chance.whole(0, 9)
        chance.note(f'record {place} of kind {kind}: {how}')
        if how < 4:
            content = spoil_bytes(chance, content, 0, 80)
        elif how == 4 and kind == 6 and len(content) > 60:
            content = _spoil_chunk(chance, content)
        elif how == 5:
            kind = chance.pick([0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 15, 200])
        elif how == 6:
            found.insert(place, found[chance.whole(0, len(found) - 1)])
            continue
        elif how == 7 and len(found) > 1:
            found.pop(place)
            continue
        elif kind in (3, 4):
            content = _spoil_strings(chance, content)
        found[place] = (kind, content)
    return mcap_of(found)


def _spoil_strings(chance: Chance, content: bytes) -> bytes:
    """Another topic, type or definition: a text after its length."""
    place, found = 2, []
    while place + 4 <= len(content) and len(found) < 3:
        (length,) = struct.unpack_from('<I', content, place)
        if place + 4 + length <= len(content):
            found.append((place, length))
        place += 4 + length
    if not found:
        return spoil_bytes(chance, content)
    place, length = chance.pick(found)
    text = chance.text() if chance.often(50) else chance.pick(ODD_DEFINITIONS)
    raw = text.encode(errors='replace')
    size = len(raw) if chance.often(85) else int(chance.pick([0, 2**31, 2**32 - 1]))
    return content[:place] + struct.pack('<I', size) + raw + content[place + 4 + length :]


def _spoil_chunk(chance: Chance, content: bytes) -> bytes:
    """Other sizes and checksums of a chunk, or other records in one that is not compressed."""
    if chance.often(60):
        field, size = chance.pick([(16, 8), (16, 8), (24, 4), (0, 8), (8, 8)])
        number = chance.pick([0, 1, 2**31, 2**33, 2**40, 2**63, 2**64 - 1]) % (1 << 8 * size)
        return content[:field] + number.to_bytes(size, 'little') + content[field + size :]
    return spoil_bytes(chance, content, 40)


@functools.cache
def _zeros() -> bytes:
    from backports import zstd

    return bytes(zstd.compress(bytes(1 << 26)))


def _bomb(chance: Chance) -> bytes:
    """zstd of very many zeros: frames that follow each other are one stream."""
    chance.note('zstd: unpacks to very much')
    return _zeros() * chance.pick([2, 20, 200])


def _spoil_file(chance: Chance, name: str, data: bytes) -> bytes:
    from backports import zstd

    if name.endswith('.zstd'):
        how = chance.whole(0, 9)
        if how == 0:
            return _bomb(chance)
        if how < 4:
            return spoil_bytes(chance, data)
        inside = name.removesuffix('.zstd')
        return bytes(zstd.compress(_spoil_file(chance, inside, bytes(zstd.decompress(data)))))
    return spoil_mcap(chance, data) if name.endswith('.mcap') else spoil_db3(chance, data)


def spoil_db3(chance: Chance, data: bytes) -> bytes:
    """Edit a database by SQL, as pages or as bytes."""
    how = chance.whole(0, 9)
    if how < 3:
        return spoil_bytes(chance, data, 0, 200 if how == 0 else None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'x.db3'
        path.write_bytes(data)
        database = sqlite3.connect(path)
        database.execute('PRAGMA synchronous = OFF')
        try:
            for _ in chance.several():
                text = chance.pick(SQL).format(
                    table=chance.pick(['topics', 'messages', 'schema', 'metadata']),
                    column=chance.pick(['name', 'type', 'serialization_format', 'offered_qos_profiles']),
                    number=str(chance.number())[:40],
                    text="'" + chance.text().replace("'", "''").replace('\0', '') + "'",
                    more=chance.pick(['', ', type_description_hash']),
                )
                chance.note(text[:80])
                try:
                    database.executescript(text)
                except (sqlite3.Error, UnicodeError, ValueError):
                    continue
            if chance.often(15):
                chance.note('schema of its own')
                odd = chance.pick(
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


def spoil_message(chance: Chance, raw: bytes) -> bytes:
    """Edit a serialized message."""
    return spoil_bytes(chance, raw, 0, 80 if chance.often(80) else None)


def _rewritten(chance: Chance, storage: str, compression: str, source: tuple[Any, ...]) -> dict[str, bytes]:
    """A sound bag whose messages are not."""
    from xmem_ros.recordings import typestore as messages

    found = []
    for topic, received_ns, message in source:
        raw = messages.serialize(message)
        if chance.often(80 if topic != TOPIC else 20 if len(source) > len(items()) else 100):
            raw = spoil_message(chance, raw)
        found.append((topic, received_ns, (message.__msgtype__, raw)))
    chance.note('messages')
    with tempfile.TemporaryDirectory() as folder:
        return tree_of(write_bag(Path(folder) / 'walk', found, storage=storage, compression=compression))


def _spoil_single(chance: Chance, files: dict[str, bytes]) -> dict[str, bytes | Link]:
    ((name, data),) = files.items()
    if name == RECORDED and chance.often(70):
        return {RECORDED: next(iter(_single(_rewritten(chance, 'mcap', '', seeded_items())).values()))}
    if chance.often(25):
        compression = chance.pick(['', 'message', 'file']) if name.endswith('.zstd') else ''
        return dict(_single(_rewritten(chance, 'mcap' if '.mcap' in name else 'sqlite3', compression, items())))
    found: dict[str, bytes | Link] = {name: _spoil_file(chance, name, data)}
    if '.db3' in name and chance.often(15):
        found[f'{name}-wal'] = chance.data() * 100
        found[f'{name}-journal'] = spoil_bytes(chance, b'\xd9\xd5\x05\xf9\x20\xa1\x63\xd7' + bytes(600))
    return found


def _spoil_folder(chance: Chance, files: dict[str, bytes]) -> dict[str, bytes | Link]:
    found: dict[str, bytes | Link] = dict(files)
    how = chance.whole(0, 9)
    (storage,) = _single(files)
    about = yaml.safe_load(files['metadata.yaml'])
    inside = about['rosbag2_bagfile_information']
    if how < 3:
        found['metadata.yaml'] = yaml.safe_dump(spoil_tree(chance, about)).encode(errors='replace')
    elif how == 3:
        found['metadata.yaml'] = spoil_yaml(chance, files['metadata.yaml'])
    elif how < 6:
        path = chance.pick(
            ['../canary/keep.mcap', '../../canary/keep.txt', '/dev/zero', f'{chance.canary}/keep.mcap', '.']
        )
        path = path if chance.often(70) else chance.text()
        chance.note(f'names the file {path[:60]!r}')
        inside['relative_file_paths'] = [path] * chance.pick([1, 1, 2])
        inside['compression_format'] = chance.pick(['', 'zstd', 'x'])
        inside['compression_mode'] = chance.pick(['', 'FILE', 'MESSAGE', 'x'])
        inside['storage_identifier'] = chance.pick(['mcap', 'sqlite3', '../x'])
        for item in inside.get('files', []):
            item['path'] = path
        found['metadata.yaml'] = yaml.safe_dump(about).encode(errors='replace')
    elif how == 6:
        target = chance.pick(['/dev/zero', '/dev/null', storage, '.', 'missing'])
        chance.note(f'{storage} leads to {target}')
        found[storage] = Link(target)
    elif how == 7:
        found.pop('metadata.yaml')
        found[storage] = _spoil_file(chance, storage, files[storage])
    else:
        found[storage] = _spoil_file(chance, storage, files[storage])
    return {f'walk/{name}': content for name, content in found.items()}


def _make_folder() -> list[dict[str, bytes]]:
    return [bag('mcap'), bag('sqlite3'), bag('mcap', 'file'), bag('sqlite3', 'message')]


def _use_single(places: Places) -> int:
    (path,) = (path for path in places.input.iterdir() if not path.name.endswith(('-wal', '-journal')))
    return _use(places, path)


def _use_folder(places: Places) -> int:
    if not (places.input / 'walk').exists():  # a whole one, whose files lie there as they are
        return _use(places, places.input)
    return _use(places, places.input / 'walk')


def _use(places: Places, path: Path) -> int:
    seed = places.work / 'seed.png'
    seed.write_bytes(encoded(mask(), '.png'))
    given = () if path.name == RECORDED else ('--seed', str(seed))
    return track(places, path, *given, '--format', 'png', '--format', 'bag')


def kinds() -> list[Kind]:
    """The kinds of this module."""
    return [
        Kind('mcap', _make_mcap, _spoil_single, _use_single),
        Kind('db3', lambda: [_single(bag('sqlite3', c)) for c in ('', 'file', 'message')], _spoil_single, _use_single),
        Kind('folder', _make_folder, _spoil_folder, _use_folder),
    ]
