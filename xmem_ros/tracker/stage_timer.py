# SPDX-License-Identifier: MIT
"""Timer of a step's stages."""

import time
from types import TracebackType

import torch


class StageTimer:
    """Wall time per stage in ms: `with timer('key'): …`.

    On CUDA a stage's time is between two events in the stream; only `stop` waits for the device.
    """

    def __init__(self, device: torch.device):
        self._cuda = device.type == 'cuda'
        self._seconds: dict[str, float] = {}
        self._events: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {}
        self._stage = ''
        self._begin = 0.0
        self._begin_event: torch.cuda.Event | None = None

    def __call__(self, stage: str) -> 'StageTimer':
        self._stage = stage
        return self

    def __enter__(self) -> None:
        if self._cuda:
            self._begin_event = _recorded()
        else:
            self._begin = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._begin_event is not None:
            self._events.setdefault(self._stage, []).append((self._begin_event, _recorded()))
        else:
            seconds = time.perf_counter() - self._begin
            self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + seconds

    def stop(self) -> dict[str, float]:
        """Return stage → milliseconds."""
        if not self._cuda:
            return {stage: seconds * 1e3 for stage, seconds in self._seconds.items()}
        torch.cuda.synchronize()
        return {stage: sum(begin.elapsed_time(end) for begin, end in spans) for stage, spans in self._events.items()}


def _recorded() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event
