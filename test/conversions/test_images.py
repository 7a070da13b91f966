# SPDX-License-Identifier: MIT
"""Image conversion of every encoding, without ROS."""

import array
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from xmem_ros.conversions.images import ENCODINGS, image_from_array, mask_from_image, rgb_from_image
from xmem_ros.errors import FrameError, ParameterError
from xmem_ros.intensity import IntensityScale

HEIGHT, WIDTH = 12, 16
RED, GREEN, BLUE, OCHRE = (210, 40, 60), (30, 190, 80), (50, 60, 220), (200, 200, 90)
BYTES = dict.fromkeys(('rgb8', 'bgr8', '8UC3'), 3) | dict.fromkeys(('rgba8', 'bgra8', '8UC4'), 4)
BYTES |= dict.fromkeys(('rgb16', 'bgr16'), 6) | dict.fromkeys(('rgba16', 'bgra16'), 8)
BYTES |= dict.fromkeys(('yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv', 'mono16', '16UC1'), 2)
TYPES = {'8U': 'u1', '8S': 'i1', '16U': '<u2', '16S': '<i2', '32S': '<i4', '32F': '<f4', '64F': '<f8'}
BYTES |= {f'{kind}C{n}': n * int(TYPES[kind][-1]) for kind in TYPES for n in (1, 3, 4)}
# of sensor_msgs/image_encodings.hpp, and nv12, which drivers send too
LISTED = ['rgb8', 'rgba8', 'rgb16', 'rgba16', 'bgr8', 'bgra8', 'bgr16', 'bgra16', 'mono8', 'mono16']
LISTED += [f'{kind}C{n}' for kind in TYPES for n in (1, 2, 3, 4)]
LISTED += [f'bayer_{pattern}{bits}' for pattern in ('rggb', 'bggr', 'gbrg', 'grbg') for bits in (8, 16)]
LISTED += ['uyvy', 'yuv422', 'yuyv', 'yuv422_yuy2', 'nv21', 'nv24', 'nv12']
BYTES |= {name: 2 for name in ENCODINGS if name.startswith('bayer') and name.endswith('16')}


def message(data, encoding, *, height=HEIGHT, width=WIDTH, step=None, is_bigendian=0):
    """The fields of sensor_msgs/Image that the conversion reads."""
    data = array.array('B', data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes())
    step = width * BYTES.get(encoding, 1) if step is None else step
    return SimpleNamespace(
        height=height, width=width, encoding=encoding, step=step, is_bigendian=is_bigendian, data=data
    )


def colours():
    """Four quarters of one colour each, H×W×3 uint8; subsampling and Bayer patterns keep these."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:6, :8], image[:6, 8:], image[6:, :8], image[6:, 8:] = RED, GREEN, BLUE, OCHRE
    return image


def inside(image):
    """Return the pixels away from the borders of the quarters."""
    return np.concatenate([image[y : y + 2, x : x + 4].reshape(-1, 3) for y in (2, 8) for x in (2, 10)]).astype(int)


def bayer(image, pattern):
    """Build a Bayer mosaic; `pattern` names its first two rows, as sensor_msgs does."""
    channel = {'r': 0, 'g': 1, 'b': 2}
    mosaic = np.zeros(image.shape[:2], np.uint8)
    for i, colour in enumerate(pattern):
        mosaic[i // 2 :: 2, i % 2 :: 2] = image[i // 2 :: 2, i % 2 :: 2, channel[colour]]
    return mosaic


def yuv_planes(image):
    """Convert to full-resolution Y, U, V of BT.601 in studio range, by its formula."""
    red, green, blue = (image[..., i].astype(float) for i in range(3))
    luma = 16 + 0.257 * red + 0.504 * green + 0.098 * blue
    blueness = 128 - 0.148 * red - 0.291 * green + 0.439 * blue
    redness = 128 + 0.439 * red - 0.368 * green - 0.071 * blue
    return [np.round(plane).astype(np.uint8) for plane in (luma, blueness, redness)]


def encode(image, encoding):
    """Encode pixels as a driver does, by the definition of each encoding."""
    if encoding[:2].isdecimal() or (encoding[0] in '68' and 'C' in encoding):
        kind, _, channels = encoding.partition('C')
        sent = np.dtype(TYPES[kind])
        white = 1.0 if sent.kind == 'f' else np.iinfo(sent).max
        eight = encode(image, 'bgr8' if channels == '3' else 'bgra8')
        return np.round(eight / 255 * white).astype(sent) if sent.kind != 'f' else (eight / 255).astype(sent)
    name = encoding
    if name.endswith('16') and not name.startswith('mono'):
        return encode(image, f'{name[:-2]}8').astype('<u2') * 257
    if name.startswith('bayer'):
        return bayer(image, name[6:10])
    if name in ('rgb8', 'bgr8', 'rgba8', 'bgra8'):
        colour = image if name.startswith('rgb') else image[..., ::-1]
        alpha = np.full((HEIGHT, WIDTH, 1), 99, np.uint8)
        return np.concatenate([colour, alpha], 2) if 'a' in name else colour
    luma, blueness, redness = yuv_planes(image)
    if name == 'nv24':
        return np.concatenate([luma, np.stack([blueness, redness], -1).reshape(2 * HEIGHT, WIDTH)])
    if name in ('nv12', 'nv21'):
        pair = (blueness, redness) if name == 'nv12' else (redness, blueness)
        chroma = np.stack([plane[::2, ::2] for plane in pair], -1).reshape(HEIGHT // 2, WIDTH)
        return np.concatenate([luma, chroma])
    chroma = np.empty((HEIGHT, WIDTH), np.uint8)
    chroma[:, ::2], chroma[:, 1::2] = blueness[:, ::2], redness[:, ::2]
    first = name in ('yuv422', 'uyvy')
    return np.stack([chroma, luma] if first else [luma, chroma], -1)


COLOUR = [name for name in ENCODINGS if not name.startswith('mono') and not name.endswith('C1')]


@pytest.mark.parametrize('encoding', COLOUR)
def test_every_colour_encoding_gives_the_colours_that_were_sent(encoding):
    pixels = rgb_from_image(message(encode(colours(), encoding), encoding))
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert pixels.dtype == np.uint8
    worst = np.abs(inside(pixels) - inside(colours())).max()
    yuv = 'yu' in encoding or encoding in ('nv12', 'nv21', 'nv24', 'uyvy')
    # 8-bit YUV rounds three values each way; a signed byte has only 128 values
    assert worst <= (5 if yuv else 2 if '8S' in encoding else 0)


@pytest.mark.parametrize('encoding', ['mono8', '8UC1', 'mono16', '16UC1'])
def test_grey_images_become_grey_rgb(encoding):
    grey = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    sent = grey.astype('<u2') * 257 if encoding in ('mono16', '16UC1') else grey
    assert (rgb_from_image(message(sent, encoding)) == grey[..., None]).all()


@pytest.mark.parametrize('encoding', LISTED)
def test_every_encoding_that_ros_lists_is_read_or_refused_with_the_reason(encoding):
    known = encoding in ENCODINGS
    sent = message(bytes(HEIGHT * WIDTH * 32), encoding)
    if known:
        assert rgb_from_image(sent).shape == (HEIGHT, WIDTH, 3)
    else:
        with pytest.raises(FrameError, match='two channels are no picture'):
            rgb_from_image(sent)


def test_the_range_of_the_first_image_is_kept_for_later_ones():
    scale = IntensityScale('auto')
    thermal = np.linspace(7000, 8500, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    first = rgb_from_image(message(thermal.astype('<u2'), '16UC1'), scale)
    assert first.min() == 0
    assert first.max() == 255
    warmer = rgb_from_image(message((thermal + 150).astype('<u2'), '16UC1'), scale)
    shift = (warmer.astype(int) - first)[4:8].mean()  # rows that are not saturated
    assert 24 < shift < 27  # 150 of the 1 500 values, of 255
    other = rgb_from_image(message(thermal.astype('<f4'), '32FC1'), scale)
    assert np.abs(other.astype(int) - first).max() <= 2  # a new range for another encoding


def test_a_fixed_range_can_be_given_and_a_useless_one_is_noted():
    thermal = np.linspace(7000, 8500, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype('<u2')
    given = rgb_from_image(message(thermal, '16UC1'), IntensityScale('7000,8500'))
    assert (given.min(), given.max()) == (0, 255)
    full = IntensityScale('full')
    assert rgb_from_image(message(thermal, '16UC1'), full).max() < 40
    [(warning, text)] = full.take_notes()
    assert warning
    assert 'less than an eighth' in text
    for wrong in ('8500,7000', '7000', 'best', '1,nan', '1' * 20 + ',2'):
        with pytest.raises(ParameterError, match='allowed: auto, full, or the two values'):
            IntensityScale(wrong)


def test_pixels_without_a_value_are_black():
    depth = np.full((HEIGHT, WIDTH), 2.0, '<f4')
    depth[0, :3], depth[1] = (np.nan, np.inf, -np.inf), 3.0
    pixels = rgb_from_image(message(depth, '32FC1'), IntensityScale('auto'))
    assert pixels[0, :3, 0].tolist() == [0, 255, 0]
    assert (pixels[1] == 255).all()


def test_big_endian_is_honoured():
    grey = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    sent = (grey.astype('>u2') << 8) + 1  # read the wrong way round, all would be 1
    pixels = rgb_from_image(message(sent.astype('>u2'), 'mono16', is_bigendian=1))
    assert np.abs(pixels.astype(int) - grey[..., None]).max() <= 1


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'mono8', 'nv12', 'yuv422', 'bayer_rggb8', 'rgb16'])
def test_rows_may_be_padded(encoding):
    tight = np.ascontiguousarray(encode(colours(), encoding) if encoding != 'mono8' else colours()[..., 0])
    rows = tight.view(np.uint8).reshape(tight.shape[0], -1)
    padded = np.pad(rows, ((0, 0), (0, 10)), constant_values=255)
    expected = rgb_from_image(message(tight, encoding))
    assert (rgb_from_image(message(padded, encoding, step=padded.shape[1])) == expected).all()


def test_rgb8_is_not_copied_even_when_rows_are_padded():
    for padding in (0, 10):
        sent = message(np.pad(colours().reshape(HEIGHT, -1), ((0, 0), (0, padding))), 'rgb8', step=WIDTH * 3 + padding)
        assert np.shares_memory(rgb_from_image(sent), np.frombuffer(sent.data, np.uint8))


@pytest.mark.parametrize(
    'encoding', ['rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', 'bayer_rggb8', 'bayer_gbrg8', 'yuv422', 'yuv422_yuy2']
)
def test_pixels_agree_with_those_of_rosbags_image(encoding):
    rosbags_image = pytest.importorskip('rosbags.image', reason='rosbags-image is not installed')
    shape = (HEIGHT, WIDTH * BYTES.get(encoding, 1))
    sent = message(np.random.default_rng(1).integers(0, 256, shape, np.uint8), encoding)
    assert (rgb_from_image(sent) == rosbags_image.image_to_cvimage(sent, 'rgb8')).all()


@pytest.mark.parametrize(
    ('changes', 'says'),
    [
        ({'encoding': 'jpeg'}, "the encoding 'jpeg' cannot be read; convert it"),
        ({'encoding': ''}, "the encoding '' cannot be read"),
        ({'encoding': '8UC2'}, "the encoding '8UC2' cannot be read: two channels are no picture; convert it"),
        ({'height': 0}, '16×0: it has no pixels'),
        ({'width': 0}, '0×12: it has no pixels'),
        ({'step': 0}, 'step is 0: a row of 16 px in rgb8 takes 48 bytes'),
        ({'step': 47}, 'a row of 16 px in rgb8 takes 48 bytes'),
        ({'height': 13}, 'takes 624 bytes and data has 576; send all of it'),
        ({'step': 49}, 'takes 588 bytes and data has 576'),
        ({'data': array.array('B')}, 'data has 0'),
        ({'encoding': 'nv12', 'step': 48, 'height': 12}, 'takes 864 bytes'),
        ({'encoding': 'nv12', 'height': 11}, 'its height must be a multiple of 2'),
        ({'encoding': 'yuv422', 'width': 15}, 'its width one of 2'),
    ],
)
def test_an_image_with_inconsistent_fields_is_refused(changes, says):
    sent = message(colours(), 'rgb8')
    for name, value in changes.items():
        setattr(sent, name, value)
    with pytest.raises(FrameError) as raised:
        rgb_from_image(sent)
    assert says in str(raised.value)


def test_a_mask_is_read_from_mono8_only():
    grey = np.eye(HEIGHT, WIDTH, dtype=np.uint8)
    assert (mask_from_image(message(grey, 'mono8')) == grey).all()
    with pytest.raises(FrameError, match='send masks and label images as mono8'):
        mask_from_image(message(colours(), 'rgb8'))


@pytest.mark.parametrize('shape', [(HEIGHT, WIDTH), (HEIGHT, WIDTH, 3)])
def test_pixels_survive_a_round_trip_through_a_message(shape):
    pixels = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
    encoding = 'mono8' if len(shape) == 2 else 'rgb8'
    sent = image_from_array(pixels, encoding, SimpleNamespace)
    assert isinstance(sent.data, array.array)
    assert (sent.height, sent.width, sent.step) == (HEIGHT, WIDTH, pixels[0].size)
    back = mask_from_image(sent) if encoding == 'mono8' else rgb_from_image(sent)
    assert (back == pixels).all()


def test_a_strided_view_is_converted_to_a_message():
    wide = np.random.default_rng(3).integers(0, 256, (HEIGHT, 2 * WIDTH), np.uint8)
    sent = image_from_array(wide[:, ::2], 'mono8', SimpleNamespace)
    assert (mask_from_image(sent) == wide[:, ::2]).all()


def test_the_bayer_patterns_of_this_test_are_those_of_opencv():
    # OpenCV names a pattern by the second and third pixel of its second row.
    mosaic = bayer(colours(), 'rggb')
    assert (inside(cv2.cvtColor(mosaic, cv2.COLOR_BayerBG2RGB)) == inside(colours())).all()


def test_a_frame_id_of_more_than_1024_characters_is_refused():
    image = message(colours(), 'rgb8')
    image.header = SimpleNamespace(frame_id='x' * 1024)
    assert rgb_from_image(image).shape == (HEIGHT, WIDTH, 3)
    image.header.frame_id += 'x'
    with pytest.raises(FrameError, match='the frame_id has 1025 characters; at most 1024'):
        rgb_from_image(image)
