# SPDX-License-Identifier: MIT
"""Parity of the tracker with the reference implementation, on rendered frames."""

from pathlib import Path

import parity
import pytest

SHIPPED = Path(__file__).parents[1] / 'data' / 'rendered.npz'


def test_rendered_frames_agree_with_the_reference() -> None:
    """Three objects, consolidation and eviction; the output is from a run of the reference."""
    result = parity.compare(SHIPPED)
    assert result.sizes_agree
    assert result.largest <= parity.LARGEST_DIFFERENCE


def test_the_comparison_detects_a_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    with np.load(SHIPPED) as case:
        data = dict(case)
    data['images'], data['store_sizes'] = data['images'][:4], data['store_sizes'][:4]
    data['probabilities'] = data['probabilities'][:2] + np.float16(0.01)
    np.savez(tmp_path / 'off.npz', **data)
    data['probabilities'][1, 0, 0, 0] = np.nan
    np.savez(tmp_path / 'nan.npz', **data)
    for name in ('off', 'nan'):
        assert parity.main([str(tmp_path / f'{name}.npz')]) == 1
        assert 'FAILED' in capsys.readouterr().out
