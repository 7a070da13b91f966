# SPDX-License-Identifier: MIT
"""Parity of the tracker with the reference implementation, on real frames."""

from pathlib import Path

import parity
import pytest

BESIDE = Path(__file__).parents[3] / 'shared' / 'parity'


# In pairs of one seed, so that the network is made once for both. The last two cases end with
# frames that read what the second consolidation and the second eviction left; `defaults` ends with
# the second frame in memory. `python test/parity.py` compares all frames.
@pytest.mark.skipif(not BESIDE.is_dir(), reason='the cases on real frames are not beside the checkout')
@pytest.mark.parametrize(
    ('case', 'frames'), [('working_only', 21), ('defaults', 6), ('consolidation', 31), ('eviction', 29)]
)
def test_real_frames_agree_with_the_reference(case: str, frames: int) -> None:
    result = parity.compare(BESIDE / f'{case}.npz', frames=frames)
    assert result.frames == frames
    assert result.sizes_agree
    assert result.largest <= parity.LARGEST_DIFFERENCE
