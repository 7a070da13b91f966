# SPDX-License-Identifier: MIT
"""Progress of a configuration, and its end before time. No ROS."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from xmem_ros.errors import XMemError

if TYPE_CHECKING:
    from types import TracebackType


class CancelledError(XMemError):
    """The configuration was cancelled, because the node is about to end."""


class Configuring(logging.Handler):
    """Current step of a configuration; a context manager for the thread that configures.

    Log records of the package from that thread are steps, too: the export of a model, or an engine
    that TensorRT builds.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._begun, self._step, self._cancelled = time.monotonic(), 'starting', False
        self._thread = threading.get_ident()

    def step(self, what: str) -> None:
        """Begin a step.

        Raises:
            CancelledError: `cancel` was called.
        """
        if self._cancelled:
            raise CancelledError('the node is about to end')
        self._step = what

    def cancel(self) -> None:
        """End the configuration at its next step; may be called from any thread."""
        self._cancelled = True

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    @property
    def progress(self) -> str:
        """The current step, and the seconds since the beginning."""
        return f'{self._step}; {time.monotonic() - self._begun:.0f} s so far'

    def emit(self, record: logging.LogRecord) -> None:
        """Take a log record as a step."""
        if record.thread == self._thread:
            self._step = record.getMessage()[:300]

    def __enter__(self) -> Configuring:
        logging.getLogger('xmem_ros').addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger('xmem_ros').removeHandler(self)
