# SPDX-License-Identifier: MIT
"""The one timer of stages."""

import time
from types import TracebackType

import torch


class StageTimer:
    """Wall milliseconds per stage: `with timer('key'): …`; on CUDA the device is waited for only in `stop`.

    There a stage's time is that of its kernels, between two events in the stream.
    """

    def __init__(self, device: torch.device):
        self._cuda = device.type == 'cuda'
        self._marks: dict[str, list[tuple[object, object]]] = {}
        self._stage = ''
        self._begin: object = None

    def __call__(self, stage: str) -> 'StageTimer':
        self._stage = stage
        return self

    def _mark(self) -> object:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def __enter__(self) -> None:
        self._begin = self._mark()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._marks.setdefault(self._stage, []).append((self._begin, self._mark()))

    def stop(self) -> dict[str, float]:
        """Stage → milliseconds."""
        if self._cuda:
            torch.cuda.synchronize()
            return {
                stage: sum(begin.elapsed_time(end) for begin, end in spans)  # type: ignore[attr-defined]
                for stage, spans in self._marks.items()
            }
        return {
            stage: sum((end - begin) * 1e3 for begin, end in spans)  # type: ignore[operator]
            for stage, spans in self._marks.items()
        }
