# SPDX-License-Identifier: MIT
"""Conversion of sensor_msgs/Image ↔ arrays; the one place that knows encodings. No rclpy.

OpenCV converts the colours, or cv_bridge where the node uses it (`ros_cv_bridge`), which calls
OpenCV too. Messages of rclpy and of bags take the same path, which honours `step` and avoids
copies.
"""

from __future__ import annotations

import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from xmem_ros import pictures
from xmem_ros.conversions import png_masks, ros_cv_bridge
from xmem_ros.errors import FrameError, quoted
from xmem_ros.intensity import FULL, IntensityScale

if TYPE_CHECKING:
    from collections.abc import Callable


class ImageMessage(Protocol):
    """Fields of sensor_msgs/Image, for classes of rclpy and of bags."""

    header: Any
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: array.array[int]


@dataclass(frozen=True)
class _Encoding:
    """Memory layout of an encoding; its pixels are H×W or H×W×channels."""

    channels: int
    code: int | None  # for cv2.cvtColor from 8 bits to RGB; None: RGB already
    dtype: str = 'u1'  # of a channel, in NumPy's notation
    rows: tuple[int, int] = (1, 1)  # rows of data per row of pixels, as a fraction: 3/2 if chroma planes follow
    even: tuple[int, int] = (1, 1)  # height and width must be multiples of these

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a pixel."""
        return self.channels * int(self.dtype[1])


# OpenCV's names of types, such as 16UC1 and 32FC3; colours are in its order, blue first.
_OPENCV_TYPES = {'8U': 'u1', '8S': 'i1', '16U': 'u2', '16S': 'i2', '32S': 'i4', '32F': 'f4', '64F': 'f8'}

_TWO_CHANNELS = frozenset(f'{kind}C2' for kind in _OPENCV_TYPES)


def _table() -> dict[str, _Encoding]:
    encodings = {
        'mono8': _Encoding(1, cv2.COLOR_GRAY2RGB),
        'rgb8': _Encoding(3, None),
        'bgr8': _Encoding(3, cv2.COLOR_BGR2RGB),
        'rgba8': _Encoding(4, cv2.COLOR_RGBA2RGB),
        'bgra8': _Encoding(4, cv2.COLOR_BGRA2RGB),
        # OpenCV names a pattern after the second and third pixel of the image's second row, ROS
        # after the first pixels of the first row.
        'bayer_rggb8': _Encoding(1, cv2.COLOR_BayerBG2RGB, even=(2, 2)),
        'bayer_bggr8': _Encoding(1, cv2.COLOR_BayerRG2RGB, even=(2, 2)),
        'bayer_gbrg8': _Encoding(1, cv2.COLOR_BayerGR2RGB, even=(2, 2)),
        'bayer_grbg8': _Encoding(1, cv2.COLOR_BayerGB2RGB, even=(2, 2)),
    }
    for name in list(encodings):
        eight = encodings[name]
        encodings[f'{name[:-1]}16'] = _Encoding(eight.channels, eight.code, 'u2', even=eight.even)
    for kind, dtype in _OPENCV_TYPES.items():
        for channels, code in ((1, cv2.COLOR_GRAY2RGB), (3, cv2.COLOR_BGR2RGB), (4, cv2.COLOR_BGRA2RGB)):
            encodings[f'{kind}C{channels}'] = _Encoding(channels, code, dtype)
    uyvy = _Encoding(2, cv2.COLOR_YUV2RGB_UYVY, even=(1, 2))
    yuyv = _Encoding(2, cv2.COLOR_YUV2RGB_YUYV, even=(1, 2))
    return encodings | {
        'yuv422': uyvy,
        'uyvy': uyvy,
        'yuv422_yuy2': yuyv,
        'yuyv': yuyv,
        'nv12': _Encoding(1, cv2.COLOR_YUV2RGB_NV12, rows=(3, 2), even=(2, 2)),
        'nv21': _Encoding(1, cv2.COLOR_YUV2RGB_NV21, rows=(3, 2), even=(2, 2)),
        'nv24': _Encoding(1, cv2.COLOR_YUV2RGB_NV12, rows=(3, 1)),
    }


_ENCODINGS = _table()
ENCODINGS = tuple(_ENCODINGS)
"""Encodings that `rgb_from_image` reads."""

_MASK_ENCODINGS = ('mono8', '8UC1')
_DEPTH_ENCODINGS = {
    '16UC1': _Encoding(1, None, 'u2'),
    'mono16': _Encoding(1, None, 'u2'),
    '32FC1': _Encoding(1, None, 'f4'),
}
_FULL_RANGE = IntensityScale(FULL)


MAX_FRAME_ID = 1024  # characters; all results of an image carry its header


def check_header(message: Any) -> None:
    """Raise `FrameError` for an image whose frame_id is longer than `MAX_FRAME_ID`."""
    length = len(getattr(getattr(message, 'header', None), 'frame_id', ''))
    if length > MAX_FRAME_ID:
        raise FrameError(f'the frame_id has {length} characters; at most {MAX_FRAME_ID} are allowed')


def stamp_ns(stamp: Any) -> int:
    """Convert a builtin_interfaces/Time to nanoseconds.

    Negative before 1970, which rclpy's Time refuses.
    """
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def rgb_from_image(message: ImageMessage, scale: IntensityScale = _FULL_RANGE) -> np.ndarray:
    """Convert an image message to an array.

    `8UC3`, `32FC4` and so on are read as in OpenCV, blue first.

    Args:
        message: the image.
        scale: scales channels of other types than uint8; default: by the range of their type.

    Returns:
        H×W×3 uint8 RGB; a view of the message for rgb8, whatever its step.

    Raises:
        FrameError: an unknown encoding, an empty image, too little data for its size, or a long
            frame_id.
    """
    check_header(message)
    pixels = _pixels(message, _ENCODINGS, 'convert it with image_proc or republish it')
    encoding = _ENCODINGS[message.encoding]
    pixels = scale.apply(pixels, message.encoding)
    if encoding.code is None:
        return pixels
    if message.encoding == 'nv24':
        return _rgb_from_nv24(pixels)
    code = encoding.code
    return ros_cv_bridge.convert(message, pixels, lambda own: cv2.cvtColor(np.ascontiguousarray(own), code))


def _rgb_from_nv24(planes: np.ndarray) -> np.ndarray:
    """Convert NV24 (3H×W uint8: H rows of luma, 2H of chroma pairs) to H×W×3 RGB.

    OpenCV has no such conversion. With doubled luma it is an NV12 image of twice the size.
    """
    height, width = planes.shape[0] // 3, planes.shape[1]
    chroma = np.ascontiguousarray(planes[height:]).reshape(height, 2 * width)
    luma = planes[:height].repeat(2, axis=0).repeat(2, axis=1)
    doubled = cv2.cvtColor(np.concatenate([luma, chroma]), cv2.COLOR_YUV2RGB_NV12)
    return np.ascontiguousarray(doubled[::2, ::2])


def bayer_to_rgb(mosaic: np.ndarray, encoding: str) -> np.ndarray:
    """Convert a Bayer mosaic, H×W uint8, to H×W×3 RGB.

    Raises:
        FrameError: an unknown encoding, or an odd height or width.
    """
    known = _ENCODINGS.get(f'{encoding.rstrip("0123456789")}8')
    if known is None or known.code is None:
        raise FrameError(f'the encoding {quoted(encoding)} cannot be read; convert it with image_proc')
    if mosaic.shape[0] % 2 or mosaic.shape[1] % 2:
        raise FrameError(f'the image is {mosaic.shape[1]}×{mosaic.shape[0]}: in {encoding} both must be even')
    return cv2.cvtColor(mosaic, known.code)


def mask_from_image(message: ImageMessage) -> np.ndarray:
    """Convert a mono8 image message to H×W uint8, a view of the message; or one with a PNG.

    Raises:
        FrameError: another encoding, an empty image, or too little data for its size.
    """
    if message.encoding == png_masks.ENCODING:
        return png_masks.png_pixels(message)
    allowed = {name: _ENCODINGS[name] for name in _MASK_ENCODINGS}
    return _pixels(message, allowed, 'send masks and label images as mono8')


def depth_from_image(message: ImageMessage) -> np.ndarray:
    """Convert a depth image message to an array, following REP 118.

    Returns:
        H×W: uint16 [mm], 0 without depth; or float32 [m], non-finite without depth.

    Raises:
        FrameError: another encoding, an empty image, or too little data for its size.
    """
    return _pixels(message, _DEPTH_ENCODINGS, 'send depth as 16UC1 in mm or as 32FC1 in m')


def image_from_array(pixels: np.ndarray, encoding: str, make: Callable[[], ImageMessage]) -> ImageMessage:
    """Convert an array to an image message.

    Args:
        pixels: H×W or H×W×channels of the encoding's type.
        encoding: of the array, such as mono8 or rgb8.
        make: class of the message, called without arguments.
    """
    message = make()
    message.height, message.width = pixels.shape[:2]
    message.encoding = encoding
    message.is_bigendian = 0
    message.step = pixels.nbytes // message.height
    data = array.array('B')
    # Use array.array: the message checks data of other types byte by byte, which is slow.
    data.frombytes(np.ascontiguousarray(pixels).reshape(-1).view(np.uint8).data)
    message.data = data
    return message


def _pixels(message: ImageMessage, allowed: dict[str, _Encoding], remedy: str) -> np.ndarray:
    """Return H×W or H×W×channels in native byte order, a view of the message where possible."""
    encoding = allowed.get(message.encoding)
    if encoding is None:
        reason = ': two channels are no picture' if message.encoding in _TWO_CHANNELS else ''
        raise FrameError(
            f'the encoding {quoted(message.encoding)} cannot be read{reason}; {remedy}; known: {", ".join(allowed)}'
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
    row = width * encoding.pixel_bytes
    if message.step < row:
        raise FrameError(
            f'step is {message.step}: a row of {width} px in {message.encoding} takes {row} bytes; set step'
        )
    rows = height * encoding.rows[0] // encoding.rows[1]
    needed, given = rows * message.step, len(message.data)
    if given < needed:
        raise FrameError(
            f'the image is cut off: {width}×{height} in {message.encoding} with step {message.step} takes {needed} '
            f'bytes and data has {given}; send all of it'
        )
    data = np.frombuffer(message.data, np.uint8, needed).reshape(rows, message.step)[:, :row]
    if encoding.dtype != 'u1':
        sent = np.dtype(encoding.dtype).newbyteorder('>' if message.is_bigendian else '<')
        data = np.ascontiguousarray(data).view(sent).astype(encoding.dtype, copy=False)
    return data if encoding.channels == 1 else data.reshape(rows, width, encoding.channels)
