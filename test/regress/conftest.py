# SPDX-License-Identifier: MIT
"""A short bag with reference masks."""

from __future__ import annotations

import pytest


@pytest.fixture
def short(tmp_path):
    """A folder with a bag `scene` of few frames, in which no object leaves the image."""
    from bag_suite import write_scene
    from regress_runs import SHORT

    write_scene(tmp_path / 'scene', frames=SHORT)
    return tmp_path
