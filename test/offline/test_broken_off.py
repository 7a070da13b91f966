# SPDX-License-Identifier: MIT
"""Interrupted runs of `xmem-ros track`: the work is kept, and the same command resumes it."""

from __future__ import annotations

import contextlib
import os
import resource

import cv2
import numpy as np
import pytest
from needs import require

require('rosbags.rosbag2')

from bag_files import image_items, write_bag
from bag_runs import GOES_ON, arguments, digests, elsewhere, left
from scene_files import save_mask

from xmem_ros.cli.main import main
from xmem_ros.errors import OutOfMemoryError
from xmem_ros.offline import run as run_module
from xmem_ros.offline.job import content_of
from xmem_ros.offline.tracking import OfflineTracker
from xmem_ros.tracker import Tracker, snapshot

# --- full disks, and errors of libraries and devices


@contextlib.contextmanager
def little_room(size):
    """Let files of this process grow to a size [bytes] only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_while_the_memory_is_saved_keeps_the_earlier_segments(bag, tmp_path, monkeypatch, capsys, stepped):
    write = snapshot.write

    def little(saved, path):
        with little_room(4096) if path.stem.endswith('000002') else contextlib.nullcontext():
            write(saved, path)

    with monkeypatch.context() as patched:
        patched.setattr(snapshot, 'write', little)
        assert main(arguments(bag, tmp_path / 'out')) == 2
    said = capsys.readouterr().err
    assert 'memory_000002.safetensors: cannot be written' in said
    assert GOES_ON in said
    assert left(tmp_path) == ['.out.part']
    stepped.clear()
    assert main(arguments(bag, tmp_path / 'out')) == 0
    assert stepped == [4, 5, 6, 7, 8, 9], 'one segment of four images was complete'
    assert main(arguments(bag, tmp_path / 'other')) == 0
    assert digests(tmp_path / 'out') == digests(tmp_path / 'other')


@pytest.mark.parametrize('kind', ['overlay', 'bag', 'coco', 'ytvos', 'png'])
def test_a_full_disk_while_results_are_written_delivers_none_and_the_next_run_writes_them(
    tmp_path, monkeypatch, capsys, kind, stepped
):
    """Write noise, so that every format needs more than 16 KiB per file."""
    if kind == 'coco':
        require('pycocotools')
    noise = np.random.default_rng(0).integers(0, 256, (6, 384, 512, 3), np.uint8)
    (tmp_path / 'bag').mkdir()
    for index, image in enumerate(noise):
        cv2.imwrite(str(tmp_path / 'bag' / f'{index}.png'), image)
    save_mask(tmp_path / 'mask.png', (noise[0, :, :, 0] >> 7) + 1)  # the masks are noise, too
    given = arguments(tmp_path / 'bag', tmp_path / 'out')
    given[given.index('png')] = kind
    write = run_module.write_results

    def little(*given):
        with little_room(1 << 14):
            write(*given)

    with monkeypatch.context() as patched:
        patched.setattr(run_module, 'write_results', little)
        assert main(given) == 2
    said = capsys.readouterr().err
    assert GOES_ON in said
    assert 'Traceback' not in said
    assert left(tmp_path) == ['.out.part']
    stepped.clear()
    assert main(given) == 0
    assert stepped == []
    assert left(tmp_path) == ['out']


@pytest.mark.parametrize(
    ('error', 'code', 'text'),
    [
        (RuntimeError('cuDNN error: no\nand more'), 1, 'error: RuntimeError: cuDNN error: no; the work'),
        (MemoryError(), 1, 'error: MemoryError; the work'),
        (OSError(28, 'No space left on device'), 2, 'No space left on device; the work'),
    ],
    ids=['of a library', 'memory', 'full disk'],
)
def test_an_error_while_results_are_written_keeps_all_tracked_images(
    bag, tmp_path, monkeypatch, capsys, stepped, error, code, text
):
    def fail(*_):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(run_module, 'write_results', fail)
        assert main(arguments(bag, tmp_path / 'out')) == code
    said = capsys.readouterr().err
    assert text in said
    assert GOES_ON in said
    assert 'Traceback' not in said
    stepped.clear()
    assert main(arguments(bag, tmp_path / 'out')) == 0
    assert stepped == []
    assert left(tmp_path) == ['out']


@pytest.mark.parametrize(
    ('error', 'text'),
    [
        (
            RuntimeError('CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be'),
            'access was',
        ),
        (OutOfMemoryError('nothing more can be given up'), 'nothing more can be given up'),
    ],
    ids=['of the device', 'memory'],
)
def test_an_error_of_the_tracker_ends_the_run_instead_of_skipping_the_image(
    bag, tmp_path, monkeypatch, capsys, stepped, error, text
):
    step = Tracker.step

    def failing(self, *given, **options):
        if stepped[-1] >= 6:
            raise error
        return step(self, *given, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Tracker, 'step', failing)
        assert main(arguments(bag, tmp_path / 'out')) == 1
    said = capsys.readouterr().err
    assert text in said
    assert GOES_ON in said
    assert 'Traceback' not in said
    assert left(tmp_path) == ['.out.part']
    stepped.clear()
    assert main(arguments(bag, tmp_path / 'out')) == 0
    assert stepped == [4, 5, 6, 7, 8, 9], 'one segment of four images was complete'
    assert 'left out' not in capsys.readouterr().err


def test_an_error_before_the_first_image_is_reported_and_leaves_no_files(bag, tmp_path, monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError('CUDA error: out of memory')

    monkeypatch.setattr(Tracker, 'from_weights', broken)
    assert main(arguments(bag, tmp_path / 'out')) == 1
    assert 'the tracker cannot be set up on cpu (RuntimeError: CUDA error: out of' in capsys.readouterr().err
    assert left(tmp_path) == []


def test_a_disk_that_is_full_from_the_start_is_reported_and_no_files_are_left(bag, tmp_path, capsys):
    with little_room(64):
        assert main(arguments(bag, tmp_path / 'out')) == 2
    text = '.out.part: cannot be written (File too large); choose another destination (--out)'
    assert text in capsys.readouterr().err
    assert left(tmp_path) == []


# --- resuming only with the same input


def broken_off(bag, out, monkeypatch, *more):
    """Interrupt a run after one segment of four images."""

    def interrupted(self, frame):
        if frame.index == 6:
            raise KeyboardInterrupt
        return step(self, frame)

    step = OfflineTracker.step
    with monkeypatch.context() as patched:
        patched.setattr(OfflineTracker, 'step', interrupted)
        assert main(arguments(bag, out, *more)) == 130
    assert left(out.parent) == [f'.{out.name}.part']


def edited(file, place, *, keep_time):
    """Change a byte and, unless `keep_time`, the modification time."""
    before = file.stat()
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    changed = before.st_mtime_ns if keep_time else before.st_mtime_ns + 1
    os.utime(file, ns=(before.st_atime_ns, changed))


@pytest.mark.parametrize(('place', 'keep_time'), [(30_000, True), (-100, True), (100_000, False)])
def test_a_run_does_not_resume_with_another_input_of_the_same_size(
    bag, tmp_path, monkeypatch, capsys, place, keep_time
):
    broken_off(bag, tmp_path / 'out', monkeypatch)
    file = bag / 'bag.mcap'
    assert file.stat().st_size > 100_000
    edited(file, place, keep_time=keep_time)
    assert main(arguments(bag, tmp_path / 'out')) == 2
    said = capsys.readouterr().err
    assert 'the input of an interrupted run has changed since' in said
    assert 'start over (--restart)' in said
    assert left(tmp_path) == ['.out.part']
    edited(file, place, keep_time=True)
    if not keep_time:
        status = file.stat()
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns - 1))
    assert main(arguments(bag, tmp_path / 'out')) == 0, 'the file is restored'


def test_other_files_in_the_folder_of_the_bag_do_not_prevent_resuming(bag, tmp_path, monkeypatch, stepped):
    broken_off(bag, tmp_path / 'out', monkeypatch)
    (bag / 'notes.txt').write_text('sunny')
    stepped.clear()
    assert main(arguments(bag, tmp_path / 'out')) == 0
    assert stepped[0] == 4


@pytest.mark.parametrize('single', [False, True])
@pytest.mark.parametrize('ending', ['-wal', '-journal'])
def test_a_journal_beside_a_database_belongs_to_the_input_unless_it_is_empty(frames, tmp_path, single, ending):
    folder = write_bag(tmp_path / 'bag', image_items(frames), storage='sqlite3')
    (database,) = folder.glob('*.db3')
    path = database if single else folder
    before = content_of(path)
    journal = database.with_name(f'{database.name}{ending}')
    journal.touch()
    assert content_of(path) == before
    journal.write_bytes(b'messages')
    assert content_of(path) != before


def test_a_compressed_file_belongs_to_the_input(bag, frames, tmp_path):
    folder = write_bag(tmp_path / 'packed', image_items(frames), compression='file')
    (file,) = folder.glob('*.zstd')
    before = content_of(folder)
    edited(file, 100, keep_time=True)
    assert content_of(folder) != before


TERMINATED = """
import os, signal, sys
from xmem_ros.cli.main import main
from xmem_ros.offline.tracking import OfflineTracker
step = OfflineTracker.step
def end(self, frame):
    if frame.index == 2:
        assert os.listdir(os.environ['TMPDIR'])
        os.kill(os.getpid(), signal.SIGTERM)
    return step(self, frame)
OfflineTracker.step = end
sys.exit(main(sys.argv[1:]))
"""


def test_a_run_that_is_terminated_leaves_no_temporary_files(frames, tmp_path, monkeypatch):
    save_mask(tmp_path / 'mask.png', frames[0][1])
    bag = write_bag(tmp_path / 'bag', image_items(frames), compression='file')
    (tmp_path / 'temporary').mkdir()
    monkeypatch.setenv('TMPDIR', str(tmp_path / 'temporary'))
    done = elsewhere(TERMINATED, *arguments(bag, tmp_path / 'out'))
    assert done.returncode == 130, done.stderr
    assert 'interrupted' in done.stderr
    assert 'Traceback' not in done.stderr
    assert list((tmp_path / 'temporary').iterdir()) == []
