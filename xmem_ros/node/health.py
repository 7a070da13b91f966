# SPDX-License-Identifier: MIT
"""Health of the node: a level and a stable code that a supervisor can act on. No ROS."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xmem_ros.stream.worker import Counts

RATE_WINDOW_S = 5.0


class Level(Enum):
    """Levels of diagnostic_msgs/DiagnosticStatus."""

    OK, WARN, ERROR = range(3)


class Code(Enum):
    """What the node is doing or lacks; the values are stable."""

    OK = 'ok'
    UNCONFIGURED = 'unconfigured'
    CONFIGURING = 'configuring'
    INACTIVE = 'inactive'
    FINALIZED = 'finalized'
    NO_IMAGES = 'no_images'
    UNREADABLE_IMAGES = 'unreadable_images'
    TOO_SLOW = 'too_slow'
    MEMORY_SHED = 'memory_shed'
    ALL_OBJECTS_LOST = 'all_objects_lost'
    MEMORY_NOT_LOADED = 'memory_not_loaded'
    MEMORY_NOT_SAVED = 'memory_not_saved'
    TRANSITION_FAILED = 'transition_failed'
    FAULTED = 'faulted'

    @property
    def level(self) -> Level:
        """How urgent it is."""
        return _LEVELS.get(self, Level.OK)


_LEVELS = {
    Code.NO_IMAGES: Level.WARN,
    Code.UNREADABLE_IMAGES: Level.WARN,
    Code.TOO_SLOW: Level.WARN,
    Code.MEMORY_SHED: Level.WARN,
    Code.ALL_OBJECTS_LOST: Level.WARN,
    Code.MEMORY_NOT_LOADED: Level.WARN,
    Code.MEMORY_NOT_SAVED: Level.WARN,
    Code.TRANSITION_FAILED: Level.ERROR,
    Code.FAULTED: Level.ERROR,
}


@dataclass(frozen=True)
class Finding:
    """A code and what it means now, in words."""

    code: Code
    summary: str


def worst(findings: list[Finding]) -> Finding:
    """Return the most urgent finding; of several equally urgent ones, the first."""
    return max(findings, key=lambda finding: finding.code.level.value)


class RateWatch:
    """Tells when the node tracks too few of the images that arrive. Used in one thread."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Counts]] = deque()  # time.monotonic(), counts

    def too_slow(self, counts: Counts, min_rate: float) -> Finding | None:
        """Add the current counts; return a finding if fewer than `min_rate` images/s are tracked.

        A camera that sends fewer is no fault of the node: then, no image is dropped.
        """
        now = time.monotonic()
        self._samples.append((now, counts))
        while len(self._samples) > 2 and self._samples[1][0] <= now - RATE_WINDOW_S:
            self._samples.popleft()
        begun, first = self._samples[0]
        seconds = now - begun
        if seconds < RATE_WINDOW_S:
            return None
        tracked, received = counts.tracked - first.tracked, counts.received - first.received
        unused = counts.dropped - counts.invalid - counts.late - (first.dropped - first.invalid - first.late)
        if tracked / seconds >= min_rate or unused <= 0:
            return None
        return Finding(
            Code.TOO_SLOW,
            f'{tracked / seconds:.1f} of {received / seconds:.1f} images per second are tracked; min_rate is '
            f'{min_rate:g}: lower size, or use a faster device',
        )
