# SPDX-License-Identifier: MIT
"""Statistics of the stream, and the message for /diagnostics."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from xmem_ros.node import diagnostic_keys as keys
from xmem_ros.node.health import Finding, Level
from xmem_ros.objects import ObjectState
from xmem_ros.stream.worker import Counts

if TYPE_CHECKING:
    from rclpy.clock import Clock

    from xmem_ros.tracker import StepResult

# Without images for this long, `no image` is reported; used where no_image_warning_after is 0.
SILENT_S = 5.0

_LEVELS = {Level.OK: DiagnosticStatus.OK, Level.WARN: DiagnosticStatus.WARN, Level.ERROR: DiagnosticStatus.ERROR}


@dataclass
class _Period:
    """Measurements since the last diagnostics."""

    begun: float = field(default_factory=time.monotonic)
    frames: int = 0
    ages_ms: list[float] = field(default_factory=list)
    stages_ms: dict[str, float] = field(default_factory=dict)


class StreamStatistics:
    """Rate, latency and stage durations. Written by the worker's thread, read by the timer's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._period = _Period()
        self._states: dict[int, str] = {}

    def add_frame(self, header: Any, result: StepResult, *, publish_ms: float, total_ms: float) -> None:
        """Add a frame that was just published."""
        now_ms = self._clock.now().nanoseconds / 1e6  # 0: simulated time has not begun
        stamp_ms = header.stamp.sec * 1e3 + header.stamp.nanosec / 1e6
        stages = {**result.timings_ms, 'publish': publish_ms, 'total': total_ms}
        with self._lock:
            self._period.frames += 1
            if now_ms and stamp_ms:
                self._period.ages_ms.append(now_ms - stamp_ms)
            for stage, duration in stages.items():
                self._period.stages_ms[stage] = self._period.stages_ms.get(stage, 0.0) + duration
            self._states = {item.id: f'{item.state.name} {item.name}'.strip() for item in result.objects}

    @property
    def all_lost(self) -> int:
        """Number of objects if all of them are lost, else 0."""
        with self._lock:
            lost = all(state.startswith(ObjectState.LOST.name) for state in self._states.values())
            return len(self._states) if lost else 0

    def clear_objects(self) -> None:
        """Clear the states of objects."""
        with self._lock:
            self._states = {}

    def take(self) -> dict[str, str]:
        """End the period and return its statistics as key → value of the status."""
        with self._lock:
            period, self._period = self._period, _Period()
            states = dict(self._states)
        seconds = max(time.monotonic() - period.begun, 1e-9)
        values = {keys.RATE: f'{period.frames / seconds:.2f}'}
        if period.ages_ms:
            values[keys.LATENCY_MEDIAN] = f'{np.median(period.ages_ms):.1f}'
            values[keys.LATENCY_MAXIMUM] = f'{max(period.ages_ms):.1f}'
        for stage, duration in period.stages_ms.items():
            values[keys.stage(stage)] = f'{duration / period.frames:.2f}'
        return values | {keys.object_state(object_id): state for object_id, state in states.items()}


def count_values(counts: Counts, *, lost: int) -> dict[str, str]:
    """Return counts as key → value of the status.

    received = tracked + dropped + waiting; `invalid` and `late` are parts of dropped, `lost` is
    separate.
    """
    return {
        keys.RECEIVED: str(counts.received),
        keys.TRACKED: str(counts.tracked),
        keys.DROPPED: str(counts.dropped),
        keys.WAITING: str(counts.waiting),
        keys.INVALID: str(counts.invalid),
        keys.LATE: str(counts.late),
        keys.LOST_BEFORE_NODE: str(lost),
    }


def diagnostics_message(
    stamp: Any, name: str, hardware: str, finding: Finding, values: dict[str, str]
) -> DiagnosticArray:
    """Build a DiagnosticArray with one status of the node `name` on the device `hardware`."""
    level = _LEVELS[finding.code.level]
    status = DiagnosticStatus(level=level, name=name, message=finding.summary, hardware_id=hardware)
    values = {keys.CODE: finding.code.value, **values}
    status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
    message = DiagnosticArray(status=[status])
    message.header.stamp = stamp
    return message
