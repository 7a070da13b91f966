# SPDX-License-Identifier: MIT
"""A few random lifecycle and signal sequences; `lifecycle_sequences.py` runs more."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from needs import require

require('rclpy', 'xmem_ros.msg', 'onnxruntime', 'onnxscript')

from node.lifecycle_sequences import run


@pytest.mark.parametrize('seed', range(4))
def test_a_signal_at_any_time_ends_the_node_cleanly(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XMEM_ROS_ONNX', str(tmp_path / 'onnx'))
    outcome = run(random.Random(seed), tmp_path / 'memory')
    assert outcome.faults == [], outcome.steps
