# SPDX-License-Identifier: MIT
"""Recording of a live stream to a Matroska file, without decoding. PyAV."""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import shutil
import time
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from xmem_ros.errors import FrameError, OutputError, ParameterError, Setting, naming
from xmem_ros.video.decoder import import_av
from xmem_ros.video.live import Arrived, LiveStream

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from xmem_ros.video.address import StreamAddress
    from xmem_ros.video.connection import Connection

GIVE_UP_S = 60.0  # without a connection, after which a recording ends
RESERVED_BYTES = 1 << 30  # of the disk that stay free
_CHECK_EVERY_NS = 1_000_000_000  # for room on the disk
_POLL_S = 0.2
_KEYFRAME_NS = 10_000_000_000  # that the first keyframe of a connection is awaited at most
_USUAL_RATE = 30  # images/s
_TICK = 1_000_000  # of Matroska's times, ns
_REORDER = 1_000_000_000  # that images are decoded before they are shown at most, ns
_OPTIONS = {'cluster_time_limit': '1000', 'flush_packets': '1'}  # so that a crash costs a second at most


@dataclass
class StreamRecording:
    """What was recorded.

    Attributes:
        path: Matroska file; its `creation_time` is the wall-clock time of the first image.
        images: number of images.
        seconds: from the first image to the last one [s].
        end: why the recording ended.
        gaps: begin and end [s since the first image] of times without a connection.
    """

    path: Path
    images: int = 0
    seconds: float = 0.0
    end: str = ''
    gaps: list[tuple[float, float]] = field(default_factory=list)

    @property
    def damage(self) -> str:
        """Lost connections, in words; '' if there were none."""
        if not self.gaps:
            return ''
        times = ', '.join(f'{begin:.1f} to {end:.1f} s' for begin, end in self.gaps[:5])
        more = f' and {len(self.gaps) - 5} more' if len(self.gaps) > 5 else ''
        count = 'once' if len(self.gaps) == 1 else f'{len(self.gaps)} times'
        return f'{self.path}: the connection was lost {count}; no images from {times}{more}'


def record_stream(
    address: StreamAddress,
    path: Path,
    tell: Callable[[str], None],
    *,
    stop: threading.Event,
    duration_s: float | None = None,
    progress: Callable[[int], None] = lambda _images: None,
) -> StreamRecording:
    """Record a stream until its end, a duration or `stop`.

    It also ends when 1 GiB of the disk is left, when the stream changes its codec or size, and
    after 60 s without a connection. The file can be read at any time, also after a crash.

    Arguments:
        address: the stream.
        path: the file; must not exist.
        tell: receives a line for each change of the state, from another thread.
        stop: ends the recording.
        duration_s: from the first image [s].
        progress: receives the number of images.

    Raises:
        FrameError: the stream cannot be opened, or gives no image.
        OutputError: the file cannot be written.
        ParameterError: the file exists, or PyAV is not installed.
    """
    _check_room(path)
    recording = StreamRecording(path)
    with LiveStream(address, tell, give_up_s=GIVE_UP_S) as stream, _File(recording) as file:
        checked = time.monotonic_ns()
        while not recording.end:
            arrived = stream.take(_POLL_S)
            now = time.monotonic_ns()
            passed = duration_s is not None and max(recording.seconds, file.elapsed(now)) >= duration_s
            if (stop.is_set() or passed) and (arrived is None or file.is_ahead(arrived)):
                recording.end = 'the duration has passed' if passed else 'interrupted'
            elif arrived is not None:
                file.write(arrived)
                progress(recording.images)
            elif stream.ended:
                recording.end = stream.reason or 'the stream ended'
            if now - checked > _CHECK_EVERY_NS:
                checked = now
                if shutil.disk_usage(path.parent).free < RESERVED_BYTES:
                    recording.end = f'less than {RESERVED_BYTES >> 30} GiB of the disk is left'
    if not recording.images:
        raise FrameError(f'{address}: no image was recorded ({recording.end}); check the camera')
    return recording


def _check_room(path: Path) -> None:
    if os.path.lexists(path):
        text = (
            f'{path}: already exists; if it is the recording of an earlier run, give it instead of the stream, or '
            'choose another destination'
        )
        raise naming(Setting.DESTINATION, ParameterError(text))
    if shutil.disk_usage(path.parent).free < RESERVED_BYTES:
        raise OutputError(f'{path}: less than {RESERVED_BYTES >> 30} GiB of the disk is left; make room')


class _File:
    """Writer of packets; the file appears with the first one. All times in ns."""

    def __init__(self, recording: StreamRecording) -> None:
        self._av = import_av()
        self._recording = recording
        self._start_ns: int | None = None  # arrival of the first image
        self._file: Any = None
        self._container: Any = None
        self._stream: Any = None
        self._connection: Connection | None = None
        self._parameters: tuple[str, int, int, bytes] | None = None
        self._since = 0  # arrival of the connection's first packet
        self._held: Arrived | None = None  # first image of the connection, without a time
        self._running = False  # whether the connection has had a keyframe
        self._first = self._shift = 0  # first time of the connection, and from its times to the file's
        self._begun = self._count = 0  # first time in the file of the connection, and its images
        self._period = 0.0  # between images of the connection
        self._shown, self._decoded = 0, -_REORDER  # newest times in the file

    def write(self, arrived: Arrived) -> None:
        """Write a packet, or note in the recording why it ends."""
        packet = arrived.packet
        if arrived.connection is not self._connection:
            self._connection, self._running, self._since = arrived.connection, False, arrived.time_ns
        shown, decoded = _times(arrived)
        if shown is None:
            if not self._running and packet.is_keyframe:
                self._held = arrived
            return
        if self._held is not None and not self._running:
            self._write_held(arrived)
        if not self._running or self._due(decoded) > shown + self._shift:  # or the stream's times begin again
            waited = arrived.time_ns - self._since > _KEYFRAME_NS  # some streams have no keyframes
            if not (packet.is_keyframe or (waited and not self._running)) or not self._begin(arrived, shown, decoded):
                return
        if shown < self._first:  # predicted from images before the first one
            return
        self._shown, self._decoded = max(self._shown, shown + self._shift), self._due(decoded)
        packet.time_base = Fraction(1, 10**9)
        packet.pts, packet.dts = shown + self._shift, self._decoded
        packet.stream = self._stream
        with _written(self._recording.path):
            self._container.mux(packet)
        self._recording.images += 1
        self._count += 1
        self._period = (self._shown - self._begun) / (self._count - 1) if self._count > 1 else 0.0
        self._recording.seconds = self._shown / 1e9

    def _write_held(self, following: Arrived) -> None:
        """Write the first image of a connection, which has no time with RTSP: a period earlier."""
        held, self._held = self._held, None
        if held is None or held.connection is not following.connection:
            return
        packet, stream = following.packet, following.connection.stream
        rate = stream.average_rate or stream.guessed_rate or _USUAL_RATE
        given = [ticks for ticks in (packet.pts, packet.dts) if ticks is not None]
        held.packet.pts = held.packet.dts = min(given) - round(1 / (rate * packet.time_base))
        self.write(held)

    def _due(self, decoded: int | None) -> int:
        """Return a packet's time of decoding in the file, which increases; Matroska ignores it."""
        return self._decoded + _TICK if decoded is None else max(decoded + self._shift, self._decoded + _TICK)

    def _begin(self, arrived: Arrived, shown: int, decoded: int | None) -> bool:
        """Place the times of a connection; False if its images cannot be in the same file."""
        connection = arrived.connection
        if self._container is None:
            self._open(arrived)
            begin = 0
        elif connection.parameters() != self._parameters:
            self._recording.end = f'the stream has changed: now {connection.describe()}; record it to another file'
            return False
        else:
            assert self._start_ns is not None
            delay = 0 if decoded is None else max(shown - decoded, 0)
            begin = max(arrived.time_ns - self._start_ns, self._shown + delay + 2 * _TICK)
            if self._period:  # between two images of a constant rate: a whole number of them would count as lost
                periods = math.ceil((begin - self._shown) / self._period - 0.5) + 0.5
                begin = self._shown + round(periods * self._period)
            if not self._running:
                self._recording.gaps.append((self._shown / 1e9, begin / 1e9))
        self._first, self._shift, self._running = shown, begin - shown, True
        self._begun, self._count = begin, 0
        return True

    def _open(self, arrived: Arrived) -> None:
        path, connection = self._recording.path, arrived.connection
        self._start_ns, self._parameters = arrived.time_ns, connection.parameters()
        age = datetime.timedelta(microseconds=(time.monotonic_ns() - arrived.time_ns) / 1000)
        wall = (datetime.datetime.now(datetime.timezone.utc) - age).isoformat(timespec='milliseconds')
        with _written(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            self._file = os.fdopen(descriptor, 'w+b', buffering=0)
            self._container = self._av.open(self._file, 'w', format='matroska', container_options=_OPTIONS)
            self._container.metadata['creation_time'] = wall.replace('+00:00', 'Z')
            codec = connection.stream.codec_context
            try:
                self._stream = self._container.add_stream_from_template(connection.stream, opaque=True)
            except ValueError as error:
                text = f'{connection.address}: {codec.name} cannot be recorded; set the camera to H.264'
                raise FrameError(text) from error
            if codec.name == 'rawvideo':  # the tag says how pixels are laid out
                self._stream.codec_context.codec_tag = codec.codec_tag

    def is_ahead(self, arrived: Arrived) -> bool:
        """Return whether all images that are shown before this one have arrived."""
        shown, _ = _times(arrived)
        return not self._running or shown is None or shown + self._shift > self._shown

    def elapsed(self, now_ns: int) -> float:
        """Return the time since the first image arrived [s]."""
        return 0.0 if self._start_ns is None else (now_ns - self._start_ns) / 1e9

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with self._file, _written(self._recording.path):
                if self._container is not None:
                    self._container.close()
                if not self._recording.images:
                    self._recording.path.unlink()


def _times(arrived: Arrived) -> tuple[int | None, int | None]:
    """Return when an image is shown and decoded [ns], by its own clock or that of its arrival."""
    packet = arrived.packet
    if arrived.connection.untimed:
        return arrived.time_ns, arrived.time_ns
    shown, decoded = (
        None if ticks is None else round(ticks * packet.time_base * 10**9) for ticks in (packet.pts, packet.dts)
    )
    if not arrived.connection.stream.codec_context.has_b_frames:  # one tells the other
        shown = decoded if shown is None else shown
        decoded = shown if decoded is None else decoded
    return shown, decoded


@contextlib.contextmanager
def _written(path: Path) -> Iterator[None]:
    """Turn errors of writing into `OutputError`."""
    try:
        yield
    except FrameError:
        raise
    except (import_av().FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise OutputError(f'{path}: cannot be written ({reason}); check the room on the disk') from error
