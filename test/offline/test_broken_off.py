# SPDX-License-Identifier: MIT
"""Interrupted runs of `xmem-ros track`: the work is kept, and the same command resumes it."""

from __future__ import annotations

import os

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
from xmem_ros.tracker import Tracker

# --- no room, and errors of others

LITTLE_ROOM = """
import resource, sys
from xmem_ros.tracker import snapshot
from xmem_ros.offline.segments import RunFolder
from xmem_ros.cli.main import main
write = snapshot.write
def little(saved, path):
    if path.stem.endswith('000002'):
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    write(saved, path)
snapshot.write = little
sys.exit(main(sys.argv[1:]))
"""


def test_where_room_runs_out_for_the_memory_the_segments_before_it_are_kept(bag, tmp_path, stepped):
    done = elsewhere(LITTLE_ROOM, *arguments(bag, tmp_path / 'out'))
    assert done.returncode == 2, done.stderr
    assert 'memory_000002.safetensors: cannot be written' in done.stderr
    assert GOES_ON in done.stderr
    assert left(tmp_path) == ['.out.part']
    assert main(arguments(bag, tmp_path / 'out')) == 0
    assert stepped == [4, 5, 6, 7, 8, 9], 'one segment of four images was whole'
    assert main(arguments(bag, tmp_path / 'other')) == 0
    assert digests(tmp_path / 'out') == digests(tmp_path / 'other')


LITTLE_ROOM_AT_LAST = """
import resource, sys
from xmem_ros.offline import run
from xmem_ros.cli.main import main
write = run.write_results
def little(*given):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, resource.RLIM_INFINITY))
    write(*given)
run.write_results = little
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize('kind', ['overlay', 'bag', 'coco', 'ytvos', 'png'])
def test_where_room_runs_out_for_results_none_are_delivered_and_the_next_run_writes_them(
    frames, tmp_path, kind, stepped
):
    """Write noise, so that every format needs more than 16 KiB per file."""
    if kind == 'coco':
        require('pycocotools')
    noise = np.random.default_rng(0).integers(0, 256, (6, 384, 512, 3), np.uint8)
    (tmp_path / 'bag').mkdir()
    for index, image in enumerate(noise):
        cv2.imwrite(str(tmp_path / 'bag' / f'{index}.png'), image)
    save_mask(tmp_path / 'mask.png', (noise[0, :, :, 0] >> 7) + 1)  # masks of noise, too
    given = arguments(tmp_path / 'bag', tmp_path / 'out')
    given[given.index('png')] = kind
    done = elsewhere(LITTLE_ROOM_AT_LAST, *given)
    assert done.returncode == 2, done.stderr
    assert GOES_ON in done.stderr
    assert 'Traceback' not in done.stderr
    assert left(tmp_path) == ['.out.part']
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
    ids=['of a library', 'memory', 'room'],
)
def test_an_error_while_results_are_written_keeps_all_that_was_tracked(
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
def test_an_error_of_the_tracker_ends_the_run_and_leaves_no_image_out(
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
    assert stepped == [4, 5, 6, 7, 8, 9], 'one segment of four images was whole'
    assert 'left out' not in capsys.readouterr().err


def test_an_error_before_anything_is_tracked_is_told_and_leaves_nothing(bag, tmp_path, monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError('CUDA error: out of memory')

    monkeypatch.setattr(Tracker, 'from_weights', broken)
    assert main(arguments(bag, tmp_path / 'out')) == 1
    assert 'the tracker cannot be set up on cpu (RuntimeError: CUDA error: out of' in capsys.readouterr().err
    assert left(tmp_path) == []


NO_ROOM = """
import resource, sys
from xmem_ros.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
sys.exit(main(sys.argv[1:]))
"""


def test_where_there_is_no_room_to_begin_nothing_is_left(bag, tmp_path):
    done = elsewhere(NO_ROOM, *arguments(bag, tmp_path / 'out'))
    assert done.returncode == 2, done.stderr
    assert '.out.part: cannot be written (File too large); choose another --out' in done.stderr
    assert left(tmp_path) == []


# --- going on only with the same input


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
    """Change a byte and, by default, the modification time."""
    before = file.stat()
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    changed = before.st_mtime_ns if keep_time else before.st_mtime_ns + 1
    os.utime(file, ns=(before.st_atime_ns, changed))


@pytest.mark.parametrize(('place', 'keep_time'), [(30_000, True), (-100, True), (100_000, False)])
def test_a_run_does_not_go_on_with_another_input_of_the_same_size(bag, tmp_path, monkeypatch, capsys, place, keep_time):
    broken_off(bag, tmp_path / 'out', monkeypatch)
    file = bag / 'bag.mcap'
    assert file.stat().st_size > 100_000
    edited(file, place, keep_time=keep_time)
    assert main(arguments(bag, tmp_path / 'out')) == 2
    said = capsys.readouterr().err
    assert 'the input of an interrupted run has changed since' in said
    assert '--restart to start over' in said
    assert left(tmp_path) == ['.out.part']
    edited(file, place, keep_time=True)
    if not keep_time:
        status = file.stat()
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns - 1))
    assert main(arguments(bag, tmp_path / 'out')) == 0, 'the same file is there again'


def test_what_else_lies_in_the_folder_does_not_matter(bag, tmp_path, monkeypatch, stepped):
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
