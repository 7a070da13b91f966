# SPDX-License-Identifier: MIT
"""`xmem-ros doctor`: findings and remedies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from needs import require

from xmem_ros.cli import diagnose
from xmem_ros.cli.diagnose import ABSENT, OK, WRONG
from xmem_ros.cli.main import main


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XMEM_ROS_WEIGHTS', str(tmp_path))
    return tmp_path


def states(findings):
    return {finding.subject: finding.state for finding in findings}


def test_this_installation_meets_the_requirements():
    found = [*diagnose._python(), *diagnose._packages(), *diagnose._torch(), *diagnose._bundled()]
    assert set(states(found).values()) == {OK}
    assert {'compact', 'compact-permissive'} <= set(states(found))


def test_a_broken_package_is_named_with_a_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, 'yaml', None)
    (finding,) = diagnose._packages()
    assert (finding.state, finding.subject) == (WRONG, 'PyYAML')
    assert finding.remedy == 'pip install --upgrade PyYAML'


WITHOUT = """
import json, os, sys
import torch, torchvision  # slow, and the same for all
for module in sys.argv[1:]:
    if not os.fork():  # each without one package, and nothing of ours is imported yet
        sys.modules[module] = None
        from xmem_ros.cli import diagnose
        from xmem_ros.cli.main import make_parser
        make_parser()  # the command line itself needs none of them
        diagnose._run_python = lambda program: 'not looked at'
        print(json.dumps([module, [[found.subject, found.state] for found in diagnose.examine()]]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope='module')
def without():
    """Findings of the checks, by the module that cannot be imported."""
    path = [str(Path(__file__).parents[2]), os.environ.get('PYTHONPATH', '')]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(path), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [sys.executable, '-c', WITHOUT, *diagnose.REQUIRED],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = (line for line in done.stdout.splitlines() if line.startswith('['))  # packages print, too
    return {module: dict(found) for module, found in map(json.loads, lines)}


@pytest.mark.parametrize('module', diagnose.REQUIRED)
def test_a_missing_package_is_named_and_the_other_checks_run(without, module):
    found = without[module]
    assert found[diagnose.REQUIRED[module]] == WRONG
    assert 'tensorboard' in found  # the last thing that is looked at


def test_a_check_that_raises_is_reported_as_wrong(monkeypatch):
    def broken():
        raise ImportError('libcudart.so: no such file')
        yield

    monkeypatch.setattr(diagnose, '_bundled', broken)
    monkeypatch.setattr(diagnose, '_run_python', lambda _: None)
    found = {finding.subject: finding for finding in diagnose.examine()}
    assert found['bundled weights'].state == WRONG
    assert 'libcudart.so' in found['bundled weights'].text


def test_weights_in_a_read_only_folder_are_ok(cache, monkeypatch):
    monkeypatch.setattr('xmem_ros.weights.fetch.load_network', lambda _: None)
    (cache / 'XMem.pth').write_bytes(b'')
    assert states(diagnose._official())['xmem'] == OK
    assert [path.name for path in cache.iterdir()] == ['XMem.pth']  # nothing is written by looking


def test_the_other_checks_run_without_torch(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'torch', None)
    found = [*diagnose._torch(), *diagnose._cuda(), *diagnose._bundled(), *diagnose._official(), *diagnose._optional()]
    assert states(found)['torch'] == WRONG
    assert 'vos_benchmark' in states(found)


def test_a_driver_without_cuda_in_torch_is_wrong_and_a_missing_driver_is_not(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(diagnose, '_has_nvidia_driver', lambda: False)
    assert states(diagnose._cuda()) == {'CUDA': ABSENT}
    monkeypatch.setattr(diagnose, '_has_nvidia_driver', lambda: True)
    (finding,) = diagnose._cuda()
    assert finding.state == WRONG
    assert 'finds no GPU' in finding.text or 'without CUDA' in finding.text
    monkeypatch.setattr(torch.version, 'cuda', None)
    (finding,) = diagnose._cuda()
    assert 'without CUDA' in finding.text
    assert 'Jetson' in finding.remedy


def test_missing_partial_and_damaged_weights_are_distinguished(cache):
    assert set(states(diagnose._official()).values()) == {ABSENT}
    (cache / 'XMem.pth').write_bytes(b'PK\x03\x04')
    (cache / 'XMem-s2.pth.part').write_bytes(b'PK')
    found = {finding.subject: finding for finding in diagnose._official()}
    assert (found['xmem'].state, found['xmem-s2'].state, found['xmem-s012'].state) == (WRONG, WRONG, ABSENT)
    assert str(cache / 'XMem.pth') in found['xmem'].text
    assert 'xmem-ros weights fetch xmem' in found['xmem'].remedy
    assert 'completes it' in found['xmem-s2'].remedy


@pytest.mark.parametrize(
    ('rclpy', 'messages', 'state'),
    [('No module named rclpy', None, ABSENT), (None, 'No module named xmem_ros.msg', WRONG), (None, None, OK)],
)
def test_missing_ros_and_missing_messages_are_distinguished(monkeypatch, rclpy, messages, state):
    def answer(program):
        if 'rclpy' in program:
            return rclpy
        return messages if 'TrackedObject' in program else 'kilted'

    monkeypatch.setattr(diagnose, '_run_python', answer)
    (finding,) = diagnose._ros()
    assert finding.state == state
    if state == WRONG:
        assert 'colcon build' in finding.remedy
        assert 'xmem_ros.msg' in finding.text
    if state == OK:
        assert 'kilted' in finding.text


def test_a_missing_optional_package_is_reported_with_its_purpose(monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'vos_benchmark' else find(name))
    found = {finding.subject: finding for finding in diagnose._optional()}
    assert found['vos_benchmark'].state == ABSENT
    assert found['vos_benchmark'].remedy == 'pip install vos-benchmark'
    # ours is not on PyPI, where anybody could take its name
    assert not [package for _, package in diagnose.OPTIONAL.values() if 'xmem' in package]


@pytest.mark.parametrize(
    ('offered', 'state', 'text'),
    [
        (['TensorrtExecutionProvider', 'CUDAExecutionProvider', 'CPUExecutionProvider'], OK, 'on Tensorrt and CUDA'),
        (['AzureExecutionProvider', 'CPUExecutionProvider'], ABSENT, 'supports only the CPU, although a GPU '),
    ],
)
def test_an_onnxruntime_without_gpu_support_is_reported(monkeypatch, offered, state, text):
    onnxruntime = pytest.importorskip('onnxruntime')
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: offered)
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    found = {finding.subject: finding for finding in diagnose._onnx()}['engine onnxruntime']
    assert (found.state, found.text[: len(text)]) == (state, text)
    assert ('onnxruntime-gpu' in found.remedy) == (state == ABSENT)


def test_a_torch_that_cannot_export_is_reported(monkeypatch):
    require('onnxscript')
    monkeypatch.setattr('torch.__version__', '2.4.1')
    found = {finding.subject: finding for finding in diagnose._onnx()}['xmem-ros export']
    assert found.state == ABSENT
    assert 'needs torch 2.5 or newer' in found.text


def test_the_exit_code_is_2_for_a_fault_and_0_for_a_missing_optional_part(monkeypatch, capsys):
    absent = diagnose.Finding(ABSENT, 'CUDA', 'no GPU')
    monkeypatch.setattr(diagnose, 'examine', lambda _: iter([absent]))
    assert main(['doctor']) == 0
    assert 'nothing is wrong' in capsys.readouterr().out
    monkeypatch.setattr(
        diagnose, 'examine', lambda _: iter([absent, diagnose.Finding(WRONG, 'torch', 'gone', 'pip install it')])
    )
    assert main(['doctor']) == 2
    out = capsys.readouterr().out
    assert 'WRONG  torch: gone' in out
    assert '→ pip install it' in out


def test_all_checks_run_on_this_machine():
    subjects = [finding.subject for finding in diagnose.examine()]
    assert subjects[:2] == ['Python', 'torch']
    assert {'ROS 2', 'xmem', 'compact', 'vos_benchmark'} <= set(subjects)
