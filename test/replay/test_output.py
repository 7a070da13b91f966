# SPDX-License-Identifier: MIT
"""Destination of `xmem-ros replay --out`, and folders that it must not touch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg', 'rosbags.rosbag2')

from xmem_ros.errors import OutputError, ParameterError
from xmem_ros.offline.run_folder import RunFolder
from xmem_ros.replay.output import ReplayOutput

LEAVE = """
import os, sys
from pathlib import Path
from xmem_ros.replay.output import ReplayOutput
ReplayOutput(Path(sys.argv[1]), ['png'], '/xmem', 30.0).__enter__()
os._exit(9)
"""


def output(out):
    return ReplayOutput(out, ['png'], '/xmem', 30.0)


@pytest.mark.parametrize('running', [True, False])
def test_the_work_of_an_offline_run_with_the_same_destination_is_left_alone(tmp_path, running):
    work = RunFolder(tmp_path / 'out', {'input': 'walk'})
    done = work.folder / 'segment_000000.zip'
    done.write_bytes(b'hours of work')
    if not running:
        work.close()
    with pytest.raises(ParameterError, match='is the destination of an unfinished run'), output(tmp_path / 'out'):
        pass
    assert done.read_bytes() == b'hours of work'
    work.close()


def test_two_replays_do_not_write_to_one_destination(tmp_path):
    with output(tmp_path / 'out'):
        with pytest.raises(ParameterError, match='another replay is writing there'), output(tmp_path / 'out'):
            pass
        assert (tmp_path / '.out.replay' / 'results').is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ['out']


def test_files_of_a_killed_replay_are_discarded(tmp_path):
    out = tmp_path / 'out'
    assert subprocess.run([sys.executable, '-c', LEAVE, str(out)], check=False).returncode == 9
    left = tmp_path / '.out.replay' / 'results'
    (left / 'old.png').write_bytes(b'old')
    with output(out):
        pass
    assert [path.name for path in out.iterdir()] == ['frames.csv', 'objects.csv']
    assert not left.parent.exists()


def test_a_work_folder_that_no_replay_has_made_is_refused_and_kept(tmp_path):
    kept = tmp_path / '.out.replay' / 'thesis.txt'
    kept.parent.mkdir()
    kept.write_text('all of it')
    with pytest.raises(ParameterError, match='not made by a run of xmem-ros; move it away'), output(tmp_path / 'out'):
        pass
    assert kept.read_text() == 'all of it'


def test_results_are_kept_beside_a_destination_that_was_filled_meanwhile(tmp_path):
    out = tmp_path / 'out'
    written = output(out).__enter__()
    out.mkdir()
    (out / 'other').write_text('of somebody else')
    with pytest.raises(OutputError, match='the results are in') as raised:
        written.__exit__(None)
    kept = next(tmp_path.glob('out.replayed_*'))
    assert str(kept) in str(raised.value)
    assert [path.name for path in kept.iterdir()] == ['frames.csv', 'objects.csv']
    assert [path.name for path in out.iterdir()] == ['other']


def test_a_destination_below_a_file_is_refused(tmp_path):
    (tmp_path / 'file').write_bytes(bytes(np.zeros(3, np.uint8)))
    with pytest.raises(ParameterError, match='is a file, not a folder'), output(tmp_path / 'file' / 'out'):
        pass
