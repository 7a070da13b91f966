# SPDX-License-Identifier: MIT
"""Exported models on disk: intact ones are used, damaged ones are not. No network is run."""

import hashlib
import json
import logging
import os
from pathlib import Path

import pytest

from xmem_ros.engines.built_engines import RECORD, note_built, remove_unknown
from xmem_ros.engines.onnx_files import (
    COMMAND,
    MANIFEST,
    TRACKER,
    ExportKey,
    find_damage,
    find_models,
    move_into_place,
    newest_size,
    note_use,
    write_manifest,
)
from xmem_ros.errors import EngineError

KEY = ExportKey('ab' * 32, 96, 160, 'float32')


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a temporary folder in place of the user's cache."""
    monkeypatch.setenv('XMEM_ROS_ONNX', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


def exported(cache: Path, key: ExportKey = KEY, by: str = TRACKER, content: bytes = b'model', objects=(1, 2)) -> Path:
    part = cache / 'part'
    part.mkdir(parents=True)
    (part / 'decoder.onnx').write_bytes(content)
    write_manifest(part, key, {'decoder': {'file': 'decoder.onnx'}}, objects=list(objects), exported_by=by)
    move_into_place(part, cache / key.folder, key)
    if part.exists():
        for path in part.iterdir():
            path.unlink()
        part.rmdir()
    return cache / key.folder


def cut(folder: Path) -> None:
    (folder / 'decoder.onnx').write_bytes(b'mod')


def flip(folder: Path) -> None:
    (folder / 'decoder.onnx').write_bytes(b'modem')


def remove(folder: Path) -> None:
    (folder / 'decoder.onnx').unlink()


def cut_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:40])


def remove_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def change_manifest(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, 'width': 192}))


def lead_out(folder: Path) -> None:
    (folder / '..' / 'elsewhere.onnx').write_bytes(b'model')
    rename(folder, '../elsewhere.onnx')


def lead_out_by_a_link(folder: Path) -> None:
    (folder / 'decoder.onnx').rename(folder / '..' / 'elsewhere.onnx')
    (folder / 'decoder.onnx').symlink_to('../elsewhere.onnx')


def keep_tensors_elsewhere(folder: Path) -> None:
    replace(folder, b'\x0a\x08location\x12\x0d../secret.bin')


def hold_an_engine(folder: Path) -> None:
    replace(folder, b'EPContext')


def rename(folder: Path, file: str) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest['models']['decoder']['file'] = file
    (folder / MANIFEST).write_text(json.dumps(manifest))


def replace(folder: Path, content: bytes) -> None:
    """Replace the model, and make the manifest match."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest['models']['decoder'] |= {'bytes': len(content), 'sha256': hashlib.sha256(content).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    (folder / 'decoder.onnx').write_bytes(content)


def change(**values: object):
    """Return a function that changes values in the manifest."""

    def harm(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        (folder / MANIFEST).write_text(json.dumps({**manifest, **values}))

    harm.__name__ = '-'.join(values)
    return harm


def deepen(folder: Path) -> None:
    (folder / MANIFEST).write_text('{"models":' * 50_000)


def lengthen(folder: Path) -> None:
    with (folder / MANIFEST).open('a') as file:
        file.truncate(1 << 30)


DAMAGE = {
    cut: 'decoder.onnx has 3 bytes instead of 5',
    flip: 'its SHA-256 differs',
    remove: 'decoder.onnx cannot be read',
    cut_manifest: 'manifest.json cannot be read',
    remove_manifest: 'manifest.json is missing',
    change_manifest: 'manifest.json belongs to other models',
    lead_out: "'../elsewhere.onnx' is not a file of this folder",
    lead_out_by_a_link: "'decoder.onnx' is not a file of this folder",
    keep_tensors_elsewhere: 'decoder.onnx refers to tensors in other files',
    hold_an_engine: 'decoder.onnx contains a compiled engine',
    change(objects=[True]): 'manifest.json cannot be read',
    change(objects=[10**9]): 'manifest.json cannot be read',
    change(models=[]): 'manifest.json cannot be read',
    change(models={}): 'manifest.json cannot be read',
    change(height='96'): 'manifest.json cannot be read',
    deepen: 'manifest.json cannot be read',
    lengthen: 'manifest.json cannot be read',
}


def test_intact_models_are_found(cache: Path) -> None:
    assert find_models(KEY) is None
    folder = exported(cache)
    assert find_models(KEY) == folder
    assert find_damage(folder, KEY) == ''


def test_a_folder_appears_only_after_its_content_is_on_disk(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, sync = [], os.fsync

    def note(descriptor: int) -> None:
        path = Path(f'/proc/self/fd/{descriptor}').resolve()
        synced.append((path.name, (cache / KEY.folder).exists()))
        sync(descriptor)

    monkeypatch.setattr(os, 'fsync', note)
    exported(cache)
    assert [there for _, there in synced] == [False, False, False, True]
    model, manifest, *folders = (name for name, _ in synced)
    assert (model, folders) == ('decoder.onnx', ['part', 'cache'])
    assert manifest.startswith(f'.{MANIFEST}.')


@pytest.mark.parametrize('harm', DAMAGE, ids=lambda harm: harm.__name__)
def test_damaged_models_are_not_used_and_the_log_says_why(cache: Path, harm, caplog) -> None:
    folder = exported(cache)
    harm(folder)
    with caplog.at_level(logging.WARNING):
        assert find_models(KEY) is None
    assert DAMAGE[harm] in caplog.text
    assert 'exporting the models again' in caplog.text
    exported(cache, content=b'another')
    assert find_models(KEY) == folder
    assert (folder / 'decoder.onnx').read_bytes() == b'another'


@pytest.mark.parametrize('harm', [cut, flip, remove])
def test_damaged_models_that_the_user_exported_are_refused(cache: Path, harm) -> None:
    folder = exported(cache, by=COMMAND)
    harm(folder)
    with pytest.raises(EngineError, match='repeat that command') as raised:
        find_models(KEY)
    assert DAMAGE[harm] in str(raised.value)
    assert str(folder) in str(raised.value)
    exported(cache, by=COMMAND)  # as the user is told to do
    assert find_models(KEY) == folder


def test_a_second_export_keeps_intact_models_and_their_engines(cache: Path) -> None:
    folder = exported(cache, objects=[1])
    (folder / 'decoder.engine').touch()
    exported(cache, content=b'other bytes of the same model', objects=[1, 2])
    assert json.loads((folder / MANIFEST).read_text())['objects'] == [1, 2]
    assert (folder / 'decoder.engine').exists()
    assert find_models(KEY) == folder


def test_the_engines_of_damaged_models_are_removed_with_them(cache: Path) -> None:
    folder = exported(cache)
    (folder / 'decoder.engine').touch()
    flip(folder)
    exported(cache)
    assert find_models(KEY) == folder
    assert not (folder / 'decoder.engine').exists()


def test_an_export_does_not_replace_a_foreign_folder(cache: Path) -> None:
    theirs = cache / KEY.folder
    theirs.mkdir(parents=True)
    (theirs / 'thesis.tex').write_text('mine')
    with pytest.raises(FileExistsError, match='not made by xmem_ros'):
        exported(cache)
    assert [path.name for path in theirs.iterdir()] == ['thesis.tex']


def test_the_most_recently_used_size_is_found(cache: Path) -> None:
    assert newest_size(KEY.weights, 'float32', 96) is None
    other = ExportKey(KEY.weights, 96, 128, 'float32')
    folders = [exported(cache, key) for key in (KEY, other)]
    exported(cache, ExportKey('cd' * 32, 96, 176, 'float32'))  # of other weights
    for folder, second in zip(folders, (1, 2), strict=True):
        os.utime(folder / MANIFEST, (second, second))
    assert newest_size(KEY.weights, 'float32', 96) == (96, 128)
    note_use(folders[0])
    assert newest_size(KEY.weights, 'float32', 96) == (96, 160)
    assert newest_size(KEY.weights, 'float32', 90) == (96, 160), '90 px are padded to 96'
    assert newest_size(KEY.weights, 'float32', 0) == (96, 160)
    assert newest_size(KEY.weights, 'float32', 240) is None
    assert newest_size(KEY.weights, 'float16', 96) is None


def test_only_engines_that_were_built_here_are_kept(cache: Path, tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setenv('XMEM_ROS_WEIGHTS', str(tmp_path / 'user'))
    engines = exported(cache) / 'decoder-2'
    engines.mkdir()
    (engines / 'a.engine').write_bytes(b'built here')
    note_built(engines)
    (tmp_path / 'elsewhere').write_bytes(b'built here')
    (engines / 'b.engine').symlink_to(tmp_path / 'elsewhere')
    (engines / 'c.engine').write_bytes(b'code of somebody')
    with caplog.at_level(logging.WARNING):
        remove_unknown(engines)
    assert [path.name for path in engines.iterdir()] == ['a.engine']
    assert 'c.engine: removed, because this user did not build it' in caplog.text
    assert (tmp_path / 'elsewhere').read_bytes() == b'built here'
    (engines / 'a.engine').write_bytes(b'changed since')
    remove_unknown(engines)
    assert not list(engines.iterdir())


def test_a_record_beside_the_models_is_not_trusted(cache: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv('XMEM_ROS_WEIGHTS', str(tmp_path / 'user'))
    engines = exported(cache) / 'decoder-2'
    engines.mkdir()
    (engines / 'a.engine').write_bytes(b'code')
    for folder in (engines, engines.parent, cache):
        (folder / RECORD).write_text(json.dumps({hashlib.sha256(b'code').hexdigest(): 'a.engine'}))
    remove_unknown(engines)
    assert not (engines / 'a.engine').exists()


def test_an_engine_cache_that_is_a_link_is_refused(cache: Path, tmp_path: Path) -> None:
    folder = exported(cache)
    (folder / 'decoder-2').symlink_to(tmp_path)
    with pytest.raises(EngineError, match='is a link'):
        remove_unknown(folder / 'decoder-2')


@pytest.mark.parametrize('content', [b'{', b'[]', b'{"x": 1}', b'[' * 100_000])
def test_engines_are_rebuilt_if_their_record_is_unreadable(cache, tmp_path, monkeypatch, content) -> None:
    monkeypatch.setenv('XMEM_ROS_WEIGHTS', str(tmp_path))
    engines = exported(cache) / 'decoder-2'
    engines.mkdir()
    (engines / 'a.engine').write_bytes(b'built here')
    note_built(engines)
    (tmp_path / RECORD).write_bytes(content)
    remove_unknown(engines)
    assert not list(engines.iterdir())
    (engines / 'a.engine').write_bytes(b'built here')
    note_built(engines)
    remove_unknown(engines)
    assert [path.name for path in engines.iterdir()] == ['a.engine']
