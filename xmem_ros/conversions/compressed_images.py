# SPDX-License-Identifier: MIT
"""Conversion of sensor_msgs/CompressedImage ↔ arrays, as in image_transport. No rclpy."""

from __future__ import annotations

import array
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from xmem_ros import pictures
from xmem_ros.conversions.images import bayer_to_rgb, check_header, rgb_from_image
from xmem_ros.errors import FrameError, quoted
from xmem_ros.intensity import FULL, IntensityScale

if TYPE_CHECKING:
    from collections.abc import Callable

FORMATS = ('JPEG', 'PNG')


class CompressedMessage(Protocol):
    """Fields of sensor_msgs/CompressedImage, for classes of rclpy and of bags."""

    header: Any
    format: str
    data: array.array[int]


_FULL_RANGE = IntensityScale(FULL)


def rgb_of(message: Any, scale: IntensityScale = _FULL_RANGE) -> np.ndarray:
    """Convert an Image or CompressedImage to H×W×3 uint8 RGB; raises `FrameError`."""
    return rgb_from_compressed(message, scale) if hasattr(message, 'format') else rgb_from_image(message, scale)


def rgb_from_compressed(message: CompressedMessage, scale: IntensityScale = _FULL_RANGE) -> np.ndarray:
    """Convert a compressed image message to an array.

    The file type is detected from the data. `format` only tells a Bayer mosaic, as in
    `bayer_rggb8; jpeg compressed `. `scale` scales 16-bit channels.

    Returns:
        H×W×3 uint8 RGB, in the camera's pixels: a rotation noted in the file is not applied.

    Raises:
        FrameError: not JPEG or PNG, truncated, damaged or too large, or a long frame_id.
    """
    check_header(message)
    data = np.frombuffer(message.data, np.uint8)
    _check(data, message.format)
    encoding, _, target = message.format.partition(';')
    mosaic = encoding.strip().startswith('bayer_') and not target.replace('compressed', '').split()[1:]
    flags = cv2.IMREAD_GRAYSCALE if mosaic else cv2.IMREAD_COLOR
    try:
        pixels = cv2.imdecode(data, flags | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise FrameError(f'the compressed image cannot be decoded ({error.err}); send all of it') from error
    if pixels is None:
        raise FrameError('the compressed image cannot be decoded: it is damaged or cut off; send all of it')
    pixels = scale.apply(pixels, f'16-bit {encoding.strip()}')
    if mosaic:
        return bayer_to_rgb(pixels, encoding.strip())
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def compressed_from_array(
    pixels: np.ndarray, kind: str, make: Callable[[], CompressedMessage], quality: int = 80
) -> CompressedMessage:
    """Convert an array to a compressed image message.

    Args:
        pixels: H×W or H×W×3 RGB uint8.
        kind: jpeg or png.
        make: class of the message, called without arguments.
        quality: JPEG quality, 1…100.
    """
    grey = pixels.ndim == 2
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if kind == 'jpeg' else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    source = pixels if grey else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, encoded = cv2.imencode('.jpg' if kind == 'jpeg' else '.png', source, options)
    if not done:
        raise FrameError(f'an image of shape {pixels.shape} cannot be written as {kind}')
    message = make()
    message.format = f'mono8; {kind} compressed mono8' if grey else f'rgb8; {kind} compressed bgr8'
    data = array.array('B')
    data.frombytes(encoded.data)
    message.data = data
    return message


def _check(data: np.ndarray, declared: str) -> None:
    """Check the file's header before memory is allocated for its pixels."""
    if not data.size:
        raise FrameError('the compressed image is empty: it has no data')
    try:
        with pictures.opened(data.data, FORMATS):
            pass
    except pictures.PictureError as error:
        raise FrameError(
            f'the compressed image (format {quoted(declared)}, {data.size} bytes) cannot be read: it is damaged, '
            f'cut off, too large, or not {" or ".join(FORMATS)} ({error})'
        ) from error
