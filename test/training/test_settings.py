# SPDX-License-Identifier: MIT
"""Configuration files of training: invalid values, presets, documentation."""

from pathlib import Path

import pytest

from xmem_ros.errors import ParameterError
from xmem_ros.training import config as training_config
from xmem_ros.training.config import read_config

CONFIGS_FOLDER = Path(__file__).parents[2] / 'config' / 'training'


def test_the_documentation_has_every_key() -> None:
    written = (Path(__file__).parents[2] / 'docs' / 'training.md').read_text()
    assert training_config.table() in written, 'python -m xmem_ros.training.config prints the tables'


def test_invalid_values_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / 'run.yaml'
    for text, message in (
        ('videos: [a]\niterations: 0\n', 'iterations is 0'),
        ('videos: [a]\nclips: {size: 100}\n', 'multiple of 16'),
        ('videos: [a]\nclips: {paste: 2}\n', r'clips\.paste is 2'),
        ('videos: [a]\nlearning_rate: 1e-4\n', 'write 1.0e-4'),
        ('videos: a\n', 'videos must be a list'),
        ('videos: [a]\nrepeat: [1, 2]\n', 'repeat has 2 entries, but videos has 1'),
        ('videos: [a]\nprecision: half\n', 'precision is'),
        ('iterations: 5\n', 'neither videos nor stills'),
        ('videos: [a]\nclips: 5\n', 'clips must be keys and values'),
        ('videos: [1]\n', 'videos must be text'),
        ('videos: [a]\nclips: {zoom: [a, b]}\n', r'clips\.zoom must be a number'),
        ('videos: [a]\nclips: {skips: [5, 10]}\n', r'clips\.skips must hold pairs'),
        ('videos: [a]\nbootstrap: [0, 1]\n', 'bootstrap is'),
        ('videos: [a]\nrepeat: [0]\n', 'each value must be at least 1'),
        ('videos: [a]\nseed: -1\n', 'seed is -1'),
        ('videos: [a]\nlearning_rate: -1.0\n', r'learning_rate is -1\.0'),
        ('videos: [a]\nhold_back: 1.0\n', 'hold_back is'),
        ('5: a\n', 'expected keys and values'),
        ('videos: [a\n', 'not usable YAML'),
        ('- a\n', 'expected keys and values'),
    ):
        file.write_text(text)
        with pytest.raises(ParameterError, match=message):
            read_config(file)
    with pytest.raises(ParameterError, match='cannot be read'):
        read_config(tmp_path / 'absent.yaml')


def test_unknown_keys_of_a_run_are_named(tmp_path: Path) -> None:
    file = tmp_path / 'run.yaml'
    file.write_text('iteratons: 5\n')
    with pytest.raises(ParameterError, match='unknown key iteratons'):
        read_config(file)
    file.write_text('clips: {sise: 5}\n')
    with pytest.raises(ParameterError, match=r'unknown key clips\.sise'):
        read_config(file)


@pytest.mark.parametrize('file', sorted(CONFIGS_FOLDER.glob('*.yaml')), ids=lambda path: path.stem)
def test_the_presets_are_valid(file: Path) -> None:
    config = read_config(file, videos=('given',) if file.stem == 'finetune' else None)
    joined = file.stem in ('compact_joined', 'compact_6', 'compact_7', 'compact_8')
    compact = 'compact_joined' if joined else 'compact'
    assert config.network == ('xmem' if file.stem.startswith('xmem') else compact)
