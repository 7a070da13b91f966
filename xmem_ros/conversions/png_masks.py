# SPDX-License-Identifier: MIT
"""Masks as PNG inside sensor_msgs/Image, for seeds. No rclpy.

A raw mask of 1280×720 px takes 0.9 MB, as PNG a few kB. The layout of xmem_ros/Seed stays, so bags
and clients from before still work.
"""

from __future__ import annotations

import array
from typing import TYPE_CHECKING

import cv2
import numpy as np

from xmem_ros import pictures
from xmem_ros.errors import FrameError

if TYPE_CHECKING:
    from collections.abc import Callable

    from xmem_ros.conversions.images import ImageMessage

ENCODING = 'png'


def png_image(pixels: np.ndarray, make: Callable[[], ImageMessage]) -> ImageMessage:
    """Convert a mask, H×W uint8, to an image message with a PNG.

    Args:
        pixels: mask or label image.
        make: class of the message, called without arguments.
    """
    done, encoded = cv2.imencode('.png', np.ascontiguousarray(pixels), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise FrameError(f'a mask of shape {pixels.shape} cannot be written as PNG')
    message = make()
    message.height, message.width = pixels.shape
    message.encoding, message.step = ENCODING, 0
    data = array.array('B')
    data.frombytes(encoded.data)
    message.data = data
    return message


def png_pixels(message: ImageMessage) -> np.ndarray:
    """Convert an image message with a PNG to H×W uint8.

    Raises:
        FrameError: not a PNG of 8-bit grey, another size than the message says, too large, damaged
            or cut off.
    """
    data, size = np.frombuffer(message.data, np.uint8), (int(message.height), int(message.width))
    remedy = 'send masks and label images as mono8, or as PNG of 8-bit grey'
    try:
        with pictures.opened(data.data, ('PNG',)) as image:  # checks the size before pixels take memory
            found, mode = (image.height, image.width), image.mode
    except pictures.PictureError as error:
        raise FrameError(f'the PNG of {len(data)} bytes cannot be read ({error}); {remedy}') from error
    if found != size:
        raise FrameError(f'the message says {size[1]}×{size[0]} px and its PNG has {found[1]}×{found[0]}; {remedy}')
    if mode not in ('L', '1'):
        raise FrameError(f'the PNG has colours or 16 bits ({mode}); {remedy}')
    pixels = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise FrameError(f'the PNG of {len(data)} bytes is damaged or cut off; {remedy}')
    return pixels
