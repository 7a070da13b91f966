# SPDX-License-Identifier: MIT
"""Opening of live streams by FFmpeg, with a limit on protocols, formats and time. PyAV."""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmem_ros import pictures
from xmem_ros.errors import FrameError
from xmem_ros.video.address import Kind
from xmem_ros.video.decoder import import_av

if TYPE_CHECKING:
    from xmem_ros.video.address import StreamAddress

SILENCE_S = 10.0  # without a packet, after which a connection is lost
_PLAYLIST = '.m3u8'  # whose images come in segments of several seconds
_PLAYLIST_SILENCE_S = 30.0
# Only these, also for what a playlist, a redirection or an RTSP server names: no local files.
_PROTOCOLS = 'rtsp,rtp,udp,tcp,tls,http,https'
# Without MP4: its tables promise billions of samples in a few bytes, and cannot be checked here.
_FORMATS = 'mpegts,mpeg,matroska,webm,flv,ogg,mpjpeg,mjpeg,h264,hevc,m4v,mpegvideo'
_NETWORK_FORMATS = f'{_FORMATS},hls,rtsp,rtp,sdp'
_PROBING = {'fpsprobesize': '2'}  # images that are awaited to guess the rate; 20 by default
_READABLE = (
    'readable are RTSP, HLS, MPEG-TS, Matroska (WebM), FLV, MJPEG and raw H.264 or HEVC; '
    'download another video, such as MP4, and give the file'
)
_NO_TIMES = 0x80  # FFmpeg's AVFMT_NOTIMESTAMPS
# Raw images take 10 to 20 times the space.
_CAMERA_OPTIONS: tuple[dict[str, str], ...] = ({'input_format': 'mjpeg'}, {})


class Connection:
    """An open stream.

    It is closed with its last packet, since packets refer to it.

    Arguments:
        address: what to open.
        stop: ends the reading of a pipe, which has no time limit.

    Attributes:
        container: of PyAV.
        stream: its best video stream.
        silence_s: time without a packet after which it is lost [s].
        untimed: whether the format has no times, so that FFmpeg makes them up from a usual rate.
        finite: whether its end is known: a file on a server, or a pipe.

    Raises:
        FrameError: it cannot be opened; the text says what to do.
        ParameterError: PyAV is not installed.
    """

    def __init__(self, address: StreamAddress, stop: threading.Event) -> None:
        self.address, self._stop = address, stop
        playlist = re.split('[?#]', address.url, maxsplit=1)[0].endswith(_PLAYLIST)
        self.silence_s = _PLAYLIST_SILENCE_S if playlist else SILENCE_S
        self._pipe: _Pipe | None = None
        self.container = self._open(import_av())
        self.stream = self.container.streams.best('video')
        if self.stream is None or self.stream.codec_context is None:
            raise FrameError(f'{address}: no video that can be decoded in this stream')
        codec = self.stream.codec_context
        try:
            pictures.check_pixels(codec.width, codec.height)
        except FrameError as error:
            raise FrameError(f'{address}: its frames are {error}') from error
        form = self.container.format
        self.untimed = bool(form.flags & _NO_TIMES) or address.kind is Kind.CAMERA
        duration, size = self.container.duration, self.container.size
        self.finite = address.kind is Kind.PIPE or bool(duration and duration > 0) or bool(size and size > 0)

    def describe(self) -> str:
        """Return codec and size, as in 'h264, 1280×720 px'."""
        codec = self.stream.codec_context
        return f'{codec.name}, {codec.width}×{codec.height} px'

    def parameters(self) -> tuple[str, int, int, bytes]:
        """Return all on which the decoding of packets depends."""
        codec = self.stream.codec_context
        return codec.name, codec.width, codec.height, bytes(codec.extradata or b'')

    def _open(self, av: Any) -> Any:
        kind, url = self.address.kind, self.address.url
        limits: dict[str, Any] = {'timeout': (SILENCE_S, self.silence_s), 'metadata_errors': 'backslashreplace'}
        if kind is Kind.PIPE:
            self._pipe = _Pipe(self._stop)
        try:
            if self._pipe is not None:
                options = {'format_whitelist': _FORMATS, 'protocol_whitelist': 'none', **_PROBING}
                limits['timeout'] = None  # who writes into it may take time
                return av.open(self._pipe, container_options=options, io_open=_refuse, buffer_size=1 << 16, **limits)
            if kind is Kind.NETWORK:
                options = {'format_whitelist': _NETWORK_FORMATS, 'protocol_whitelist': _PROTOCOLS, **_PROBING}
                if url.startswith('rtsp'):
                    options['rtsp_flags'] = 'prefer_tcp'  # UDP loses packets
                return av.open(url, container_options=options, **limits)
            return self._open_camera(av, limits)
        except (av.FFmpegError, OSError, ValueError, RuntimeError) as error:
            raise FrameError(f'{self.address}: {self._reason(av, error)}') from error

    def _open_camera(self, av: Any, limits: dict[str, Any]) -> Any:
        os.close(os.open(self.address.url, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))  # for the exact error
        for options in _CAMERA_OPTIONS:
            try:
                return av.open(self.address.url, format='video4linux2', container_options=options, **limits)
            except (av.FFmpegError, OSError, ValueError):
                if options == _CAMERA_OPTIONS[-1]:
                    raise
        raise AssertionError

    def _reason(self, av: Any, error: Exception) -> str:
        """Return what is wrong, and what to do."""
        number = getattr(error, 'errno', None)
        text = getattr(error, 'strerror', None) or str(error) or type(error).__name__
        if isinstance(error, av.HTTPUnauthorizedError | av.HTTPForbiddenError):
            return f'the server refuses access ({text}); give user and password: scheme://user:password@host/path'
        if isinstance(error, av.HTTPError | av.HTTPClientError):
            return f'the server does not have it ({text}); check the path of the address'
        if isinstance(error, av.ExitError | TimeoutError):
            return f'no video within {SILENCE_S:g} s; check the address, and that the camera is on'
        if self.address.kind is Kind.CAMERA:
            return _camera_reason(number, text)
        if self._pipe is not None and not self._pipe.count:
            return 'nothing to read; write a video into the pipe'
        if number in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH):
            return f'cannot be reached ({text.lower()}); check host and port, and that the camera is on'
        if number == errno.EIO and self.address.host and not _is_known(self.address.host):
            return f'the host {self.address.host} is unknown; check its name and the network'
        if number == errno.EIO and self.address.kind is Kind.NETWORK:
            text = 'the connection was closed'
        return f'not a video stream that can be read ({text}); {_READABLE}'


def _camera_reason(number: int | None, text: str) -> str:
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        there = ', '.join(sorted(map(str, Path('/dev').glob('video*')))) or 'none'
        return f'no such camera; cameras here: {there}'
    if number in (errno.EACCES, errno.EPERM):
        return 'not allowed to use this camera; add yourself to the group video: sudo usermod -aG video $USER'
    if number == errno.EBUSY:
        return 'the camera is in use; end the other program'
    return f'not a camera that gives images ({text}); the next index may be'


def _is_known(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except (OSError, UnicodeError):
        return False


class _Pipe:
    """Standard input, without a buffer that would hold back a live video."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self.count = 0  # bytes read
        if sys.stdin is None or sys.stdin.closed or os.isatty(sys.stdin.fileno()):
            raise FrameError('standard input: not a pipe; write a video into it: ffmpeg … -f mpegts - | xmem-ros …')
        self._descriptor = sys.stdin.fileno()

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; b'' at the end."""
        while not self._stop.is_set():
            if select.select([self._descriptor], [], [], 0.2)[0]:
                data = os.read(self._descriptor, size)
                self.count += len(data)
                return data
        return b''


def _refuse(url: str, *_: object) -> Any:
    raise PermissionError(f'a video that names another file or address: {url!r}')
