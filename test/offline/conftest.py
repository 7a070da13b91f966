# SPDX-License-Identifier: MIT
"""A small bag to track, and which of its images were tracked."""

from __future__ import annotations

import pytest


@pytest.fixture(scope='session')
def frames():
    """Ten frames of the rendered scene, with their labels."""
    from bag_files import scene

    return scene(10)


@pytest.fixture
def bag(frames, tmp_path):
    """Ten images, and a mask of the first one beside them."""
    from bag_files import image_items, write_bag
    from scene_files import save_mask

    save_mask(tmp_path / 'mask.png', frames[0][1])
    return write_bag(tmp_path / 'bag', image_items(frames))


@pytest.fixture
def stepped(monkeypatch):
    """Indexes of the images that are tracked from here on."""
    from xmem_ros.offline.tracking import OfflineTracker

    found = []
    step = OfflineTracker.step
    monkeypatch.setattr(OfflineTracker, 'step', lambda self, frame: found.append(frame.index) or step(self, frame))
    return found


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    """As many in the processes that are started as in this one, since a run says that it depends on them."""
    import torch

    monkeypatch.setenv('OMP_NUM_THREADS', str(torch.get_num_threads()))
