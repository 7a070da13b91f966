# SPDX-License-Identifier: MIT
"""Count of the coded frames in an MPEG transport stream, which has no header that tells."""

from __future__ import annotations

from typing import IO

import numpy as np

_CELL = 188  # bytes of a transport packet
_SYNC = 0x47
_CELLS = 1 << 14  # that are read at once
_MOST_SHARE = 0.05  # more starts than frames are fields, or other pieces of a frame


def frames_of(file: IO[bytes], stream_id: int, known: int) -> int:
    """Return the number of frames by the starts of their data; `known` if that is implausible.

    The position in the file is kept.

    Arguments:
        file: the whole file.
        stream_id: of the video.
        known: frames that could be read.
    """
    position = file.tell()
    file.seek(0)
    starts = 0
    while data := file.read(_CELL * _CELLS):
        cells = np.frombuffer(data, np.uint8)[: len(data) // _CELL * _CELL].reshape(-1, _CELL)
        whole = cells[:, 0] == _SYNC
        of_video = (cells[:, 1].astype(np.int64) & 0x1F) << 8 | cells[:, 2] == stream_id
        starts += int((whole & of_video & (cells[:, 1] & 0x40 > 0)).sum())
    file.seek(position)
    return starts if known < starts <= known + max(_MOST_SHARE * known, 2) else known
