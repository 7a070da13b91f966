# SPDX-License-Identifier: MIT
"""The node on ONNX Runtime: models prepared during configuration, and the log of that."""

import json
from pathlib import Path

import pytest
from needs import require
from tiny_networks import TINY, save_untrained

require('rclpy', 'onnxruntime', 'onnxscript')

from node_harness import START_S, NodeProcess

SETTINGS = {'engine': 'onnxruntime', 'device': 'cpu', 'precision': 'float32', 'size': 0, 'max_objects': 1}


def test_engines_are_ready_before_the_first_image_and_damaged_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('XMEM_ROS_ONNX', str(tmp_path))
    settings = {**SETTINGS, 'weights': str(save_untrained(TINY, tmp_path / 'tiny.safetensors'))}
    process = NodeProcess({**settings, 'prepare': '64x96'})
    try:
        process.says('active: waiting', START_S)
        said = process.output
    finally:
        process.close()
    steps = [
        said.index('exporting ONNX models for images of 64×96 px'),
        said.index('loaded ONNX models for images of 64×96 px and 1 objects'),
        said.index('configured in'),
    ]
    assert steps == sorted(steps), said

    (manifest,) = tmp_path.glob('*/manifest.json')
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), 'exported_by': 'xmem-ros export'}))
    with (manifest.parent / 'decoder.onnx').open('r+b') as file:
        file.truncate(1000)
    process = NodeProcess(settings)  # prepares for the size used last
    try:
        assert process.exit_code() == 1
        assert 'decoder.onnx has 1000 bytes' in process.output
        assert 'that command, copy the folder again' in process.output
        assert 'Traceback' not in process.output
    finally:
        process.close()
