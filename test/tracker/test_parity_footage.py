# SPDX-License-Identifier: MIT
"""Parity of the tracker with the reference implementation, on real frames."""

from pathlib import Path

import parity
import pytest

BESIDE = Path(__file__).parents[3] / 'shared' / 'parity'


# in pairs of one seed, so that the network is made once for both
@pytest.mark.skipif(not BESIDE.is_dir(), reason='the cases on real frames are not beside the checkout')
@pytest.mark.parametrize('case', ['working_only', 'defaults', 'consolidation', 'eviction'])
def test_real_frames_agree_with_the_reference(case: str) -> None:
    result = parity.compare(BESIDE / f'{case}.npz')
    assert result.sizes_agree
    assert result.largest <= parity.LARGEST_DIFFERENCE
