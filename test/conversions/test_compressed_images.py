# SPDX-License-Identifier: MIT
"""Conversion of compressed images, without ROS."""

import array
import io
import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage

from xmem_ros.conversions.compressed_images import compressed_from_array, rgb_from_compressed, rgb_of
from xmem_ros.conversions.images import image_from_array
from xmem_ros.demo.scene import RenderedScene
from xmem_ros.errors import FrameError

FRAME, LABELS = RenderedScene((120, 160), 2, 2, seed=0)[0]


def message(data, said='rgb8; jpeg compressed bgr8'):
    return SimpleNamespace(header=None, format=said, data=array.array('B', data))


def written(pixels, kind, **options):
    """Encode an image with Pillow, which shares no code with OpenCV."""
    file = io.BytesIO()
    PillowImage.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def make():
    return SimpleNamespace()


def test_png_is_lossless_and_jpeg_decodes_as_in_pillow():
    assert np.array_equal(rgb_from_compressed(message(written(FRAME, 'PNG'), 'png')), FRAME)
    jpeg = written(FRAME, 'JPEG')
    theirs = np.asarray(PillowImage.open(io.BytesIO(jpeg))).astype(int)
    assert np.abs(rgb_from_compressed(message(jpeg, 'jpeg')) - theirs).mean() < 1


def test_grey_and_16_bit_images_are_read():
    grey = FRAME[..., 0].copy()
    assert np.array_equal(rgb_from_compressed(message(written(grey, 'PNG'))), np.repeat(grey[..., None], 3, 2))
    done, deep = cv2.imencode('.png', FRAME[..., ::-1].astype(np.uint16) * 257)
    assert done
    assert np.abs(rgb_from_compressed(message(deep.tobytes())).astype(int) - FRAME).max() <= 1


def test_the_exif_orientation_is_not_applied():
    exif = PillowImage.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees
    assert rgb_from_compressed(message(written(FRAME, 'JPEG', exif=exif.tobytes()))).shape == FRAME.shape


def test_a_compressed_bayer_mosaic_is_converted_to_rgb():
    colour = np.zeros((32, 32, 3), np.uint8)
    colour[:] = (200, 120, 40)
    mosaic = np.empty((32, 32), np.uint8)
    mosaic[::2, ::2], mosaic[1::2, 1::2] = 200, 40
    mosaic[::2, 1::2] = mosaic[1::2, ::2] = 120
    pixels = rgb_from_compressed(message(written(mosaic, 'PNG'), 'bayer_rggb8; png compressed '))
    assert np.abs(pixels[4:-4, 4:-4].astype(int) - colour[4:-4, 4:-4]).max() <= 1
    # an image debayered before compression is in colour already
    coloured = rgb_from_compressed(message(written(colour, 'PNG'), 'bayer_rggb8; png compressed bgr8'))
    assert np.array_equal(coloured, colour)
    with pytest.raises(FrameError, match="'bayer_xxxx8' cannot be read"):
        rgb_from_compressed(message(written(mosaic, 'PNG'), 'bayer_xxxx8; png compressed '))
    with pytest.raises(FrameError, match='31×32: in bayer_rggb8 both must be even'):
        rgb_from_compressed(message(written(mosaic[:, 1:].copy(), 'PNG'), 'bayer_rggb8; png compressed '))


@pytest.mark.parametrize('pixels', [FRAME, LABELS], ids=['rgb', 'labels'])
def test_written_images_are_readable_by_pillow(pixels):
    sent = compressed_from_array(pixels, 'png', make)
    assert np.array_equal(np.asarray(PillowImage.open(io.BytesIO(bytes(sent.data)))), pixels)
    assert sent.format.split(';')[1].startswith(' png compressed ')
    sizes = [len(compressed_from_array(FRAME, 'jpeg', make, quality).data) for quality in (95, 50)]
    assert sizes[0] > sizes[1] > 0


def test_raw_and_compressed_messages_give_pixels():
    assert np.array_equal(rgb_of(image_from_array(FRAME, 'rgb8', make)), FRAME)
    assert np.array_equal(rgb_of(message(written(FRAME, 'PNG'))), FRAME)


def huge_png():
    """A PNG of a few bytes that declares 60 000×60 000 px."""

    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    head = struct.pack('>IIBBBBB', 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(b'\0' * 100)) + chunk(b'IEND', b'')
    )


def large_png():
    """An image above our limit and below Pillow's."""
    return written(np.zeros((8001, 8001), np.uint8), 'PNG')


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        (b'', 'it has no data'),
        (b'nothing of the kind', 'or not JPEG or PNG'),
        (written(FRAME, 'BMP'), 'or not JPEG or PNG'),
        (written(FRAME, 'PNG')[:20], 'damaged, cut off'),
        (written(FRAME, 'PNG')[:33] + b'\0' * 50, 'damaged, cut off'),
        (written(FRAME, 'JPEG')[:200], 'cannot be'),
        (huge_png(), 'cannot be read|at most'),
        (large_png(), '8001×8001; at most 64000000 pixels are decoded'),
    ],
    ids=['empty', 'text', 'bmp', 'head', 'zeros', 'half', 'claims', 'large'],
)
def test_an_unreadable_image_is_refused_with_the_reason(data, reason):
    with pytest.raises(FrameError, match=reason):
        rgb_from_compressed(message(data))


def test_random_damage_gives_an_error_or_an_image():
    chance = np.random.default_rng(0)
    whole = {kind: np.frombuffer(written(FRAME, kind), np.uint8) for kind in ('PNG', 'JPEG')}
    refused = 0
    for number in range(400):
        data = whole['PNG' if number % 2 else 'JPEG'].copy()
        data[chance.integers(0, len(data), 8)] = chance.integers(0, 256, 8)
        try:
            assert rgb_from_compressed(message(data[: chance.integers(1, len(data))].tobytes())).ndim == 3
        except FrameError:
            refused += 1
    assert 0 < refused < 400
