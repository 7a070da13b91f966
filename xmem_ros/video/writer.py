# SPDX-License-Identifier: MIT
"""Writing of videos by PyAV: H.264 in MP4. No ROS, no torch."""

from __future__ import annotations

import contextlib
import logging
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from xmem_ros import atomic
from xmem_ros.errors import FrameError, OutputError
from xmem_ros.video.decoder import import_av
from xmem_ros.video.reader import VideoFile

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

# MPEG-4's times have a denominator of 16 bits; 60 000 divides by the usual rates.
_CODECS = {'libx264': 1_000_000, 'mpeg4': 60_000}  # ticks per second
_OPTIONS = {'libx264': {'preset': 'veryfast', 'crf': '20'}, 'mpeg4': {'qscale': '3'}}
_THREADS = 4  # a fixed number, since the bytes depend on it
_BT709 = 1  # of FFmpeg's colour spaces, primaries and transfer functions
_LIMITED = 1  # range of the values: 16 to 235

log = logging.getLogger(__name__)


class VideoWriter:
    """Writer of frames H×W×3 uint8 RGB to an H.264 video (.mp4); a context manager.

    Without an H.264 encoder it writes MPEG-4. A frame of odd width or height is padded by a pixel.
    Equal frames and times give equal bytes. The file appears at the end of the context, unless an
    exception leaves it.

    Arguments:
        path: the file.
        rate: frames/s, for frames without a time.

    Raises:
        FrameError: the file cannot be created.
        OutputError: frames are missing in the file, for example after the disk ran full.
        ParameterError: PyAV is not installed.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path = path
        self.rate = rate
        self._av = import_av()
        self._count = 0  # frames
        self._start_ns: int | None = None
        self._ticks = -1  # time of the last frame
        self._size: tuple[int, ...] = ()
        self._file: atomic.Replacement | None = None
        self._container: Any = None
        self._stream: Any = None

    def write(self, frame: np.ndarray, time_ns: int | None = None) -> None:
        """Append a frame, H×W×3 uint8 RGB, of the first one's size.

        Arguments:
            frame: the pixels.
            time_ns: when it is shown; increasing. None: by the rate.
        """
        if self._container is None:
            self._open(frame.shape)
        assert self._file is not None
        if frame.shape != self._size:
            raise FrameError(f'{self.path}: a frame {frame.shape}, earlier ones {self._size}; all must have one size')
        if time_ns is None:
            seconds = Fraction(self._count) / Fraction(self.rate)
        else:
            self._start_ns = time_ns if self._start_ns is None else self._start_ns
            seconds = Fraction(time_ns - self._start_ns, 10**9)
        height, width = frame.shape[:2]
        if height % 2 or width % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), 'edge')
        picture = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format='rgb24')
        picture = picture.reformat(format='yuv420p', dst_colorspace='ITU709', dst_color_range='MPEG')
        clock = self._stream.codec_context.time_base
        self._ticks = max(round(seconds / clock), self._ticks + 1)
        picture.pts, picture.time_base = self._ticks, clock
        self._count += 1
        with self._written():
            self._container.mux(self._stream.encode(picture))

    def _open(self, size: tuple[int, ...]) -> None:
        try:
            self._file = atomic.Replacement(self.path, suffix='.mp4', sync=False)
        except OSError as error:
            raise FrameError(
                f'{self.path}: this video cannot be written ({error.strerror}); choose another file'
            ) from error
        codec = next((name for name in _CODECS if self._is_encoder(name)), None)
        if codec is None:
            self._file.discard()
            raise FrameError(f'{self.path}: this FFmpeg has no encoder of H.264 or MPEG-4; install PyAV from PyPI')
        if codec != 'libx264':
            log.warning(
                '%s: this FFmpeg has no H.264 encoder; the video is MPEG-4, which browsers do not show', self.path
            )
        ticks = _CODECS[codec]
        self._size = size
        with self._written():
            # "file:", so that no part of the name is taken for a protocol
            self._container = self._av.open(
                f'file:{self._file.path}',
                'w',
                format='mp4',
                container_options={'movflags': '+faststart', 'video_track_timescale': str(ticks)},
            )
            rate = Fraction(min(max(self.rate, 0.1), 1000.0)).limit_denominator(1001)
            self._stream = self._container.add_stream(codec, rate=rate, options=_OPTIONS[codec])
            context = self._stream.codec_context
            self._stream.height, self._stream.width = (side + side % 2 for side in size[:2])
            self._stream.pix_fmt = 'yuv420p'
            context.time_base = self._stream.time_base = Fraction(1, ticks)
            context.thread_count = _THREADS
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = _LIMITED

    def _is_encoder(self, name: str) -> bool:
        try:
            self._av.codec.Codec(name, 'w')
        except ValueError:
            return False
        return True

    @contextlib.contextmanager
    def _written(self) -> Any:
        try:
            yield
        except (self._av.FFmpegError, OSError) as error:
            self._discard()
            reason = getattr(error, 'strerror', None) or error
            raise OutputError(f'{self.path}: cannot be written ({reason}); check the room on the disk') from error

    def _discard(self) -> None:
        assert self._file is not None
        with contextlib.suppress(self._av.FFmpegError, OSError, ValueError):
            if self._container is not None:
                self._container.close()
        self._file.discard()
        self._file = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        if kind is not None:
            self._discard()
            return
        with self._written():
            self._container.mux(self._stream.encode(None))
            self._container.close()
        self._check(self._file)
        self._file.commit()

    def _check(self, file: atomic.Replacement) -> None:
        try:
            found = len(VideoFile(file.path))
        except FrameError:
            found = 0
        if found != self._count:
            file.discard()
            raise OutputError(
                f'{self.path}: only {found} of {self._count} frames could be written; check the room on the disk'
            )
