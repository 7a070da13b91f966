# SPDX-License-Identifier: MIT
"""Fixtures of the regression tests."""

import pytest
from bag_suite import SHORT, write_scene


@pytest.fixture
def short(tmp_path):
    """A folder with a bag `scene` of few frames, in which nothing leaves."""
    pytest.importorskip('rosbags', reason='rosbags is not installed: pip install rosbags')
    write_scene(tmp_path / 'scene', frames=SHORT)
    return tmp_path
