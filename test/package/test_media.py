# SPDX-License-Identifier: MIT
"""Videos that are written, whatever the camera's rate, and pictures that are made to do harm."""

import io
import struct
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from xmem_ros.conversions.compressed_images import rgb_from_compressed
from xmem_ros.errors import FrameError, SeedError
from xmem_ros.evaluation.datasets.sequence import image_size
from xmem_ros.media import Clip, read_image, read_mask
from xmem_ros.recordings.recording import open_recording
from xmem_ros.training.footage import FootageError, read_stills
from xmem_ros.video_writer import VideoWriter


@pytest.mark.parametrize('rate', [0.1, 7.123, 30_000 / 1001, 65.536, 90.123, 240_000 / 1001, 333.333, 999.0])
def test_a_video_has_the_rate_and_the_frames_that_it_was_given(tmp_path, rate):
    with VideoWriter(tmp_path / 'film.mp4', rate) as video:
        for value in range(3):
            video.write(np.full((48, 64, 3), 80 * value, np.uint8))
    clip = Clip(tmp_path / 'film.mp4')
    assert clip.rate == pytest.approx(rate, rel=1e-3)
    assert [round(frame.mean() / 80) for _, frame in clip] == [0, 1, 2]


def test_a_playlist_is_no_video(tmp_path):
    """FFmpeg would open videos of other folders, and take a name for a pattern."""
    with VideoWriter(tmp_path / 'film.mp4', 10) as video:
        video.write(np.full((48, 64, 3), 80, np.uint8))
    Image.new('RGB', (64, 48)).save(tmp_path / 'v_00.png')
    playlist = tmp_path / 'in' / 'list.m3u8'
    playlist.parent.mkdir()
    playlist.write_text(f'#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/film.mp4\n#EXT-X-ENDLIST\n')
    pattern = tmp_path / 'v_%02d.png'
    pattern.touch()
    for path in (playlist, pattern):
        with pytest.raises(FrameError, match='not a video that can be read'):
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


def write_avi(path, frames, *, announced):
    """Write an AVI of JPEGs of 64×48 px, with a number of frames in its header."""

    def part(name, content):
        return name + struct.pack('<I', len(content)) + content + b'\0' * (len(content) % 2)

    def group(name, *parts):
        return part(b'LIST', name + b''.join(parts))

    whole = part(b'avih', struct.pack('<14I', 33_333, 0, 0, 0, announced, 0, 1, 0, 64, 48, 0, 0, 0, 0))
    stream = b'vidsMJPG' + struct.pack('<IHH8I4H', 0, 0, 0, 0, 1, 30, 0, announced, 0, 2**32 - 1, 0, 0, 0, 64, 48)
    picture = struct.pack('<IiiHH4sIiiII', 40, 64, 48, 1, 24, b'MJPG', 64 * 48 * 3, 0, 0, 0, 0)
    head = group(b'hdrl', whole, group(b'strl', part(b'strh', stream), part(b'strf', picture)))
    content = group(b'movi', *(part(b'00dc', frame) for frame in frames))
    path.write_bytes(part(b'RIFF', b'AVI ' + head + content))
    return path


def test_frames_behind_a_damaged_one_of_a_video_are_read(tmp_path):
    file = io.BytesIO()
    Image.fromarray(np.full((48, 64, 3), 80, np.uint8)).save(file, 'JPEG')
    good, bad = file.getvalue(), b'no JPEG' * 20
    clip = open_recording(write_avi(tmp_path / 'a.avi', [good, good, bad, bad, good, good], announced=6))
    assert [(frame.index, frame.name) for frame in clip.frames()] == [
        (0, '00000'),
        (1, '00001'),
        (4, '00004'),
        (5, '00005'),
    ]
    assert [fault.index for fault in clip.faults] == [2, 3]
    assert clip.damage == f'{tmp_path}/a.avi: 4 of 6 frames could be read'
    clip = open_recording(write_avi(tmp_path / 'b.avi', [good] * 4, announced=9))
    assert len(list(clip.frames())) == 4
    assert [fault.index for fault in clip.faults] == [4, 5, 6, 7, 8], 'which only the header has'
    assert clip.damage == f'{tmp_path}/b.avi: 4 of 9 frames could be read'
