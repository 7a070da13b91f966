# SPDX-License-Identifier: MIT
"""What `xmem-ros doctor` finds, and what it says to do."""

from __future__ import annotations

import sys

import pytest
import torch

from xmem_ros import doctor
from xmem_ros.cli.main import main
from xmem_ros.doctor import ABSENT, OK, WRONG


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XMEM_ROS_WEIGHTS', str(tmp_path))
    return tmp_path


def states(findings):
    return {finding.subject: finding.state for finding in findings}


def test_this_installation_has_what_a_tracker_needs():
    found = [*doctor._python(), *doctor._packages(), *doctor._torch(), *doctor._bundled()]
    assert set(states(found).values()) == {OK}
    assert {'compact', 'compact-permissive'} <= set(states(found))


def test_a_package_that_is_broken_is_named_with_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, 'yaml', None)
    (finding,) = doctor._packages()
    assert (finding.state, finding.subject) == (WRONG, 'PyYAML')
    assert finding.remedy == 'pip install --upgrade PyYAML'


def test_without_torch_the_rest_is_still_looked_at(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'torch', None)
    found = [*doctor._torch(), *doctor._cuda(), *doctor._bundled(), *doctor._official(), *doctor._optional()]
    assert states(found)['torch'] == WRONG
    assert 'vos_benchmark' in states(found)


def test_a_driver_that_torch_makes_no_use_of_is_wrong_and_no_driver_is_not(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(doctor, '_has_nvidia_driver', lambda: False)
    assert states(doctor._cuda()) == {'CUDA': ABSENT}
    monkeypatch.setattr(doctor, '_has_nvidia_driver', lambda: True)
    (finding,) = doctor._cuda()
    assert finding.state == WRONG
    assert 'sees no GPU' in finding.text or 'without CUDA' in finding.text
    monkeypatch.setattr(torch.version, 'cuda', None)
    (finding,) = doctor._cuda()
    assert 'without CUDA' in finding.text
    assert 'Jetson' in finding.remedy


def test_weights_are_absent_half_fetched_or_damaged(cache):
    assert set(states(doctor._official()).values()) == {ABSENT}
    (cache / 'XMem.pth').write_bytes(b'PK\x03\x04')
    (cache / 'XMem-s2.pth.part').write_bytes(b'PK')
    found = {finding.subject: finding for finding in doctor._official()}
    assert (found['xmem'].state, found['xmem-s2'].state, found['xmem-s012'].state) == (WRONG, WRONG, ABSENT)
    assert str(cache / 'XMem.pth') in found['xmem'].text
    assert 'xmem-ros weights fetch xmem' in found['xmem'].remedy
    assert 'goes on' in found['xmem-s2'].remedy


@pytest.mark.parametrize(
    ('rclpy', 'messages', 'state'),
    [('No module named rclpy', None, ABSENT), (None, 'No module named xmem_ros.msg', WRONG), (None, None, OK)],
)
def test_ros_is_absent_without_our_messages_or_ready(monkeypatch, rclpy, messages, state):
    def answer(program):
        if 'rclpy' in program:
            return rclpy
        return messages if 'TrackedObject' in program else 'kilted'

    monkeypatch.setattr(doctor, '_run_python', answer)
    (finding,) = doctor._ros()
    assert finding.state == state
    if state == WRONG:
        assert 'colcon build' in finding.remedy
        assert 'xmem_ros.msg' in finding.text
    if state == OK:
        assert 'kilted' in finding.text


def test_what_an_optional_package_is_for_is_said_where_it_is_absent(monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'vos_benchmark' else find(name))
    found = {finding.subject: finding for finding in doctor._optional()}
    assert found['vos_benchmark'].state == ABSENT
    assert found['vos_benchmark'].remedy == "pip install 'xmem_ros[evaluation]'"


def test_the_command_exits_with_2_where_something_is_wrong_and_0_where_something_is_only_absent(monkeypatch, capsys):
    absent = doctor.Finding(ABSENT, 'CUDA', 'no GPU')
    monkeypatch.setattr(doctor, 'examine', lambda: iter([absent]))
    assert main(['doctor']) == 0
    assert 'nothing is wrong' in capsys.readouterr().out
    monkeypatch.setattr(
        doctor, 'examine', lambda: iter([absent, doctor.Finding(WRONG, 'torch', 'gone', 'pip install it')])
    )
    assert main(['doctor']) == 2
    out = capsys.readouterr().out
    assert 'WRONG  torch: gone' in out
    assert '→ pip install it' in out


def test_the_whole_examination_ends_on_this_machine():
    subjects = [finding.subject for finding in doctor.examine()]
    assert subjects[:2] == ['Python', 'torch']
    assert {'ROS 2', 'xmem', 'compact', 'vos_benchmark'} <= set(subjects)
