# SPDX-License-Identifier: MIT
"""A live stream as the input of a sub-command: it is recorded first, then read as a video."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from typing import TYPE_CHECKING

from xmem_ros.cli.output import warn
from xmem_ros.outside_text import say

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from xmem_ros.video.address import StreamAddress

MAX_DURATION_S = 7 * 86400.0


def add_stream_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--duration`."""
    parser.add_argument(
        '--duration',
        type=_duration,
        metavar='S',
        help='record a stream for S seconds (default: until its end, Ctrl-C, or 1 GiB is left on the disk)',
    )


def recording_of(out: Path) -> Path:
    """Return the recording of a stream: `NAME.mkv` beside the destination."""
    return out.with_name(f'{out.name}.mkv')


def record_input(command: str, address: StreamAddress, out: Path, duration_s: float | None) -> Path:
    """Record a stream beside the destination; returns the recording. Ctrl-C ends it normally.

    Raises:
        XMemError: as `record_stream`.
        KeyboardInterrupt: Ctrl-C came before the first image.
    """
    from xmem_ros.errors import FrameError
    from xmem_ros.progress import Bar
    from xmem_ros.video.stream_recorder import record_stream

    path = recording_of(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    with _stopped_by_ctrl_c(stop), Bar(desc='recording', unit='image') as bar:
        try:
            recording = record_stream(
                address,
                path,
                lambda text: say(f'xmem-ros {command}: {text}', file=sys.stderr),
                stop=stop,
                duration_s=duration_s,
                progress=lambda images: bar.update(images - bar.n),
            )
        except FrameError as error:
            if stop.is_set():  # before the first image
                raise KeyboardInterrupt from error
            raise
    say(f'{path}: {recording.images} images in {recording.seconds:.1f} s recorded; {recording.end}')
    warn(command, [recording.damage] if recording.damage else [])
    return path


def write_first_image(recording: Path, out: Path) -> Path:
    """Write the first image of a recording, to draw a seed on, beside the destination."""
    import cv2

    from xmem_ros import atomic
    from xmem_ros.video.clip import Clip

    path = out.with_name(f'{out.name}.first.png')
    _, frame = next(iter(Clip(recording)))
    _, data = cv2.imencode('.png', frame[:, :, ::-1])
    atomic.write_bytes(path, data.tobytes())
    return path


@contextlib.contextmanager
def _stopped_by_ctrl_c(stop: threading.Event) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _duration(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= MAX_DURATION_S:
        raise argparse.ArgumentTypeError(f'{text!r} is not a duration; give seconds, up to {MAX_DURATION_S:g}')
    return value
