# SPDX-License-Identifier: MIT
"""Videos for tests, written by the real encoders: a disc whose place tells the frame's index."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from needs import require

require('av')

import av

SIZE = (48, 128)  # H×W
COUNT = 24
RATE = 24
GROUP = 8  # frames from one keyframe to the next
STEP = 4  # px that the disc moves in a frame
# file → encoder, pixel format and options
KINDS = {
    'h264.mp4': ('libx264', 'yuv420p', {}),
    'mpeg4.mp4': ('mpeg4', 'yuv420p', {}),
    'mjpeg.avi': ('mjpeg', 'yuvj420p', {}),
    'vp9.webm': ('libvpx-vp9', 'yuv420p', {'cpu-used': '8'}),
    'av1.mkv': ('libsvtav1', 'yuv420p', {'preset': '12', 'svtav1-params': 'lp=1'}),
    'h264.ts': ('libx264', 'yuv420p', {}),
}


def disc(index: int, size: tuple[int, int] = SIZE, step: int = STEP) -> np.ndarray:
    """Draw frame `index`, H×W×3 uint8 RGB."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    frame = np.repeat((40 + (2 * columns + rows) % 50).astype(np.uint8)[..., None], 3, 2)
    cv2.circle(frame, (16 + step * index, size[0] // 2), 7, (230, 220, 200), -1)
    return frame


def shown(frame: np.ndarray) -> int:
    """Return the index that the disc of a frame tells; −1 without a disc."""
    found = np.flatnonzero((frame.min(axis=2) > 150).sum(axis=0) > 4)
    return round((float(found.mean()) - 16) / STEP) if len(found) else -1


def write_video(
    path: Path,
    codec: str = 'libx264',
    pixels: str = 'yuv420p',
    options: dict[str, str] | None = None,
    *,
    count: int = COUNT,
    times: list[Fraction] | None = None,
    size: tuple[int, int] = SIZE,
    step: int = STEP,
) -> Path:
    """Write a video, at a constant rate or with the given times of its frames [s]."""
    clock = Fraction(1, RATE if times is None else 1000)
    # Matroska: a cluster for each group of pictures, as in long videos
    muxing = {'cluster_time_limit': '300'} if path.suffix in ('.mkv', '.webm') else {}
    if path.suffix == '.mp4':
        muxing = {'movflags': '+faststart'}
    with av.open(str(path), 'w', container_options=muxing) as container:
        stream = container.add_stream(codec, rate=RATE, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        context = stream.codec_context
        context.time_base, context.gop_size, context.thread_count = clock, GROUP, 1
        for index in range(count):
            picture = av.VideoFrame.from_ndarray(disc(index, size, step), format='rgb24')
            picture.pts = index if times is None else round(times[index] / clock)
            picture.time_base = clock
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def packets(path: Path) -> list[tuple[int, int, int, bool]]:
    """Return place and size [bytes], index and whether a keyframe, of all frames in file order."""
    with av.open(str(path)) as container:
        found = [(p.pos, p.size, p.pts, p.is_keyframe) for p in container.demux(video=0) if p.size]
    order = sorted(pts for _, _, pts, _ in found)
    return [(place, size, order.index(pts), key) for place, size, pts, key in found]
