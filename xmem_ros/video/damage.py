# SPDX-License-Identifier: MIT
"""Damaged frames of a video, and those that are predicted from them. No FFmpeg."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xmem_ros.video.index import FrameIndex

_MAX_WAITING = 64  # packets without a frame; with more, the oldest is lost
_MAX_HELD = 17  # frames; a decoder reorders at most 16


class Judge:
    """Verdicts on decoded frames, in the order of display.

    A frame can be predicted from one that is displayed after it. Whether that one is damaged is
    known when the decoder gives it. Until then the frame is held.

    Arguments:
        index: of the video.
        concealing: whether the decoder marks frames whose references are missing, so that a packet
            without a frame is damage only if it is a keyframe.
    """

    def __init__(self, index: FrameIndex, *, concealing: bool) -> None:
        self._index = index
        self._concealing = concealing
        self._intra = len(index.keyframes) == len(index.frame_of)
        self._keys = {int(frame) for frame in index.keyframes}
        self._bad: set[int] = set()  # packets
        self._start = 0  # frame that begins the current group of pictures
        self._group: list[tuple[int, int]] = []  # bad frame, and packet after which it would be used
        for packet in index.suspects:
            self.spoil(packet)
        self._lost = sorted(index.lost, key=lambda loss: loss.first, reverse=True)
        self._waiting: dict[int, int] = {}  # packet that the decoder has → its frame
        self._held: list[tuple[int, int, Any]] = []  # packet, number, frame

    def sent(self, packet: int) -> None:
        """Note that the decoder got a packet."""
        frame = int(self._index.frame_of[packet])
        if self._index.ordered and frame >= 0:
            self._waiting[packet] = frame
            if len(self._waiting) > _MAX_WAITING:
                self._give_up(next(iter(self._waiting)))

    def spoil(self, packet: int) -> None:
        """Note that the frame of a packet is damaged."""
        if packet not in self._bad:
            self._bad.add(packet)
            self._group.append((int(self._index.frame_of[packet]), packet))

    def refused(self, packet: int) -> None:
        """Note that the decoder gives no frame for a packet."""
        self.spoil(packet)
        self._waiting.pop(packet, None)

    def decoded(self, packet: int, number: int, frame: Any) -> None:
        """Take the frame that a decoder gives for a packet."""
        self._waiting.pop(packet, None)
        for other in [item for item, place in self._waiting.items() if place < number]:
            self._give_up(other)
        self._held.append((packet, number, frame))

    def judged(self, *, final: bool = False) -> Iterator[tuple[int, Any, bool]]:
        """Yield number, frame and whether it is whole, of the frames that can be judged."""
        while self._held:
            packet, number, frame = self._held[0]
            oldest = next(iter(self._waiting), packet)
            if not final and oldest < packet and len(self._held) <= _MAX_HELD:
                return
            del self._held[0]
            yield number, frame, not self._reaches(packet)

    def _give_up(self, packet: int) -> None:
        """Note that a packet's frame is overdue."""
        if self._waiting.pop(packet) in self._keys or not self._concealing:
            self.spoil(packet)

    def _reaches(self, packet: int) -> bool:
        """Return whether the frame of a packet is damaged or may be predicted from one that is."""
        if packet in self._bad:
            return True
        if self._intra:
            return False
        frame = int(self._index.frame_of[packet])
        while self._lost and self._lost[-1].first <= frame:
            loss = self._lost.pop()
            self._group.append((loss.frame, loss.after))
        place = int(np.searchsorted(self._index.keyframes, frame, side='right')) - 1
        start = int(self._index.keyframes[place]) if place >= 0 else 0
        if start != self._start:
            self._start = start
            self._group = [item for item in self._group if item[0] >= start]
        return any(source < packet for _, source in self._group)
