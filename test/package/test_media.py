# SPDX-License-Identifier: MIT
"""Videos that are written, whatever the camera's rate, and pictures that are made to do harm."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from xmem_ros.conversions.compressed_images import rgb_from_compressed
from xmem_ros.errors import FrameError, SeedError
from xmem_ros.evaluation.datasets.sequence import image_size
from xmem_ros.media import Clip, VideoWriter, read_image, read_mask
from xmem_ros.training.footage import FootageError, read_stills


@pytest.mark.parametrize('rate', [0.1, 7.123, 30_000 / 1001, 65.536, 90.123, 240_000 / 1001, 333.333, 999.0])
def test_a_video_has_the_rate_and_the_frames_that_it_was_given(tmp_path, rate):
    with VideoWriter(tmp_path / 'film.mp4', rate) as video:
        for value in range(3):
            video.write(np.full((48, 64, 3), 80 * value, np.uint8))
    clip = Clip(tmp_path / 'film.mp4')
    assert clip.rate == pytest.approx(rate, rel=1e-3)
    assert [round(frame.mean() / 80) for _, frame in clip] == [0, 1, 2]


def test_a_playlist_is_no_video(tmp_path):
    """FFmpeg would open videos of other folders; OpenCV treats a name pattern as a video."""
    with VideoWriter(tmp_path / 'film.mp4', 10) as video:
        video.write(np.full((48, 64, 3), 80, np.uint8))
    Image.new('RGB', (64, 48)).save(tmp_path / 'v_00.png')
    playlist = tmp_path / 'in' / 'list.m3u8'
    playlist.parent.mkdir()
    playlist.write_text(f'#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/film.mp4\n#EXT-X-ENDLIST\n')
    pattern = tmp_path / 'v_%02d.png'
    pattern.touch()
    for path in (playlist, pattern):
        with pytest.raises(FrameError, match='OpenCV cannot open this video'):
            Clip(path)


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 64 64
%%EndComments
showpage
%%EOF
"""


def test_a_picture_that_another_program_would_have_to_draw_is_none(tmp_path):
    """Pillow tells formats by content, and starts Ghostscript for PostScript."""
    path = tmp_path / '00000.png'
    path.write_bytes(EPS)
    for read, error in ((read_image, FrameError), (read_mask, SeedError), (image_size, FrameError)):
        with pytest.raises(error, match='cannot identify image file'):
            read(path)


def jpeg_of(scans):
    """Return a progressive JPEG, H×W 48×64, with further scans that refine nothing."""
    file = io.BytesIO()
    thumbnails = b'Exif\0\0\xff\xda' * 200
    Image.fromarray(np.full((48, 64), 80, np.uint8)).save(file, 'JPEG', progressive=True, exif=thumbnails)
    again = b'\xff\xda\0\x08\x01\x01\0\0\0\x10\0'
    return file.getvalue()[:-2] + again * scans + b'\xff\xd9'


def test_a_jpeg_of_thousands_of_scans_is_not_decoded(tmp_path):
    """Each takes some bytes in the file, and a pass over all pixels."""
    path = tmp_path / '00000.jpg'
    path.write_bytes(jpeg_of(0) + b'\xff\xda' * 200)  # a film follows the picture, as of a telephone
    assert read_image(path).shape == (48, 64, 3)
    path.write_bytes(jpeg_of(50))
    assert read_image(path).shape == (48, 64, 3)
    path.write_bytes(jpeg_of(5000))
    for read, error in ((read_image, FrameError), (read_mask, SeedError), (image_size, FrameError)):
        with pytest.raises(error, match='more than 100 scans'):
            read(path)
    message = SimpleNamespace(format='jpeg', data=np.frombuffer(jpeg_of(5000), np.uint8))
    with pytest.raises(FrameError, match='more than 100 scans'):
        rgb_from_compressed(message)


def test_a_picture_of_more_pixels_than_any_cameras_is_not_decoded(tmp_path):
    path = tmp_path / 'large.png'
    Image.fromarray(np.zeros((8001, 8001), np.uint8)).save(path)
    for read, error in ((read_image, FrameError), (read_mask, SeedError), (image_size, FrameError)):
        with pytest.raises(error, match='8001×8001; at most 64000000 pixels'):
            read(path)
    path.rename(tmp_path / 'a.png')
    Image.fromarray(np.zeros((80, 80), np.uint8)).save(tmp_path / 'a.jpg')
    with pytest.raises(FootageError, match='8001×8001; at most 64000000 pixels'):
        read_stills(tmp_path, 64)
