# SPDX-License-Identifier: MIT
"""Destination of `xmem-ros track`: early refusals, nothing overwritten, nothing left behind."""

from __future__ import annotations

import fcntl
import shutil
import signal
import subprocess

import pytest
from needs import require

require('rosbags.rosbag2')

from bag_files import image_items, write_bag
from bag_runs import GOES_ON, arguments, digests, elsewhere, left
from scene_files import save_mask

from xmem_ros.cli.main import main
from xmem_ros.errors import ParameterError
from xmem_ros.offline import run as run_module
from xmem_ros.offline.destination import check_destination
from xmem_ros.offline.tracking import OfflineTracker

# --- unusable destinations are refused before tracking

MOUNTED = ['unshare', '--user', '--map-root-user', '--mount', 'sh', '-c']


def mounted(command, *given):
    """Run the command line after a shell command, in its own mount namespace."""
    if subprocess.run([*MOUNTED, 'mount -t tmpfs none /mnt'], capture_output=True, check=False).returncode:
        pytest.skip('nothing can be mounted here')
    script = 'import sys; from xmem_ros.cli.main import main; sys.exit(main(sys.argv[1:]))'
    return elsewhere(script, *given, wrapped=[*MOUNTED, f'{command} && exec "$0" "$@"'])


@pytest.mark.parametrize('kind', ['-t tmpfs none', '--bind {other}'])
def test_a_mount_point_is_refused_at_once(bag, tmp_path, kind):
    out, other = tmp_path / 'my out', tmp_path / 'other'
    out.mkdir()
    other.mkdir()
    done = mounted(f'mount {kind.format(other=other)} "{out}"', *arguments(bag, out))
    assert done.returncode == 2, done.stderr
    assert f'name a folder in it, such as {out / "result"} (--out)' in done.stderr
    assert left(tmp_path) == ['my out', 'other']


def test_a_folder_in_a_mount_point_is_accepted(bag, tmp_path):
    out = tmp_path / 'my out'
    out.mkdir()
    done = mounted(f'mount -t tmpfs none "{out}"', *arguments(bag, out / 'result'))
    assert done.returncode == 0, done.stderr


def test_a_parent_that_cannot_be_written_to_is_refused_at_once(bag, tmp_path):
    folder = tmp_path / 'archive'
    folder.mkdir()
    done = mounted(f'mount -t tmpfs -o ro none "{folder}"', *arguments(bag, folder / 'walks' / 'out'))
    assert done.returncode == 2, done.stderr
    assert f'{folder} is not writable' in done.stderr


def test_only_the_command_line_names_its_option_in_an_error(bag, tmp_path, capsys):
    (tmp_path / 'out' / 'photo').mkdir(parents=True)
    text = f'{tmp_path / "out"}: already exists and is not an empty folder; remove it or choose another destination'
    with pytest.raises(ParameterError) as raised:
        check_destination(tmp_path / 'out')
    assert str(raised.value) == text
    assert main(arguments(bag, tmp_path / 'out')) == 2
    assert f'{text} (--out)\n' in capsys.readouterr().err


def test_a_destination_below_a_file_is_refused_at_once(bag, tmp_path, capsys, stepped):
    assert main(arguments(bag, bag / 'bag.mcap' / 'out')) == 2
    assert 'bag.mcap is a file, not a folder' in capsys.readouterr().err
    assert stepped == []


def test_results_may_lie_in_the_folder_of_the_bag(bag, monkeypatch, stepped):
    def interrupted(self, frame):
        if frame.index == 6:
            raise KeyboardInterrupt
        return step(self, frame)

    step = OfflineTracker.step
    with monkeypatch.context() as patched:
        patched.setattr(OfflineTracker, 'step', interrupted)
        assert main(arguments(bag, bag / 'out')) == 130
    stepped.clear()
    assert main(arguments(bag, bag / 'out')) == 0
    assert stepped == [4, 5, 6, 7, 8, 9]
    assert sorted(file.name for file in bag.iterdir()) == ['bag.mcap', 'metadata.yaml', 'out']
    assert main(arguments(bag, bag.parent / 'again')) == 0, 'the bag is still readable'


def test_results_that_another_run_has_delivered_meanwhile_are_not_overwritten(
    bag, tmp_path, monkeypatch, capsys, stepped
):
    assert main(arguments(bag, tmp_path / 'out')) == 0
    stepped.clear()
    monkeypatch.setattr(
        run_module, 'check_destination', lambda out: None
    )  # as if the results had appeared after the check
    monkeypatch.setattr('xmem_ros.offline.destination.check_destination', lambda out: None)
    before = digests(tmp_path / 'out')
    assert main(arguments(bag, tmp_path / 'out')) == 2
    assert 'already exists' in capsys.readouterr().err
    assert stepped == []
    assert digests(tmp_path / 'out') == before
    assert left(tmp_path) == ['out']


def test_files_that_appear_in_the_destination_during_a_run_stay_and_its_results_are_kept(
    bag, tmp_path, monkeypatch, capsys, stepped
):
    out = tmp_path / 'out'
    write = run_module.write_results

    def disturbed(*given):
        write(*given)
        out.mkdir()
        (out / 'thesis.tex').write_text('mine')

    with monkeypatch.context() as patched:
        patched.setattr(run_module, 'write_results', disturbed)
        assert main(arguments(bag, out)) == 2
    said = capsys.readouterr().err
    assert f'{out}: the results cannot be moved there (Directory not empty)' in said
    assert GOES_ON in said
    assert [file.name for file in out.iterdir()] == ['thesis.tex']
    (out / 'thesis.tex').unlink()
    stepped.clear()
    assert main(arguments(bag, out)) == 0
    assert stepped == []


# --- killed after delivery

KILLED_AT_LAST = """
import os, signal, sys
from xmem_ros.offline.run_folder import RunFolder
from xmem_ros.cli.main import main
RunFolder.discard = lambda self: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""


@pytest.fixture(scope='module')
def delivered(frames, tmp_path_factory):
    """Return the destination of a run killed between delivery and cleanup, beside its bag."""
    folder = tmp_path_factory.mktemp('killed')
    save_mask(folder / 'mask.png', frames[0][1])
    bag = write_bag(folder / 'bag', image_items(frames))
    done = elsewhere(KILLED_AT_LAST, *arguments(bag, folder / 'out'))
    assert done.returncode == -signal.SIGKILL, done.stderr
    return folder / 'out'


def again(delivered):
    """Give the same command again; return its exit code."""
    assert left(delivered.parent) == ['.out.part', 'out']
    return main(arguments(delivered.with_name('bag'), delivered))


def test_a_folder_that_the_killed_run_has_not_delivered_is_left_alone(delivered, capsys):
    moved = delivered.rename(delivered.with_name('moved'))
    try:
        delivered.mkdir()
        (delivered / 'thesis.tex').write_text('mine')
        assert main(arguments(delivered.with_name('bag'), delivered)) == 2
        assert 'already exists and is not an empty folder' in capsys.readouterr().err
        assert left(delivered.parent) == ['.out.part', 'moved', 'out']
    finally:
        shutil.rmtree(delivered)
        moved.rename(delivered)


def test_a_locked_work_folder_is_not_removed(delivered, capsys):
    with (delivered.with_name('.out.part') / 'lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert again(delivered) == 2
        assert 'already exists' in capsys.readouterr().err
        assert left(delivered.parent) == ['.out.part', 'out']


# The last one, since it changes what was delivered.
def test_the_same_command_removes_the_work_folder_of_a_run_killed_after_delivery(delivered, capsys, stepped):
    before = digests(delivered)
    assert again(delivered) == 2
    assert 'already has complete results' in capsys.readouterr().err
    assert left(delivered.parent) == ['out']
    assert main(arguments(delivered.with_name('bag'), delivered)) == 2
    assert 'already exists' in capsys.readouterr().err
    assert digests(delivered) == before
    assert stepped == []
