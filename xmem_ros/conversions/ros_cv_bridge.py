# SPDX-License-Identifier: MIT
"""cv_bridge, where it is installed and works: conversion of image messages to RGB. No rclpy.

`convert` chooses for each image between cv_bridge and OpenCV by our own table, which gives the same
pixels. An extension that was built for another NumPy may end the process when it is imported.
`use_where_possible` therefore tries cv_bridge in another process first.
"""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)

ENCODINGS = frozenset(
    {
        *('mono8', 'bgr8', 'rgba8', 'bgra8', 'yuv422', 'yuv422_yuy2'),
        *(f'bayer_{pattern}8' for pattern in ('rggb', 'bggr', 'gbrg', 'grbg')),
    }
)
"""Encodings of 8 bits that cv_bridge converts to rgb8; rgb8 itself needs no conversion."""

_TRIAL_S = 30.0
_TRIAL = """
import array, types
from cv_bridge import CvBridge
message = types.SimpleNamespace(
    height=1, width=2, encoding='bgr8', step=6, is_bigendian=0, data=array.array('B', range(6)), header=None
)
pixels = CvBridge().imgmsg_to_cv2(message, 'rgb8')
assert pixels.shape == (1, 2, 3) and pixels.reshape(-1).tolist() == [2, 1, 0, 5, 4, 3], pixels
"""

_bridge: Any = None  # a CvBridge, or None
_tried = False
_refused: set[str] = set()  # encodings that this cv_bridge does not know


def use_where_possible() -> bool:
    """Use cv_bridge from now on if it works; tried once in a process.

    Returns:
        Whether cv_bridge is used. If it is installed and does not work, the reason is logged.
    """
    global _bridge, _tried
    if _tried:
        return _bridge is not None
    _tried = True
    if importlib.util.find_spec('cv_bridge') is None:
        return False
    fault = _fault()
    if not fault:
        try:
            from cv_bridge import CvBridge

            _bridge = CvBridge()
        except Exception as error:  # another path or environment than the trial's
            fault = f'{type(error).__name__}: {error}'
    if fault:
        _log.warning(
            'cv_bridge is installed, but does not work (%s); images are converted without it. If it was built for '
            "NumPy 1, install an older NumPy (pip install 'numpy<2') or build cv_bridge from source",
            fault,
        )
    return _bridge is not None


def convert(message: Any, pixels: np.ndarray, ours: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Convert an image to H×W×3 uint8 RGB, by cv_bridge if it is used and knows the encoding.

    Args:
        message: sensor_msgs/Image whose sizes were checked.
        pixels: its pixels, H×W or H×W×channels, of 8 bits.
        ours: converts `pixels` otherwise.
    """
    encoding = message.encoding
    if _bridge is None or encoding not in ENCODINGS or encoding in _refused:
        return ours(pixels)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if message.is_bigendian or message.step % channels:
        return ours(pixels)  # it cannot swap bytes with NumPy 2, and takes rows to be whole pixels
    try:
        converted = _bridge.imgmsg_to_cv2(message, 'rgb8')
    except Exception as error:  # an older cv_bridge knows fewer encodings
        _refused.add(encoding)
        _log.warning('cv_bridge does not convert %s (%s); it is converted without it', encoding, error)
        return ours(pixels)
    if converted.shape != (message.height, message.width, 3) or converted.dtype != np.uint8:
        _refused.add(encoding)
        _log.warning('cv_bridge converts %s to %s; it is converted without it', encoding, converted.shape)
        return ours(pixels)
    return converted


def _fault() -> str:
    """Convert an image with cv_bridge in another process; return what is wrong, in one line."""
    command = [sys.executable, '-c', _TRIAL]
    try:
        trial = subprocess.run(
            command, capture_output=True, text=True, timeout=_TRIAL_S, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f'{type(error).__name__}: {error}'
    if not trial.returncode:
        return ''
    if trial.returncode < 0:
        return f'it ends the process by signal {-trial.returncode}'
    lines = trial.stderr.strip().splitlines()
    return lines[-1][:300] if lines else f'exit code {trial.returncode}'
