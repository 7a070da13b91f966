# SPDX-License-Identifier: MIT
"""Depth images as compressed_depth_image_transport writes them."""

import struct

import cv2
import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg')

from sensor_msgs.msg import CompressedImage

from xmem_ros.conversions.compressed_depth import depth_from_compressed
from xmem_ros.errors import FrameError

MM = np.linspace(300, 9000, 48 * 64).reshape(48, 64).astype(np.uint16)
MM[:4] = 0
LARGEST_M, QUANTIZATION = 10.0, 100.0  # defaults of the transport


def message(pixels, kind, a=0.0, b=0.0):
    png = cv2.imencode('.png', pixels)[1].tobytes()
    return CompressedImage(format=kind, data=struct.pack('<i2f', 0, a, b) + png)


@pytest.mark.parametrize('kind', ['16UC1; compressedDepth', '16UC1; compressedDepth png'])
def test_millimetres_are_exact(kind):
    assert (depth_from_compressed(message(MM, kind)) == MM).all()


def test_metres_are_as_exact_as_their_quantised_inverse():
    """By the formula of the transport: inverse = a / depth + b."""
    a = QUANTIZATION * (QUANTIZATION + 1)
    b = 1 - a / LARGEST_M
    metres = MM.astype(np.float32) / 1000
    with np.errstate(divide='ignore'):
        inverse = np.where(metres > 0, a / metres + b, 0).astype(np.uint16)
    found = depth_from_compressed(message(inverse, '32FC1; compressedDepth png', a, b))
    assert found.dtype == np.float32
    assert np.isnan(found[metres == 0]).all()
    valid = metres > 0
    # a step of one in the inverse, at 9 m and a = 10100, is 9² / 10100 m
    assert np.abs(found - metres)[valid].max() < 0.009


@pytest.mark.parametrize(
    ('given', 'reason'),
    [
        (
            CompressedImage(format='16UC1; compressedDepth rvl', data=bytes(99)),
            "format is '16UC1; compressedDepth rvl'",
        ),
        (CompressedImage(format='jpeg', data=bytes(99)), "format is 'jpeg'"),
        (CompressedImage(format='16UC1; compressedDepth', data=bytes(12)), '12 bytes: it is cut off'),
        (CompressedImage(format='16UC1; compressedDepth', data=bytes(99)), 'no PNG after its header'),
        (message(MM.astype(np.uint8), '16UC1; compressedDepth'), 'not one channel of 16 bits'),
        (message(np.dstack([MM] * 3), '16UC1; compressedDepth'), 'not one channel of 16 bits'),
    ],
)
def test_other_data_are_refused(given, reason):
    with pytest.raises(FrameError, match=reason.replace('format is', 'format of the depth image is')):
        depth_from_compressed(given)
