# SPDX-License-Identifier: MIT
"""Newest frames of a live stream: a URL, a camera index or a pipe."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from xmem_ros import pictures
from xmem_ros.errors import FrameError
from xmem_ros.video.decoder import Decoder, pixels_of
from xmem_ros.video.live import LiveStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

    from xmem_ros.video.address import StreamAddress

_POLL_S = 0.2
_MAX_WAIT_NS = 100_000_000  # while newer packets wait to be decoded
_BLIND_NS = 10_000_000_000  # without a frame, though packets arrive


def newest_frames(
    address: StreamAddress, tell: Callable[[str], None], running: Callable[[], bool]
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the newest frame H×W×3 uint8 RGB and when it arrived, by `time.monotonic_ns`.

    Frames that arrive while the caller is busy are dropped.

    Arguments:
        address: the stream.
        tell: receives a line for each change of the state, from any thread.
        running: whether to go on; asked at least every 0.2 s.

    Raises:
        FrameError: the stream cannot be opened, or none of its frames decoded.
        ParameterError: PyAV is not installed.
    """
    connection = decoder = None
    given_ns = seen_ns = 0
    with LiveStream(address, tell, newest=True) as stream:
        while running():
            arrived = stream.take(_POLL_S)
            if arrived is None and not stream.ended:
                continue
            if arrived is not None and arrived.connection is not connection:
                connection = arrived.connection
                decoder, seen_ns = Decoder(connection.stream.codec_context), time.monotonic_ns()
            frame = None if decoder is None else _decoded(decoder, None if arrived is None else arrived.packet)
            now_ns = time.monotonic_ns()
            if frame is not None and not (stream.waiting and now_ns - given_ns < _MAX_WAIT_NS):
                given_ns = seen_ns = now_ns
                yield pixels_of(frame, deep=False), now_ns if arrived is None else arrived.time_ns
            elif frame is None and now_ns - seen_ns > _BLIND_NS:
                tell(f'{address}: no frame could be decoded for {_BLIND_NS // 10**9} s')
                seen_ns = now_ns
            if arrived is None:
                break
        if running() and not given_ns:
            raise FrameError(f'{address}: no frame of this stream can be decoded; check the camera')


def _decoded(decoder: Decoder, packet: Any) -> Any:
    """Return the newest whole frame that a packet completes, or None."""
    frames, _ = decoder.decode(packet)
    whole = [frame for frame in frames if not frame.is_corrupt]
    if not whole:
        return None
    pictures.check_pixels(whole[-1].width, whole[-1].height)
    return whole[-1]
