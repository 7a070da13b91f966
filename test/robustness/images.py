# SPDX-License-Identifier: MIT
"""Random unreadable images, for trial `fuzz`."""

from __future__ import annotations

import array
import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as PillowImage
from sensor_msgs.msg import CompressedImage, Image

from robustness.requests import MOST_32, ODD_TEXTS, spoil_layout
from xmem_ros.conversions.compressed_images import compressed_from_array, rgb_from_compressed
from xmem_ros.conversions.images import image_from_array
from xmem_ros.errors import FrameError

if TYPE_CHECKING:
    import random

NEGATIVE = 'a negative stamp'
LONG = 65536  # px


def good_image(frame: np.ndarray, transport: str) -> Any:
    """Convert a frame H×W×3 to a lossless message."""
    if transport == 'raw':
        return image_from_array(frame, 'rgb8', Image)
    return compressed_from_array(frame, 'png', CompressedImage)


def wrong_image(chance: random.Random, frame: np.ndarray, transport: str) -> tuple[str, Any]:
    """Draw a fault and a message with it, unstamped unless the stamp is the fault."""
    if chance.random() < 0.05:
        message = good_image(frame, transport)
        message.header.stamp.sec = chance.choice((-1, -(2**31)))
        message.header.stamp.nanosec = chance.choice((0, 999_999_999))
        return NEGATIVE, message
    what, message = _raw(chance, frame) if transport == 'raw' else _compressed(chance, frame)
    message.header.frame_id = chance.choice(('camera', *ODD_TEXTS))
    return what, message


def _raw(chance: random.Random, frame: np.ndarray) -> tuple[str, Image]:
    message = image_from_array(frame, 'rgb8', Image)
    match chance.randrange(6):
        case 0:
            message.encoding = chance.choice(('h264', 'RGB8', 'jpeg', '32FC1', 'rgb8\n', *ODD_TEXTS))
            return 'an unknown encoding', message
        case 1:
            message.encoding = chance.choice(('rgba8', 'bgra16', 'rgb16', '8UC4'))
            return 'an encoding with longer rows', message
        case 2:
            message.encoding = chance.choice(('bayer_rggb8', 'bayer_gbrg16', 'nv12', 'nv21', 'yuv422', 'yuyv'))
            message.width -= 1
            message.height -= 1
            return 'an odd size', message
        case 3:
            size = chance.choice(((1, LONG), (LONG, 1), (2, LONG), (LONG, 3), (1, 11)))
            encoding = chance.choice(('rgb8', 'mono8', 'bgra8'))
            channels = {'rgb8': (3,), 'mono8': (), 'bgra8': (4,)}[encoding]
            return 'too elongated', image_from_array(np.zeros((*size, *channels), np.uint8), encoding, Image)
        case _:
            return spoil_layout(chance, message, 3), message


def _compressed(chance: random.Random, frame: np.ndarray) -> tuple[str, CompressedImage]:
    message = CompressedImage(format=chance.choice(('rgb8; jpeg compressed bgr8', 'png', *ODD_TEXTS)))
    kind = chance.choice(('JPEG', 'PNG'))
    match chance.randrange(7):
        case 0:
            what, data = 'no data', b''
        case 1:
            what, data = 'no image', chance.randbytes(chance.choice((1, 4, 100, 100_000)))
        case 2:
            what, data = 'another format', written(frame, chance.choice(('BMP', 'GIF', 'TIFF', 'WEBP')))
        case 3:
            what, data = 'cut off in the head', written(frame, kind)[: chance.randrange(1, 60)]
        case 4:
            side = chance.choice((8001, 60_000, 2**31 - 1, MOST_32))
            what, data = 'a huge size', png_that_claims(side, chance.choice((1, side)) if side > 2**30 else side)
        case 5:
            what = 'a mosaic that is none'
            message.format = chance.choice(('bayer_xxxx8; png compressed ', 'bayer_rggb8; png compressed '))
            data = written(frame[:-1, :-1], 'PNG')
            if message.format.startswith('bayer_x'):
                data = written(frame, 'PNG')
        case _:
            what, data = _damaged(chance, frame, kind)
    message.data = array.array('B', data)
    return what, message


def _damaged(chance: random.Random, frame: np.ndarray, kind: str) -> tuple[str, bytes]:
    """Damage a file so that it is unreadable; most damage to a JPEG only changes pixels."""
    while True:
        data = bytearray(written(frame, kind))
        for _ in range(chance.choice((1, 8, 100))):
            data[chance.randrange(min(len(data), chance.choice((40, 400, len(data)))))] = chance.randrange(256)
        cut = bytes(data[: chance.randrange(1, len(data))])
        try:
            rgb_from_compressed(CompressedImage(format='jpeg', data=array.array('B', cut)))
        except FrameError:
            return f'a damaged {kind}', cut


def written(pixels: np.ndarray, kind: str) -> bytes:
    """Encode a file by Pillow."""
    file = io.BytesIO()
    PillowImage.fromarray(np.ascontiguousarray(pixels)).save(file, kind)
    return file.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """Make a few bytes that claim to be a large image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    head = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b'IHDR', head), chunk(b'IDAT', zlib.compress(bytes(100))), chunk(b'IEND', b''))
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)
