# SPDX-License-Identifier: MIT
"""cv_bridge converts where it works, with the pixels of our own conversion; else ours does."""

from __future__ import annotations

import array
import logging
import os
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from xmem_ros.conversions import ros_cv_bridge
from xmem_ros.conversions.images import rgb_from_image

HEIGHT, WIDTH = 24, 32
CHANNELS = {'mono8': 1, 'bgr8': 3, 'rgb8': 3, 'rgba8': 4, 'bgra8': 4, 'yuv422': 2, 'yuv422_yuy2': 2}


@pytest.fixture(autouse=True)
def untried(monkeypatch):
    """A process in which cv_bridge was not tried yet."""
    monkeypatch.setattr(ros_cv_bridge, '_bridge', None)
    monkeypatch.setattr(ros_cv_bridge, '_tried', False)
    monkeypatch.setattr(ros_cv_bridge, '_refused', set())


def message(encoding: str, padding: int = 0):
    step = WIDTH * CHANNELS.get(encoding, 1) + padding
    data = np.random.default_rng(0).integers(0, 256, HEIGHT * step, np.uint8)
    return SimpleNamespace(
        height=HEIGHT, width=WIDTH, encoding=encoding, step=step, is_bigendian=0, data=array.array('B', data.tobytes())
    )


@pytest.fixture
def bridge():
    pytest.importorskip('cv_bridge', reason='cv_bridge is not installed: source a ROS 2 that has it')
    assert ros_cv_bridge.use_where_possible()
    return ros_cv_bridge._bridge


@pytest.mark.parametrize('encoding', sorted(ros_cv_bridge.ENCODINGS))
@pytest.mark.parametrize('padding', [0, 1, 12])
def test_cv_bridge_and_ours_give_equal_pixels(bridge, monkeypatch, encoding, padding):
    given = message(encoding, padding)
    calls = []
    convert = bridge.imgmsg_to_cv2
    monkeypatch.setattr(bridge, 'imgmsg_to_cv2', lambda *args: calls.append(args) or convert(*args))
    theirs = rgb_from_image(given)
    assert len(calls) == (given.step % CHANNELS.get(encoding, 1) == 0)  # otherwise it would misread the rows
    assert not ros_cv_bridge._refused
    monkeypatch.setattr(ros_cv_bridge, '_bridge', None)
    assert np.array_equal(theirs, rgb_from_image(given))


@pytest.mark.parametrize('encoding', ['rgb8', '8UC3', 'mono16', 'nv12'])
def test_ours_converts_what_cv_bridge_does_not(bridge, monkeypatch, encoding):
    monkeypatch.setattr(bridge, 'imgmsg_to_cv2', lambda *_: pytest.fail('cv_bridge was asked'))
    rows = HEIGHT * 3 // 2 if encoding == 'nv12' else HEIGHT
    step = WIDTH * {'mono16': 2, 'nv12': 1}.get(encoding, 3)
    given = SimpleNamespace(
        height=HEIGHT,
        width=WIDTH,
        encoding=encoding,
        step=step,
        is_bigendian=0,
        data=array.array('B', bytes(rows * step)),
    )
    assert rgb_from_image(given).shape == (HEIGHT, WIDTH, 3)


def test_an_encoding_that_an_older_cv_bridge_does_not_know_is_ours_from_then_on(monkeypatch, caplog):
    class Old:
        calls = 0

        def imgmsg_to_cv2(self, *_):
            Old.calls += 1
            raise TypeError('Unrecognized image encoding [yuv422_yuy2]')

    monkeypatch.setattr(ros_cv_bridge, '_bridge', Old())
    for _ in range(2):
        assert rgb_from_image(message('yuv422_yuy2')).shape == (HEIGHT, WIDTH, 3)
    assert Old.calls == 1
    assert 'cv_bridge does not convert yuv422_yuy2' in caplog.text


@pytest.mark.parametrize(
    ('module', 'says'),
    [
        ("raise ImportError('numpy.core.multiarray failed to import')", 'numpy.core.multiarray failed to import'),
        ("raise AttributeError('_ARRAY_API not found')", '_ARRAY_API not found'),
        ('import os, signal; os.kill(os.getpid(), signal.SIGSEGV)', 'it ends the process by signal 11'),
        ('import sys; sys.exit(3)', 'exit code 3'),
        (
            'class CvBridge:\n    def imgmsg_to_cv2(self, *_):\n        raise RuntimeError("module compiled")',
            'compiled',
        ),
    ],
)
def test_a_cv_bridge_that_does_not_work_is_named_in_the_log_and_ends_nothing(
    module, says, tmp_path, monkeypatch, caplog
):
    (tmp_path / 'cv_bridge.py').write_text(module + '\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')]))
    with caplog.at_level(logging.WARNING):
        assert not ros_cv_bridge.use_where_possible()
        assert not ros_cv_bridge.use_where_possible()
    assert caplog.text.count('cv_bridge is installed, but does not work') == 1
    assert says in caplog.text
    assert rgb_from_image(message('bgr8')).shape == (HEIGHT, WIDTH, 3)


def test_without_cv_bridge_nothing_is_tried_or_said(monkeypatch, caplog):
    monkeypatch.setattr(ros_cv_bridge.importlib.util, 'find_spec', lambda _: None)
    monkeypatch.setattr(subprocess, 'run', lambda *_, **__: pytest.fail('a process was started'))
    assert not ros_cv_bridge.use_where_possible()
    assert not caplog.text
