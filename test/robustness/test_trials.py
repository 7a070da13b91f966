# SPDX-License-Identifier: MIT
"""Short robustness trials: killed neighbours, backlog, malformed input."""

import json
import subprocess
import sys
from pathlib import Path

from needs import require

require('rclpy', 'xmem_ros.msg')

TESTS = Path(__file__).parents[1]


def trial(folder, *arguments):
    """Run a trial; returns its results and output."""
    report = folder / 'report.json'
    done = subprocess.run(
        [sys.executable, '-m', 'robustness', *arguments, '--device', 'cpu', '--json', str(report)],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert report.exists(), done.stdout + done.stderr
    figures = json.loads(report.read_text())
    assert done.returncode == (0 if all(bar['met'] for bar in figures['bars'].values()) else 1)
    return figures, done.stdout + done.stderr


def missed(figures, *but):
    """Return the missed bars, without those of time, which need a quiet machine."""
    return {name for name, bar in figures['bars'].items() if not bar['met'] and not name.startswith(but)}


def test_masks_return_whichever_process_is_killed(tmp_path):
    figures, said = trial(tmp_path, 'restarts', '--times', '3', '--size', '96', '--rate', '10')
    assert not missed(figures, 'longest recovery'), said
    restarts = figures['events'][:3]
    assert {event['killed'] for event in restarts} == {'camera', 'consumer', 'node'}
    assert all(event['recovery_s'] is not None and event['iou'] >= 0.5 for event in restarts), said


def test_a_slow_tracker_drops_images_instead_of_falling_behind(tmp_path):
    # a step that is long compared with other load
    figures, said = trial(tmp_path, 'age', '--seconds', '3', '--step', '500', '--size', '96')
    assert not missed(figures), said
    counts = figures['counts']
    assert counts['heard'] >= 3
    assert counts['dropped'] > counts['tracked']  # the camera sends 15 images per step


def test_malformed_input_is_refused_and_does_not_disturb_tracking(tmp_path):
    figures, said = trial(tmp_path, 'fuzz', '--times', '40', '--transport', 'both', '--size', '64')
    assert not missed(figures, 'refusals that took'), said
    assert [run['transport'] for run in figures['runs']] == ['raw', 'compressed']
    for run in figures['runs']:
        assert sum(run['requests'].values()) + sum(run['images'].values()) == 40
        assert min(len(run['requests']), len(run['images'])) >= 5
        assert run['frames'] >= 4
