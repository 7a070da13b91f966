# SPDX-License-Identifier: MIT
"""Decoders of video frames that say what is damaged, and the pixels of their frames. PyAV."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from xmem_ros import pictures
from xmem_ros.errors import ParameterError

# These repair what they can and say so; others have to give up a damaged frame instead.
_REPAIRING = ('h264', 'hevc')
_VERSIONS = (17, 18)  # of PyAV
_MATRIX = struct.Struct('=9i')
_ONE = 1 << 16
_STRICT_VP9 = 'libvpx-vp9'  # notices nearly all damage, FFmpeg's own decoder some of it
_STRICT_AV1 = {'libdav1d': {'strict': '1'}}  # checks the end of each tile, and with it nearly all damage


def import_av() -> Any:
    """Import PyAV; raises `ParameterError`, with what to install, if it cannot be used."""
    try:
        import av
        import av.logging
    except ImportError as error:
        raise ParameterError(f'videos need PyAV ({error}); install it: pip install "av>=17,<19"') from error
    if int(av.__version__.split('.')[0]) not in _VERSIONS:
        raise ParameterError(f'videos need PyAV 17 or 18, not {av.__version__}; install it: pip install "av>=17,<19"')
    return av


class Decoder:
    """Decoder of a stream, in one thread, so that an error belongs to the packet that was given.

    Arguments:
        context: FFmpeg's decoder of the stream, not yet open.
    """

    def __init__(self, context: Any) -> None:
        self._av = import_av()
        detect = 'crccheck+bitstream+buffer' + ('' if context.name in _REPAIRING else '+explode')
        self._options = {'max_pixels': str(pictures.MAX_PIXELS), 'err_detect': detect}
        self._options |= _STRICT_AV1.get(context.name, {})
        self.concealing = context.name in _REPAIRING  # whether frames without their references are marked
        self._context = self._prepared(context)
        self._strict: Any = None
        if context.name == 'vp9':
            try:
                self._strict = self._prepared(self._av.CodecContext.create(_STRICT_VP9, 'r'))
            except ValueError:  # this FFmpeg was built without it
                return

    def _prepared(self, context: Any) -> Any:
        context.thread_count = 1
        context.options = dict(self._options)
        return context

    def decode(self, packet: Any) -> tuple[list[Any], bool]:
        """Return the frames that a packet completes, and whether it was refused; None flushes."""
        if self._strict is None:
            return self._decoded(self._context, packet)
        if packet is not None and packet.is_keyframe:
            # FFmpeg's decoder checks the size before it allocates, and knows the rotation
            frames, failed = self._decoded(self._context, packet)
            if failed:
                return [], True
            if any(frame.rotation for frame in frames):
                self._strict = None
                return frames, False
        return self._decoded(self._strict, packet)

    def _decoded(self, context: Any, packet: Any) -> tuple[list[Any], bool]:
        try:
            return context.decode(packet), False
        except (self._av.FFmpegError, OSError, ValueError, MemoryError):
            return [], True


def pixels_of(frame: Any, *, deep: bool) -> np.ndarray:
    """Return a decoded frame as `VideoFile.frames` gives it, but not turned."""
    name = frame.format.name
    if not deep or max(component.bits for component in frame.format.components) <= 8:
        return np.asarray(frame.to_ndarray(format='rgb24'))
    if name.startswith('gray') and 'f' not in name:
        plane = frame.planes[0]
        rows = np.frombuffer(plane, '>u2' if name.endswith('be') else '<u2').reshape(-1, plane.line_size // 2)
        return rows[: frame.height, : frame.width].astype(np.uint16)
    return np.asarray(frame.to_ndarray(format='rgb48le'))


def orientation_of(frame: Any) -> tuple[bool, int, int] | None:
    """Return how a frame is turned: whether rows and columns change places, and their directions.

    None if the container turns it by no quarter turn. The display matrix has the rows a b u, c d v
    and x y w, in fixed-point numbers. Reading it makes a cycle of references to the frame's pixels,
    so it is read once for a rotation.
    """
    if not frame.rotation:
        return False, 1, 1
    data = next((bytes(item) for item in frame.side_data if item.type.name == 'DISPLAYMATRIX'), b'')
    if len(data) < _MATRIX.size:
        return None
    a, b, u, c, d, v, _, _, w = _MATRIX.unpack_from(data)
    across, down = (c, b) if b else (a, d)
    scaled = all(_ONE // 4 <= abs(item) <= 4 * _ONE for item in (across, down))
    if not scaled or (a or d if b else c) or (u, v, w) != (0, 0, 1 << 30):
        return None
    return bool(b), 1 if down > 0 else -1, 1 if across > 0 else -1


def turned(pixels: np.ndarray, orientation: tuple[bool, int, int]) -> np.ndarray:
    """Return pixels turned as `orientation_of` says."""
    if orientation == (False, 1, 1):
        return pixels
    swap, down, across = orientation
    return np.ascontiguousarray((np.swapaxes(pixels, 0, 1) if swap else pixels)[::down, ::across])
