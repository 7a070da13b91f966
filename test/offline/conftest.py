# SPDX-License-Identifier: MIT
"""Fixtures of offline tracking: a small bag, and a record of its tracked images."""

from __future__ import annotations

import pytest


@pytest.fixture(scope='session')
def frames():
    """Ten frames of the rendered scene with their labels."""
    from bag_files import scene

    return scene(10)


@pytest.fixture
def bag(frames, tmp_path):
    """Bag of ten images, with mask.png of the first image beside it."""
    from bag_files import image_items, write_bag
    from scene_files import save_mask

    save_mask(tmp_path / 'mask.png', frames[0][1])
    return write_bag(tmp_path / 'bag', image_items(frames))


@pytest.fixture
def stepped(monkeypatch):
    """Indexes of the images tracked from now on."""
    from xmem_ros.offline.tracking import OfflineTracker

    found = []
    step = OfflineTracker.step
    monkeypatch.setattr(OfflineTracker, 'step', lambda self, frame: found.append(frame.index) or step(self, frame))
    return found


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    """Use the same number of threads in started processes, because results depend on it."""
    import torch

    monkeypatch.setenv('OMP_NUM_THREADS', str(torch.get_num_threads()))
