# SPDX-License-Identifier: MIT
"""Conversion of images of more than 8 bits to 8 bits, with one range for a whole stream.

Industrial cameras send 10 or 12 bits in 16, thermal cameras a narrow band of 16. Scaled by the full
range of the type, both are nearly black. A range chosen for each image would flicker.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np

from xmem_ros.errors import ParameterError, quoted

AUTO, FULL = 'auto', 'full'
_PERCENTILES = (0.5, 99.5)
_SAMPLES = 100_000  # pixels from which percentiles are computed
_NUMBER = '-?[0-9]{1,12}(?:[.][0-9]{1,12})?'
NARROW = 8  # a warning if an image uses less than this fraction of a fixed range


@dataclass(frozen=True)
class Range:
    """Values that become 0 and 255."""

    low: float
    high: float


def parse_range(text: str) -> Range | None:
    """Parse the parameter `intensity_range`: LOW,HIGH; None for `auto` and `full`.

    Raises:
        ParameterError: anything else, or LOW is not below HIGH.
    """
    if text in (AUTO, FULL):
        return None
    found = re.fullmatch(rf'\s*({_NUMBER})\s*,\s*({_NUMBER})\s*', text)
    if found is None or float(found[1]) >= float(found[2]):
        raise ParameterError(
            f'intensity_range is {quoted(text)}; allowed: {AUTO}, {FULL}, or the two values that become black and '
            'white, as in 7000,8500'
        )
    return Range(float(found[1]), float(found[2]))


def full_range(dtype: np.dtype) -> Range:
    """Return the range of a type: its maximum for integers, 1 for floating-point numbers."""
    return Range(0.0, 1.0) if dtype.kind == 'f' else Range(0.0, float(np.iinfo(dtype).max))


def to_uint8(pixels: np.ndarray, values: Range) -> np.ndarray:
    """Scale pixels of any type to uint8; values outside the range become 0 or 255, NaN 0."""
    if pixels.dtype.kind == 'f':
        pixels = np.nan_to_num(pixels, nan=values.low, posinf=values.high, neginf=values.low)
    dtype = pixels.dtype
    if dtype.kind in 'iu':
        limits = np.iinfo(dtype)
        low, high = (min(max(value, limits.min), limits.max) for value in (values.low, values.high))
        clipped = np.clip(pixels, dtype.type(low), dtype.type(high))
    else:
        clipped = np.clip(pixels, values.low, values.high)
    if dtype == np.uint32:
        clipped = clipped.astype(np.float64)  # OpenCV has no such type
    alpha = 255.0 / (values.high - values.low)
    scaled: np.ndarray = cv2.convertScaleAbs(np.ascontiguousarray(clipped), alpha=alpha, beta=-values.low * alpha)
    return scaled.reshape(pixels.shape)


class IntensityScale:
    """Range of a stream's images; chosen once and kept until `reset` or a change of encoding.

    `auto`: the 0.5 and 99.5 percentiles of the first image. Thread-safe.

    Arguments:
        setting: auto, full, or LOW,HIGH.

    Raises:
        ParameterError: another setting.
    """

    def __init__(self, setting: str = AUTO) -> None:
        self._setting, self._fixed = setting, parse_range(setting)
        self._lock = threading.Lock()
        self._kind = ''
        self._range: Range | None = None
        self._notes: deque[tuple[bool, str]] = deque(maxlen=8)

    def fresh(self) -> IntensityScale:
        """Return a scale of the same setting without a range."""
        return IntensityScale(self._setting)

    def reset(self) -> None:
        """Forget the range; the next image gives a new one."""
        with self._lock:
            self._kind, self._range = '', None

    def apply(self, pixels: np.ndarray, kind: str) -> np.ndarray:
        """Scale an image.

        Arguments:
            pixels: H×W or H×W×C; uint8 is returned unchanged.
            kind: encoding; another one gets a new range.

        Returns:
            The same shape, uint8.
        """
        if pixels.dtype == np.uint8:
            return pixels
        with self._lock:
            if self._range is None or self._kind != kind:
                self._kind, self._range = kind, self._choose(pixels, kind)
            values = self._range
        return to_uint8(pixels, values)

    @property
    def state(self) -> tuple[str, float, float]:
        """Encoding and range so far, to continue a stream; an empty encoding: none."""
        with self._lock:
            return (self._kind, self._range.low, self._range.high) if self._range else ('', 0.0, 0.0)

    @state.setter
    def state(self, state: tuple[str, float, float]) -> None:
        kind, low, high = state
        with self._lock:
            self._kind, self._range = (kind, Range(low, high)) if kind else ('', None)

    def take_notes(self) -> list[tuple[bool, str]]:
        """Return messages about new ranges since the last call: whether it is a warning, text."""
        with self._lock:
            notes = list(self._notes)
            self._notes.clear()
        return notes

    def _choose(self, pixels: np.ndarray, kind: str) -> Range:
        used = _used(pixels)
        span = f'{used.low:g} to {used.high:g}'
        if self._setting == AUTO:
            self._notes.append((False, f'{quoted(kind)} images: values from {span} are scaled to 8 bits'))
            return used if used.high > used.low else Range(used.low, used.low + 1.0)
        values = self._fixed or full_range(pixels.dtype)
        if (used.high - used.low) * NARROW < values.high - values.low:
            text = (
                f'{quoted(kind)} images use values from {span}, less than an eighth of intensity_range '
                f'({values.low:g} to {values.high:g}), so they are nearly uniform; set intensity_range to auto or '
                'to the values in use'
            )
            self._notes.append((True, text))
        return values


def _used(pixels: np.ndarray) -> Range:
    """Return the percentiles of an image's finite values."""
    height, width = pixels.shape[:2]
    step = max(int((height * width / _SAMPLES) ** 0.5), 1)
    sample = pixels[::step, ::step].astype(np.float64).ravel()
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return Range(0.0, 0.0)
    low, high = np.percentile(sample, _PERCENTILES)
    return Range(float(low), float(high))
