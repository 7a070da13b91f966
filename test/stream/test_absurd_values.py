# SPDX-License-Identifier: MIT
"""Absurd numbers give typed errors, and never a location that is not finite."""

import numpy as np
import pytest

from xmem_ros.errors import ParameterError, SeedError
from xmem_ros.parameters.table import Parameters, changed
from xmem_ros.seeding.checks import MOST_POINTS, check_points
from xmem_ros.stream.depth import Camera, locate


@pytest.mark.parametrize('value', ['9' * 5000 + 'x1', '99999999x480', '480x', 'x' * 100_000])
def test_an_absurd_prepare_size_is_refused_briefly(value: str) -> None:
    with pytest.raises(ParameterError, match='prepare is') as raised:
        changed(Parameters(), {'prepare': value})
    assert len(str(raised.value)) < 500


def test_more_points_than_the_limit_are_refused() -> None:
    with pytest.raises(SeedError, match='give at most 1000, or a mask'):
        check_points(np.ones((MOST_POINTS + 1, 2)), np.ones(MOST_POINTS + 1), (48, 64))


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize(('depth', 'focal'), [(3e38, 500.0), (1.0, 1e-320), (3e38, 1e-300)])
def test_a_location_is_finite_or_none(depth: float, focal: float) -> None:
    image, labels = np.full((48, 64), depth, np.float32), np.ones((48, 64), np.uint8)
    place = locate(image, labels, 1, (0, 0, 64, 48), Camera(focal, focal, 32.0, 24.0, (48, 64)))
    assert place is None or np.isfinite([place.position, place.centre, place.size]).all()
