# SPDX-License-Identifier: MIT
"""A log that clients cannot fill: few records in a while, no tracebacks of what they sent."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

from aiohttp.http_exceptions import HttpProcessingError

MOST_RECORDS, PERIOD_S = 5, 60.0
_LOGGERS = ('asyncio', 'aiohttp.server', 'aiohttp.web', 'aiohttp.websocket', 'xmem_ros.web.gate', 'xmem_ros.web.viewer')


class Throttle(logging.Filter):
    """Lets `MOST_RECORDS` through in `PERIOD_S`; the next one says how many were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._begun, self._passed, self._left_out = time.monotonic(), 0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, ConnectionError):  # a client went away before its answer
            return False
        now = time.monotonic()
        if now - self._begun >= PERIOD_S:
            self._begun, self._passed = now, 0
        self._passed += 1
        if self._passed > MOST_RECORDS:
            self._left_out += 1
            return False
        if isinstance(error, HttpProcessingError):  # its text holds what was sent, and that may be a cookie
            record.msg, record.args = 'a request that is no HTTP was refused (%s)', (type(error).__name__,)
            record.exc_info, record.levelno, record.levelname = None, logging.WARNING, 'WARNING'
        if self._left_out:
            record.msg, record.args = f'{record.getMessage()} ({self._left_out} more were not logged)', ()
            self._left_out = 0
        return True


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Throttle what the server and the libraries below it log."""
    filters = [(logging.getLogger(name), Throttle()) for name in _LOGGERS]
    for logger, throttle in filters:
        logger.addFilter(throttle)
    try:
        yield
    finally:
        for logger, throttle in filters:
            logger.removeFilter(throttle)
