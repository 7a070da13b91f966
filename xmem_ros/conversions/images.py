# SPDX-License-Identifier: MIT
"""Between sensor_msgs/Image and arrays: the one place that knows encodings. No rclpy, so it also reads images of bags.

OpenCV does the colour conversions, as it does below cv_bridge and rosbags-image: so there is one path, the same with
and without a ROS install, that honours `step` and copies nothing where it need not.
"""

from __future__ import annotations

import array
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from xmem_ros import pictures
from xmem_ros.errors import FrameError, quoted

if TYPE_CHECKING:
    from collections.abc import Callable


class ImageMessage(Protocol):
    """What is read of a sensor_msgs/Image, whoever made it."""

    header: Any
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: array.array[int]


@dataclass(frozen=True)
class _Encoding:
    """How an encoding lies in memory. The pixels that a conversion gets are H×W or H×W×channels."""

    channels: int
    code: int | None  # of cv2.cvtColor, to RGB; None: RGB already
    depth: int = 1  # bytes a channel
    planar: bool = False  # half as many rows again follow the image: chroma at half the resolution
    even: tuple[int, int] = (1, 1)  # what height and width must be multiples of


def _table() -> dict[str, _Encoding]:
    encodings = {
        'mono8': _Encoding(1, cv2.COLOR_GRAY2RGB),
        'rgb8': _Encoding(3, None),
        'bgr8': _Encoding(3, cv2.COLOR_BGR2RGB),
        'rgba8': _Encoding(4, cv2.COLOR_RGBA2RGB),
        'bgra8': _Encoding(4, cv2.COLOR_BGRA2RGB),
        # OpenCV names the second row's second and third pixel, ROS the first row's first two.
        'bayer_rggb8': _Encoding(1, cv2.COLOR_BayerBG2RGB, even=(2, 2)),
        'bayer_bggr8': _Encoding(1, cv2.COLOR_BayerRG2RGB, even=(2, 2)),
        'bayer_gbrg8': _Encoding(1, cv2.COLOR_BayerGR2RGB, even=(2, 2)),
        'bayer_grbg8': _Encoding(1, cv2.COLOR_BayerGB2RGB, even=(2, 2)),
    }
    for name in list(encodings):
        eight = encodings[name]
        encodings[f'{name[:-1]}16'] = _Encoding(eight.channels, eight.code, 2, even=eight.even)
    uyvy = _Encoding(2, cv2.COLOR_YUV2RGB_UYVY, even=(1, 2))
    yuyv = _Encoding(2, cv2.COLOR_YUV2RGB_YUYV, even=(1, 2))
    return encodings | {
        '8UC1': encodings['mono8'],
        '8UC3': encodings['bgr8'],
        '8UC4': encodings['bgra8'],
        '16UC1': encodings['mono16'],
        'yuv422': uyvy,
        'uyvy': uyvy,
        'yuv422_yuy2': yuyv,
        'yuyv': yuyv,
        'nv12': _Encoding(1, cv2.COLOR_YUV2RGB_NV12, planar=True, even=(2, 2)),
        'nv21': _Encoding(1, cv2.COLOR_YUV2RGB_NV21, planar=True, even=(2, 2)),
    }


_ENCODINGS = _table()
ENCODINGS = tuple(_ENCODINGS)
"""What `rgb_from_image` reads."""

_MASK_ENCODINGS = ('mono8', '8UC1')
_DEPTH_ENCODINGS = {'16UC1': _Encoding(1, None, 2), 'mono16': _Encoding(1, None, 2), '32FC1': _Encoding(1, None, 4)}


def stamp_ns(stamp: Any) -> int:
    """A builtin_interfaces/Time in nanoseconds; negative before 1970, which rclpy's own class refuses."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def rgb_from_image(message: ImageMessage) -> np.ndarray:
    """Turn an image message into pixels.

    16-bit channels are scaled to 8. `8UC3` and `8UC4` are read as OpenCV has them, blue first.

    Returns:
        H×W×3 uint8 RGB. Of an rgb8 image it is the message's own memory, whatever its step.

    Raises:
        FrameError: an unknown encoding, an empty image, or a layout that cannot hold what the message says.
    """
    pixels = _pixels(message, _ENCODINGS, 'convert it with image_proc or republish it')
    encoding = _ENCODINGS[message.encoding]
    if encoding.code is None and encoding.depth == 1:
        return pixels
    if encoding.code is not None:
        pixels = cv2.cvtColor(np.ascontiguousarray(pixels), encoding.code)
    return pixels if encoding.depth == 1 else cv2.convertScaleAbs(pixels, alpha=255 / 65535)


def bayer_to_rgb(mosaic: np.ndarray, encoding: str) -> np.ndarray:
    """Turn a Bayer sensor's mosaic, H×W uint8, into H×W×3 RGB; raises `FrameError` for an unknown encoding."""
    known = _ENCODINGS.get(f'{encoding.rstrip("0123456789")}8')
    if known is None or known.code is None:
        raise FrameError(f'the encoding {quoted(encoding)} cannot be read; convert it with image_proc')
    if mosaic.shape[0] % 2 or mosaic.shape[1] % 2:
        raise FrameError(f'the image is {mosaic.shape[1]}×{mosaic.shape[0]}: in {encoding} both must be even')
    return cv2.cvtColor(mosaic, known.code)


def mask_from_image(message: ImageMessage) -> np.ndarray:
    """Turn a mono8 image message into H×W uint8; it is the message's own memory.

    Raises:
        FrameError: another encoding, an empty image, or a layout that cannot hold what the message says.
    """
    allowed = {name: _ENCODINGS[name] for name in _MASK_ENCODINGS}
    return _pixels(message, allowed, 'send masks and label images as mono8')


def depth_from_image(message: ImageMessage) -> np.ndarray:
    """Turn a depth image message into pixels, as REP 118 has them.

    Returns:
        H×W: uint16 [mm], 0 where there is no depth, or float32 [m], not finite where there is none.

    Raises:
        FrameError: another encoding, an empty image, or a layout that cannot hold what the message says.
    """
    pixels = _pixels(message, _DEPTH_ENCODINGS, 'send depth as 16UC1 in mm or as 32FC1 in m')
    return pixels if pixels.dtype == np.uint16 else pixels.view(np.float32)


def image_from_array(pixels: np.ndarray, encoding: str, make: Callable[[], ImageMessage]) -> ImageMessage:
    """Turn pixels into an image message.

    Args:
        pixels: H×W or H×W×channels uint8.
        encoding: that says what they are, such as mono8 or rgb8.
        make: the message's class, called without arguments.
    """
    message = make()
    message.height, message.width = pixels.shape[:2]
    message.encoding = encoding
    message.is_bigendian = 0
    message.step = pixels.size // message.height
    data = array.array('B')
    # Anything but an array of bytes would be checked byte by byte by the message.
    data.frombytes(np.ascontiguousarray(pixels).reshape(-1).data)
    message.data = data
    return message


def _pixels(message: ImageMessage, allowed: dict[str, _Encoding], remedy: str) -> np.ndarray:
    """H×W or H×W×channels of the encoding's depth, native byte order, in the message's memory where possible."""
    encoding = allowed.get(message.encoding)
    if encoding is None:
        raise FrameError(
            f'the encoding {quoted(message.encoding)} cannot be read; {remedy}; known: {", ".join(allowed)}'
        )
    height, width = message.height, message.width
    if not height or not width:
        raise FrameError(f'the image is {width}×{height}: it has no pixels; set height and width')
    try:
        pictures.check_pixels(width, height)
    except FrameError as error:
        raise FrameError(f'the image is {error}') from None
    if height % encoding.even[0] or width % encoding.even[1]:
        raise FrameError(
            f'the image is {width}×{height}: in {message.encoding} its height must be a multiple of {encoding.even[0]} '
            f'and its width one of {encoding.even[1]}'
        )
    row = width * encoding.channels * encoding.depth
    if message.step < row:
        raise FrameError(
            f'step is {message.step}: a row of {width} px in {message.encoding} takes {row} bytes; set step'
        )
    rows = height * 3 // 2 if encoding.planar else height
    needed, given = rows * message.step, len(message.data)
    if given < needed:
        raise FrameError(
            f'the image is cut off: {width}×{height} in {message.encoding} with step {message.step} takes {needed} '
            f'bytes and data has {given}; send all of it'
        )
    data = np.frombuffer(message.data, np.uint8, needed).reshape(rows, message.step)[:, :row]
    if encoding.depth > 1:
        order = '>' if message.is_bigendian else '<'
        data = np.ascontiguousarray(data).view(f'{order}u{encoding.depth}')
        if (order == '>') != (sys.byteorder == 'big'):
            data = data.byteswap().view(f'=u{encoding.depth}')
    return data if encoding.channels == 1 else data.reshape(rows, width, encoding.channels)
