# SPDX-License-Identifier: MIT
"""Conversion of depth images of compressed_depth_image_transport to arrays. No rclpy.

The data are a header of 12 bytes (an enumeration and two parameters, float32) and a PNG of 16 bits.
For 16UC1 the PNG has the depth; for 32FC1 it has the quantised inverse depth, which the two
parameters scale.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from xmem_ros import pictures
from xmem_ros.conversions.images import check_header, depth_from_image
from xmem_ros.errors import FrameError, quoted

if TYPE_CHECKING:
    from xmem_ros.conversions.compressed_images import CompressedMessage

TRANSPORT = 'compressedDepth'
_HEADER = struct.Struct('<i2f')


def depth_of(message: Any) -> np.ndarray:
    """Convert a depth Image or CompressedImage to an array, as `depth_from_image` does."""
    return depth_from_compressed(message) if hasattr(message, 'format') else depth_from_image(message)


def depth_from_compressed(message: CompressedMessage) -> np.ndarray:
    """Convert a message on a topic `…/compressedDepth` to an array.

    Returns:
        H×W: uint16 [mm], 0 without depth; or float32 [m], NaN without depth.

    Raises:
        FrameError: another format, or data that are damaged, cut off or too large.
    """
    check_header(message)
    encoding, _, rest = (part.strip() for part in message.format.partition(';'))
    if encoding not in ('16UC1', '32FC1') or TRANSPORT not in rest or 'rvl' in rest.lower():
        raise FrameError(
            f'the format of the depth image is {quoted(message.format)}: publish 16UC1 or 32FC1 with '
            "compressedDepth's format png (parameter <topic>.compressedDepth.format of the camera)"
        )
    data = np.frombuffer(message.data, np.uint8)
    if data.size <= _HEADER.size:
        raise FrameError(f'the depth image has {data.size} bytes: it is cut off; send all of it')
    _, a, b = _HEADER.unpack_from(data.data)
    png = data[_HEADER.size :]
    try:
        with pictures.opened(png.data, ('PNG',)):  # checks the size before pixels take memory
            pass
    except pictures.PictureError as error:
        raise FrameError(f'the depth image of {data.size} bytes is no PNG after its header ({error})') from error
    pixels = cv2.imdecode(png, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 2 or pixels.dtype != np.uint16:
        raise FrameError('the PNG of the depth image is damaged, or has not one channel of 16 bits')
    if encoding == '16UC1':
        return pixels
    with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
        metres = np.float32(a) / (pixels.astype(np.float32) - np.float32(b))
    metres[pixels == 0] = np.nan
    return metres
