# SPDX-License-Identifier: MIT
"""Queue of frames, and the thread that tracks them. No ROS, no torch.

One thread owns the tracker. Frames arrive through `Worker.offer`. Everything else that uses the
tracker is submitted to `Worker.submit` and runs between two frames. Every offered frame is either
tracked or dropped.
"""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from xmem_ros.errors import NodeFaultError, NodeInactiveError, XMemError
from xmem_ros.stream.frame import Fate, Frame

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


T = TypeVar('T')


class StoppedError(NodeInactiveError):
    """The worker stopped before a job could run."""


class BrokenError(NodeFaultError):
    """The worker's thread ended on an unexpected error."""


@dataclass(frozen=True)
class Counts:
    """Counts of frames.

    received = tracked + dropped + waiting; `invalid` and `late` are parts of dropped.
    """

    received: int = 0
    tracked: int = 0
    dropped: int = 0
    waiting: int = 0
    invalid: int = 0
    late: int = 0


@dataclass(eq=False)
class _Job:
    run: Callable[[], Any]
    frame: Frame | None
    future: Future[Any]


class Worker:
    """Tracks frames and runs jobs, one at a time, in a thread of its own.

    Arguments:
        track: tracks a frame; returns whether that succeeded.
        depth: maximum number of waiting frames.
        keep_all: `offer` blocks until there is room; otherwise the oldest waiting frame is dropped.
        keep: gets each frame that waits, before a job can refer to it.
        log: gets the traceback if the thread ends on an error.
        before: initial counts.
        device_lock: held during each frame or job, which is chosen after the lock is acquired. For
            workers that share a device.
    """

    def __init__(
        self,
        track: Callable[[Frame], bool],
        *,
        depth: int = 1,
        keep_all: bool = False,
        keep: Callable[[Frame], None] = lambda _: None,
        log: Callable[[str], Any] = lambda _: None,
        before: Counts | None = None,
        device_lock: AbstractContextManager[Any] | None = None,
    ) -> None:
        self._track, self._depth, self._keep_all, self._keep, self._log = track, depth, keep_all, keep, log
        self._device_lock = device_lock if device_lock is not None else contextlib.nullcontext()
        self.fault = ''  # error on which the thread ended
        self._frames: deque[Frame] = deque()
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._stopping = True
        self._thread: threading.Thread | None = None
        before = before or Counts()
        self._received, self._tracked = before.received, before.tracked
        self._dropped, self._invalid, self._late = before.dropped, before.invalid, before.late

    def start(self) -> None:
        """Start the thread."""
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name='xmem-worker', daemon=True)
        self._thread.start()

    def stop(self, patience_s: float | None = None) -> bool:
        """Finish the current frame or job and drop the rest; waiting jobs get `StoppedError`.

        Arguments:
            patience_s: maximum time to wait for the current frame or job; None: no limit.

        Returns:
            Whether the thread has ended.
        """
        self._shut_down(StoppedError('the node stopped before this could be done: activate it and ask again'))
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(patience_s)
        return thread is None or not thread.is_alive()

    def offer(self, frame: Frame) -> None:
        """Enqueue a frame; an invalid one is counted and dropped."""
        with self._changed:
            self._received += 1
            if not frame.valid:
                self._drop(frame)
                return
            self._frames.append(frame)
            stopped: bool = self._stopping
            if not stopped:
                self._keep(frame)
            if self._keep_all:
                self._changed.notify_all()
                self._changed.wait_for(lambda: len(self._frames) < self._depth or self._stopping)
            while len(self._frames) > self._depth:
                self._drop(self._frames.popleft())
            if self._stopping and frame in self._frames:
                self._frames.remove(frame)
                self._drop(frame)
            self._changed.notify_all()

    def submit(self, run: Callable[[], T], frame: Frame | None = None) -> Future[T]:
        """Run a job between two frames.

        With a waiting frame, `run` is called at the frame's turn in place of `track`, and has to
        set the frame's fate.
        """
        future: Future[T] = Future()
        with self._changed:
            if self.fault:
                future.set_exception(self._broken())
            elif self._stopping:
                future.set_exception(StoppedError('the node is not active: activate it and ask again'))
            else:
                self._jobs.append(_Job(run, frame, future))
                self._changed.notify_all()
        return future

    @property
    def counts(self) -> Counts:
        """Counts since the worker was created, added to `before`."""
        with self._changed:
            waiting = self._received - self._tracked - self._dropped
            return Counts(self._received, self._tracked, self._dropped, waiting, self._invalid, self._late)

    def _drop(self, frame: Frame) -> None:
        frame.fate = Fate.DROPPED
        self._dropped += 1
        self._invalid += not frame.valid
        self._late += frame.late

    def _shut_down(self, reason: XMemError) -> None:
        """Refuse frames and jobs from now on; drop waiting frames, fail waiting jobs."""
        with self._changed:
            self._stopping = True
            jobs = list(self._jobs)
            self._jobs.clear()
            while self._frames:
                self._drop(self._frames.popleft())
            self._changed.notify_all()
        for job in jobs:
            job.future.set_exception(reason)

    def _broken(self) -> BrokenError:
        return BrokenError(f'the tracking thread ended on a fault ({self.fault}): deactivate and activate the node')

    def check(self) -> None:
        """Raise `BrokenError` if the thread has ended on a fault."""
        if self.fault:
            raise self._broken()

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException as error:
            self.fault = f'{type(error).__name__}: {error}'
            self._shut_down(self._broken())
            with contextlib.suppress(Exception):
                self._log(f'tracking ended: {traceback.format_exc()}')

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._due_job() or self._frames)
                if self._stopping:
                    return
            with self._device_lock:  # a newer frame may arrive while others hold it
                self._take_one()

    def _take_one(self) -> None:
        with self._changed:
            job, frame = self._due_job(), None
            if self._stopping or not (job or self._frames):
                return
            if job is not None:
                self._jobs.remove(job)
                if job.frame is not None and job.frame.fate is Fate.WAITING:
                    frame = self._frames.popleft()
            else:
                frame = self._frames.popleft()
            self._changed.notify_all()
        try:
            if job is not None:
                self._do(job)
            elif frame is not None:
                frame.fate = Fate.TRACKED if self._track(frame) else Fate.DROPPED
        finally:
            if frame is not None:
                self._count(frame)

    def _due_job(self) -> _Job | None:
        return next((job for job in self._jobs if self._is_due(job)), None)

    def _is_due(self, job: _Job) -> bool:
        if job.frame is None or job.frame.fate is not Fate.WAITING:
            return True
        return bool(self._frames) and self._frames[0] is job.frame

    def _do(self, job: _Job) -> None:
        try:
            result = job.run()
        except BaseException as error:
            job.future.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            job.future.set_result(result)

    def _count(self, frame: Frame) -> None:
        with self._changed:
            if frame.fate is Fate.TRACKED:
                self._tracked += 1
            else:
                self._drop(frame)
