# SPDX-License-Identifier: MIT
"""Written videos of any rate, and malicious pictures and videos."""

import io
import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from xmem_ros.conversions.compressed_images import rgb_from_compressed
from xmem_ros.errors import FrameError, SeedError
from xmem_ros.evaluation.datasets.sequence import image_size
from xmem_ros.media import natural_order, read_image, read_mask
from xmem_ros.recordings.recording import open_recording
from xmem_ros.training.footage import FootageError, read_stills
from xmem_ros.video.clip import Clip
from xmem_ros.video.writer import VideoWriter


@pytest.mark.parametrize('rate', [0.1, 7.123, 30_000 / 1001, 65.536, 90.123, 240_000 / 1001, 333.333, 999.0])
def test_a_written_video_has_the_given_rate_and_frames(tmp_path, rate):
    with VideoWriter(tmp_path / 'film.mp4', rate) as video:
        for value in range(3):
            video.write(np.full((48, 64, 3), 80 * value, np.uint8))
    clip = Clip(tmp_path / 'film.mp4')
    assert clip.rate == pytest.approx(rate, rel=1e-3)
    assert [round(frame.mean() / 80) for _, frame in clip] == [0, 1, 2]


def test_a_playlist_is_refused_as_a_video(tmp_path):
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


def test_a_picture_format_that_needs_another_program_is_refused(tmp_path):
    """Pillow detects formats by content, and starts Ghostscript for PostScript."""
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
    """Each takes a few bytes of the file, and a pass over all pixels."""
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


def test_a_picture_above_the_pixel_limit_is_not_decoded(tmp_path):
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


def test_frames_after_a_damaged_frame_of_a_video_are_read(tmp_path):
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


def numbered(folder, names, value):
    folder.mkdir()
    for index, name in enumerate(names):
        Image.fromarray(value(index)).save(folder / name)


def test_frames_are_read_in_the_order_of_their_numbers(tmp_path):
    names = [f'frame_{index}.png' for index in range(1, 13)]
    numbered(tmp_path / 'in', names, lambda index: np.full((48, 64, 3), index * 10, np.uint8))
    clip = Clip(tmp_path / 'in')
    assert [int(pixels[0, 0, 0]) for _, pixels in clip] == list(range(0, 120, 10))
    assert clip.notes == [
        f'{tmp_path / "in"}: the numbers in the names give the order, not their characters: frame_1.png, frame_2.png, '
        'frame_3.png, … (12 in all)'
    ]
    numbered(tmp_path / 'same', [f'{index:05d}.png' for index in range(3)], lambda _: np.zeros((48, 64, 3), np.uint8))
    assert not Clip(tmp_path / 'same').notes


def test_numbers_of_any_length_are_ordered():
    long = '9' * 5000
    names = ['a', 'a1', 'a01', 'a2b', 'a2b10', f'a{long}', f'a1{long}', '7', '10', '٣']
    assert sorted(names, key=natural_order)[:2] == ['7', '10']
    assert [name for name in sorted(names, key=natural_order) if name.startswith('a1')] == ['a1', f'a1{long}']


DEEP = np.linspace(1000, 5000, 48 * 64).reshape(48, 64)


@pytest.mark.parametrize(
    ('name', 'pixels'),
    [
        ('grey.png', DEEP.astype(np.uint16)),
        ('grey.tiff', DEEP.astype(np.uint16)),
        ('float.tiff', DEEP.astype(np.float32)),
        ('colour.png', np.repeat(DEEP[..., None], 3, 2).astype(np.uint16)),
        ('colour.tiff', np.repeat(DEEP[..., None], 3, 2).astype(np.uint16)),
    ],
)
def test_images_of_more_than_8_bits_keep_the_range_of_the_first_one(tmp_path, name, pixels):
    folder = tmp_path / 'in'
    folder.mkdir()
    for index in range(2):
        assert cv2.imwrite(str(folder / f'{index}_{name}'), pixels + np.array(index * 400, pixels.dtype))
    (_, first), (_, second) = list(Clip(folder))
    assert (first.shape, first.dtype) == ((48, 64, 3), np.uint8)
    assert (first.min(), first.max()) == (0, 255)
    assert (first[..., 0] == first[..., 2]).all()
    shift = (second.astype(int) - first)[10:30].mean()
    assert 24 < shift < 27  # 400 of 4 000 values, of 255
    assert (read_image(folder / f'1_{name}', folder / f'0_{name}') == second).all()
    whole = (folder / f'0_{name}').read_bytes()
    (tmp_path / 'damaged.png').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FrameError, match='damaged.png: not a readable image'):
        read_image(tmp_path / 'damaged.png')
