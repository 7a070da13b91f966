# SPDX-License-Identifier: MIT
"""Endless, blocking and slow files are refused at once."""

from __future__ import annotations

import os

import pytest

from xmem_ros.atomic import sha256_of
from xmem_ros.data_files import parse_yaml, read_json, read_text, read_yaml
from xmem_ros.engines.onnx_files import read_manifest
from xmem_ros.errors import FrameError, ParameterError, SeedError, WeightsError
from xmem_ros.media import read_image, read_mask
from xmem_ros.training.data import read_data
from xmem_ros.training.footage import FootageError
from xmem_ros.weights.checkpoint import read_state_dict

PAIRS = ['{1: a, 0x1: b}', '{1: a, 1.0: b}', '{1: a, true: b}', '{a: 1, "\\x61": 2}', '{? [1] : a}']


@pytest.fixture(params=['pipe', 'device'])
def endless(request, tmp_path):
    """Return a pipe without a writer, or a link to a device."""
    path = tmp_path / 'file'
    if request.param == 'pipe':
        os.mkfifo(path)
    else:
        path.symlink_to('/dev/zero')
    return path


def test_a_pipe_or_device_is_refused_as_text(endless):
    for read in (read_yaml, read_json, read_text):
        with pytest.raises(OSError, match='not a regular file'):
            read(endless, ParameterError)


def test_a_pipe_or_device_is_refused_as_a_picture(endless):
    with pytest.raises(FrameError, match='not a regular file'):
        read_image(endless)
    with pytest.raises(SeedError, match='not a regular file'):
        read_mask(endless)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_pipe_or_device_is_refused_as_weights(endless, suffix):
    path = endless.rename(endless.with_name(f'x{suffix}'))
    with pytest.raises(WeightsError, match='not a regular file'):
        read_state_dict(path)


def test_a_pipe_or_device_is_refused_as_an_exported_model(endless):
    with pytest.raises(OSError, match='not a regular file'):
        sha256_of(endless)
    with pytest.raises(OSError, match='not a regular file'):
        read_manifest(endless.rename(endless.with_name('manifest.json')).parent)


def test_a_pipe_or_device_is_refused_as_a_list_of_training_sequences(endless):
    from xmem_ros.training.config import TrainingConfig

    for name in ('JPEGImages', 'Annotations'):
        (endless.parent / 'video' / name).mkdir(parents=True)
    with pytest.raises(FootageError, match='not a regular file'):
        read_data(TrainingConfig(videos=('video',), subsets=(endless.name,)), endless.parent)


@pytest.mark.parametrize('text', ['1' + ':1' * 2_000_000, '1_' * 2_000_000 + '1', '0b' + '1' * 4_000_000])
def test_a_long_integer_is_refused_before_it_is_computed(text):
    """In base 60, which YAML 1.1 has, millions of digits would take hours."""
    with pytest.raises(ParameterError, match='line 1.*more than 19 digits'):
        parse_yaml(f'[{text}]', 'x', ParameterError)


@pytest.mark.parametrize('text', PAIRS)
def test_equal_keys_in_different_spellings_are_refused(text):
    with pytest.raises(ParameterError, match='duplicate key|is not a valid map|unhashable'):
        parse_yaml(text, 'x', ParameterError)


def test_a_key_may_override_a_merged_one():
    text = '{base: &base {a: 1, b: 2}, own: {<<: *base, b: 3}}'
    assert parse_yaml(text, 'x', ParameterError)['own'] == {'a': 1, 'b': 3}
