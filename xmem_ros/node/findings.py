# SPDX-License-Identifier: MIT
"""Findings on the node's health, from the state of its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xmem_ros.node import diagnostic_keys as keys
from xmem_ros.node.health import Code, Finding, RateWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from xmem_ros.node.configuring import Configuring
    from xmem_ros.node.diagnostics import StreamStatistics
    from xmem_ros.node.image_source import ImageSource
    from xmem_ros.node.services import Pipeline
    from xmem_ros.parameters.table import Parameters
    from xmem_ros.stream.worker import Counts, Worker


class Findings:
    """Looks at the parts of a node; used in the thread of the diagnostics.

    Arguments:
        pipeline: returns the parts of the node; None while it is unconfigured.
        parameters: returns the current parameters.
        images: the image subscription.
        statistics: statistics of the stream.
    """

    def __init__(
        self,
        *,
        pipeline: Callable[[], Pipeline | None],
        parameters: Callable[[], Parameters],
        images: ImageSource,
        statistics: StreamStatistics,
    ) -> None:
        self._pipeline, self._parameters, self._images, self._statistics = pipeline, parameters, images, statistics
        self._watched: tuple[Worker | None, RateWatch] = None, RateWatch()

    def of(self, state: str, fault: str, progress: Configuring | None, counts: Counts, before: Counts) -> list[Finding]:
        """Return the findings; the last one is always true.

        Arguments:
            state: lifecycle state, as in `diagnostic_keys`.
            fault: why the last transition failed; empty if it did not.
            progress: of a configuration that is in progress.
            counts: counts of frames.
            before: counts at the last report.
        """
        pipeline = self._pipeline()
        worker = pipeline.worker if pipeline is not None else None
        if state != keys.ACTIVE or pipeline is None or worker is None:
            found = [Finding(Code.TRANSITION_FAILED, f'{state}: {fault}')] if fault else []
            found += _memory_file(pipeline)
            code = Code.INACTIVE if state == keys.ACTIVE else Code(state)  # deactivated meanwhile
            return [*found, Finding(code, f'{state}: {progress.progress}' if progress is not None else state)]
        found = []
        if worker.fault:
            text = f'tracking ended: {worker.fault}; deactivate and activate the node'
            found.append(Finding(Code.FAULTED, text))
        limit, silent = self._parameters().no_image_warning_after, self._images.silent_for
        if limit and silent > limit:
            found.append(Finding(Code.NO_IMAGES, f'no image on {self._images.topic} for {silent:.0f} s'))
        if counts.invalid > before.invalid and counts.tracked == before.tracked:
            text = f'no image can be read: {counts.invalid - before.invalid} invalid since the last report'
            found.append(Finding(Code.UNREADABLE_IMAGES, text))
        if number := self._statistics.all_lost:
            text = 'the only object is lost' if number == 1 else f'all {number} objects are lost'
            found.append(Finding(Code.ALL_OBJECTS_LOST, text))
        if slow := self._rate_watch(worker).too_slow(counts, self._parameters().min_rate):
            found.append(slow)
        if given_up := pipeline.session.tracker.given_up:
            text = f'tracking with reduced settings after memory ran out: {given_up[-1]}'
            found.append(Finding(Code.MEMORY_SHED, text))
        return [*found, *_memory_file(pipeline), Finding(Code.OK, 'tracking')]

    def _rate_watch(self, worker: Worker) -> RateWatch:
        """Return the watch of this worker's stream."""
        if self._watched[0] is not worker:
            self._watched = worker, RateWatch()
        return self._watched[1]


def _memory_file(pipeline: Pipeline | None) -> list[Finding]:
    keeper = pipeline.keeper if pipeline is not None else None
    if keeper is None:
        return []
    found = {Code.MEMORY_NOT_LOADED: keeper.not_loaded, Code.MEMORY_NOT_SAVED: keeper.not_saved}
    return [Finding(code, why) for code, why in found.items() if why]
