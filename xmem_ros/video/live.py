# SPDX-License-Identifier: MIT
"""Packets of a live stream, read in a thread that connects again after a loss. PyAV."""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xmem_ros.errors import FrameError
from xmem_ros.video.address import Kind, StreamAddress
from xmem_ros.video.connection import Connection
from xmem_ros.video.decoder import import_av

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 10.0  # between attempts to connect; doubled after each
_MAX_WAITING = 600  # packets, 20 s at 30 a second
_CLOSED = 'the other side closed it'
_MAX_FAILURES = 100  # of reading, without a packet between them


@dataclass(frozen=True)
class Arrived:
    """A packet that has arrived.

    Attributes:
        packet: with its times.
        connection: from which it came; another object after a loss.
        time_ns: time of arrival by `time.monotonic_ns`.
    """

    packet: Any
    connection: Connection
    time_ns: int


class LiveStream:
    """Packets of a live stream; a context manager that ends the reading.

    After a loss of the connection it connects again, with pauses of 0.5 s, 1 s, … 10 s. A
    connection is lost after an error, at its end unless that is known, and after 10 s without a
    packet. A file on a server or a pipe ends instead, since it would begin again.

    Arguments:
        address: what to read.
        tell: receives one line for each change of the state, from another thread.
        newest: drop packets from before the newest keyframe that were not taken in time; else the
            reading waits.
        give_up_s: time without a connection after which the stream has ended; None: never.

    Attributes:
        losses: number of lost connections.
        reason: why the stream ended; '' at its own end.
    """

    def __init__(
        self,
        address: StreamAddress,
        tell: Callable[[str], None],
        *,
        newest: bool = False,
        give_up_s: float | None = None,
    ) -> None:
        import_av()  # for its error
        self.address, self.losses, self.reason = address, 0, ''
        self._tell, self._newest, self._give_up_s = tell, newest, give_up_s
        self._waiting: deque[Arrived] = deque()
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._ended = self._behind = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name='stream', daemon=True)
        self._thread.start()

    def take(self, seconds: float) -> Arrived | None:
        """Take the next packet; None if none arrives within a time, or the stream has `ended`.

        Raises:
            FrameError: the first connection failed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended, seconds)
            if self._waiting:
                arrived = self._waiting.popleft()
                self._changed.notify_all()
                return arrived
            if self._error is not None:
                raise self._error
            return None

    @property
    def waiting(self) -> bool:
        """Whether another packet has arrived."""
        return bool(self._waiting)

    @property
    def ended(self) -> bool:
        """Whether all packets were taken, and no more will arrive."""
        return self._ended and not self._waiting

    def __enter__(self) -> LiveStream:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        with self._changed:
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join(timeout=1)  # a read from the network ends with its time limit only

    def _run(self) -> None:
        try:
            self._read_connections()
        except Exception as error:  # raised where packets are taken
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _read_connections(self) -> None:
        pause = FIRST_PAUSE_S
        lost_ns = 0
        while not self._stop.is_set():
            try:
                connection = Connection(self.address, self._stop)
            except FrameError as error:
                if not self.losses:
                    raise
                reason = str(error)
            else:
                again = f' again after {(time.monotonic_ns() - lost_ns) / 1e9:.1f} s' if self.losses else ''
                self._tell(f'{self.address}: connected{again} ({connection.describe()})')
                count, reason = self._read(connection)
                finite = connection.finite
                del connection  # closes it, once no packet needs it
                if self._stop.is_set() or not reason:
                    return
                if count and finite:
                    self.reason = f'it broke off ({reason})'
                    self._tell(f'{self.address}: {self.reason}')
                    return
                if count:
                    lost_ns, pause = time.monotonic_ns(), FIRST_PAUSE_S
                    self._tell(f'{self.address}: connection lost ({reason}); connecting again')
                elif not self.losses:
                    raise FrameError(f'{self.address}: no image arrived ({reason}); check the camera')
                self.losses += count > 0
            if self._give_up_s is not None and time.monotonic_ns() - lost_ns > self._give_up_s * 1e9:
                self.reason = f'the connection was lost and did not come back within {self._give_up_s:g} s'
                self._tell(f'{self.address}: {self.reason} ({reason})')
                return
            self._stop.wait(pause)
            pause = min(2 * pause, MAX_PAUSE_S)

    def _read(self, connection: Connection) -> tuple[int, str]:
        """Read a connection until its loss; return the number of packets, and the reason."""
        av = import_av()
        failures = count = 0
        last_ns = time.monotonic_ns()
        while not self._stop.is_set():
            try:
                # all streams, since sound may go on without images
                for packet in connection.container.demux():
                    now_ns = time.monotonic_ns()
                    if packet.stream_index == connection.stream.index and packet.size:
                        last_ns, failures = now_ns, 0
                        count += 1
                        self._put(Arrived(packet, connection, now_ns))
                    elif self.address.kind is not Kind.PIPE and now_ns - last_ns > connection.silence_s * 1e9:
                        return count, f'no image for {connection.silence_s:g} s'
                    if self._stop.is_set():
                        return count, ''
                return count, '' if connection.finite else _CLOSED
            except av.InvalidDataError as error:  # damaged, but more may follow
                failures += 1
                if failures > _MAX_FAILURES:
                    return count, error.strerror
            except (av.ExitError, TimeoutError):
                return count, f'no image for {connection.silence_s:g} s'
            except (av.FFmpegError, OSError, ValueError) as error:
                closed = getattr(error, 'errno', None) == errno.EIO
                return count, _CLOSED if closed else getattr(error, 'strerror', None) or str(error)
        return count, ''

    def _put(self, arrived: Arrived) -> None:
        with self._changed:
            if not self._newest:
                self._changed.wait_for(lambda: len(self._waiting) < _MAX_WAITING or self._stop.is_set())
            elif arrived.packet.is_keyframe:
                self._waiting.clear()
                self._behind = False
            elif len(self._waiting) >= _MAX_WAITING:
                self._waiting.clear()
                self._behind = True
            if not self._behind:
                self._waiting.append(arrived)
                self._changed.notify_all()
