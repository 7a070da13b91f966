# SPDX-License-Identifier: MIT
"""Short robustness trials: the node outlives its neighbours, its backlog, and whatever it is sent."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='rclpy is not importable: run make build, or source ROS 2')
pytest.importorskip('xmem_ros.msg', reason='the messages are not built: run make build')

BENCHMARK = Path(__file__).parents[2] / 'benchmarks' / 'robustness.py'


def trial(folder, *arguments):
    """Run a trial; its figures, and what it printed."""
    report = folder / 'report.json'
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *arguments, '--device', 'cpu', '--json', str(report)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert report.exists(), done.stdout + done.stderr
    figures = json.loads(report.read_text())
    assert done.returncode == (0 if all(bar['met'] for bar in figures['bars'].values()) else 1)
    return figures, done.stdout + done.stderr


def missed(figures, *but):
    """Bars that were missed, without those of time, which are for a quiet machine."""
    return {name for name, bar in figures['bars'].items() if not bar['met'] and not name.startswith(but)}


def test_masks_come_again_whoever_was_killed(tmp_path):
    figures, said = trial(tmp_path, 'restarts', '--times', '3', '--size', '96', '--rate', '10')
    assert not missed(figures, 'longest recovery'), said
    restarts = figures['events'][:3]
    assert {event['killed'] for event in restarts} == {'camera', 'consumer', 'node'}
    assert all(event['recovery_s'] is not None and event['iou'] >= 0.5 for event in restarts), said


def test_a_slow_tracker_drops_images_instead_of_falling_behind(tmp_path):
    # a long step, so that what else the machine does is short beside it
    figures, said = trial(tmp_path, 'age', '--seconds', '5', '--step', '500', '--size', '96')
    assert not missed(figures), said
    counts = figures['counts']
    assert counts['heard'] >= 3
    assert counts['dropped'] > counts['tracked']  # the camera shows 15 images in a step


@pytest.mark.parametrize('transport', ['raw', 'compressed'])
def test_what_is_malformed_is_refused_by_name_and_disturbs_nothing(tmp_path, transport):
    figures, said = trial(tmp_path, 'fuzz', '--times', '40', '--transport', transport, '--size', '96')
    assert not missed(figures, 'refusals that took'), said
    (run,) = figures['runs']
    assert sum(run['requests'].values()) + sum(run['images'].values()) == 40
    assert min(len(run['requests']), len(run['images'])) >= 5
    assert run['frames'] >= 4
