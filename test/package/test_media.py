# SPDX-License-Identifier: MIT
"""Videos that are written, whatever the camera's rate."""

import numpy as np
import pytest

from xmem_ros.media import Clip, VideoWriter


@pytest.mark.parametrize('rate', [0.1, 7.123, 30_000 / 1001, 65.536, 90.123, 240_000 / 1001, 333.333, 999.0])
def test_a_video_has_the_rate_and_the_frames_that_it_was_given(tmp_path, rate):
    with VideoWriter(tmp_path / 'film.mp4', rate) as video:
        for value in range(3):
            video.write(np.full((48, 64, 3), 80 * value, np.uint8))
    clip = Clip(tmp_path / 'film.mp4')
    assert clip.rate == pytest.approx(rate, rel=1e-3)
    assert [round(frame.mean() / 80) for _, frame in clip] == [0, 1, 2]
