# SPDX-License-Identifier: MIT
"""Atomic writes: complete files or none, and no foreign file is overwritten or removed."""

from __future__ import annotations

import fcntl
import os
import stat

import pytest

from xmem_ros import atomic, work_folder
from xmem_ros.errors import ParameterError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_at_once_and_keeps_its_mode(tmp_path):
    path = tmp_path / 'results.json'
    path.write_text('old')
    path.chmod(0o640)
    atomic.write_text(path, 'new')
    assert path.read_text() == 'new'
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert names(tmp_path) == ['results.json']


def test_a_new_file_has_the_mode_of_the_umask_even_if_its_writer_sets_another(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic.writing(tmp_path / 'weights.safetensors') as path:
            path.unlink()
            path.touch(0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / 'weights.safetensors').stat().st_mode) == 0o640


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / 'results.json'
    path.write_text('old')
    with pytest.raises(FileNotFoundError), atomic.writing(path):
        (tmp_path / 'absent').read_text()
    assert path.read_text() == 'old'
    assert names(tmp_path) == ['results.json']


@pytest.mark.parametrize('write', [atomic.open_new, atomic.open_append, atomic.open_lock, atomic.Replacement])
def test_a_symbolic_link_at_the_target_is_refused_and_not_followed(tmp_path, write):
    (tmp_path / 'theirs').write_text('theirs')
    (tmp_path / 'file').symlink_to('theirs')
    with pytest.raises(OSError, match='symbolic link'):
        write(tmp_path / 'file')
    assert (tmp_path / 'theirs').read_text() == 'theirs'
    assert names(tmp_path) == ['file', 'theirs']


@pytest.mark.parametrize('write', [atomic.open_new, atomic.open_append, atomic.open_lock, atomic.Replacement])
def test_a_pipe_at_the_target_is_refused_at_once(tmp_path, write):
    os.mkfifo(tmp_path / 'pipe')
    reader = os.open(tmp_path / 'pipe', os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(OSError, match='not a regular file'):
            write(tmp_path / 'pipe')
    finally:
        os.close(reader)


def test_the_longest_possible_name_is_written(tmp_path):
    for name in ('x' * 251 + '.png', '\N{CAT FACE}' * 62 + '.png', os.fsdecode(b'\xff' * 251) + '.png'):
        atomic.write_bytes(tmp_path / name, b'mask', sync=False)
        assert (tmp_path / name).read_bytes() == b'mask'


def test_an_existing_temporary_name_does_not_prevent_writing(tmp_path):
    (tmp_path / '.results.json.part').mkdir()
    atomic.write_text(tmp_path / 'results.json', '{}')
    assert names(tmp_path) == ['.results.json.part', 'results.json']


def test_opening_a_lock_keeps_the_content_of_the_file(tmp_path):
    (tmp_path / 'lock').write_text('theirs')
    atomic.open_lock(tmp_path / 'lock').close()
    assert (tmp_path / 'lock').read_text() == 'theirs'


# --- work folders


def test_a_work_folder_is_recognised_by_its_marker(tmp_path):
    work_folder.claim(tmp_path / 'work', 'another run').close()
    assert work_folder.is_ours(tmp_path / 'work')
    work_folder.remove(tmp_path / 'work')
    assert names(tmp_path) == []


def test_an_unmarked_folder_is_neither_claimed_nor_emptied_nor_removed(tmp_path):
    theirs = tmp_path / 'work'
    theirs.mkdir()
    (theirs / 'thesis.tex').write_text('mine')
    with pytest.raises(ParameterError, match='not made by a run of xmem-ros'):
        work_folder.claim(theirs, 'another run')
    work_folder.empty(theirs)
    work_folder.remove(theirs)
    assert names(theirs) == ['thesis.tex']


def test_a_link_to_a_work_folder_is_not_a_work_folder(tmp_path):
    work_folder.make(tmp_path / 'work')
    (tmp_path / 'link').symlink_to('work')
    assert not work_folder.is_ours(tmp_path / 'link')
    with pytest.raises(ParameterError):
        work_folder.claim(tmp_path / 'link', 'another run')
    work_folder.remove(tmp_path / 'link')
    assert work_folder.is_ours(tmp_path / 'work')


def test_links_in_a_work_folder_are_removed_and_not_followed(tmp_path):
    (tmp_path / 'theirs').mkdir()
    (tmp_path / 'theirs' / 'thesis.tex').write_text('mine')
    work_folder.make(tmp_path / 'work')
    (tmp_path / 'work' / 'link').symlink_to(tmp_path / 'theirs')
    work_folder.remove(tmp_path / 'work')
    assert names(tmp_path) == ['theirs']
    assert names(tmp_path / 'theirs') == ['thesis.tex']


def test_two_runs_cannot_have_the_same_work_folder(tmp_path):
    with work_folder.claim(tmp_path / 'work', 'another run') as lock:
        with pytest.raises(ParameterError, match='another run is writing there'):
            work_folder.claim(tmp_path / 'work', 'another run')
        fcntl.flock(lock, fcntl.LOCK_UN)
    work_folder.claim(tmp_path / 'work', 'another run').close()
