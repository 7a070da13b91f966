# SPDX-License-Identifier: MIT
"""Log throttling: clients cannot fill the log or put request contents into it."""

from __future__ import annotations

import contextlib
import logging
import time
import traceback
from collections.abc import Iterator

from aiohttp.http_exceptions import HttpProcessingError

MOST_RECORDS, PERIOD_S = 5, 60.0
_LOGGERS = ('asyncio', 'aiohttp.server', 'aiohttp.web', 'aiohttp.websocket', 'xmem_ros.web.gate', 'xmem_ros.web.viewer')


class Throttle(logging.Filter):
    """Passes `MOST_RECORDS` records per `PERIOD_S`; the next record counts the dropped ones."""

    def __init__(self) -> None:
        super().__init__()
        self._period_start, self._passed, self._dropped = time.monotonic(), 0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, ConnectionError):  # a client disconnected before its response
            return False
        now = time.monotonic()
        if now - self._period_start >= PERIOD_S:
            self._period_start, self._passed = now, 0
        self._passed += 1
        if self._passed > MOST_RECORDS:
            self._dropped += 1
            return False
        # the text holds parts of the request, perhaps a cookie; aiohttp itself fails on some
        if isinstance(error, HttpProcessingError) or (error is not None and not _is_ours(error)):
            record.msg, record.args = 'a malformed HTTP request was refused (%s)', (type(error).__name__,)
            record.exc_info, record.levelno, record.levelname = None, logging.WARNING, 'WARNING'
        if self._dropped:
            record.msg, record.args = f'{record.getMessage()} ({self._dropped} similar records dropped)', ()
            self._dropped = 0
        return True


def _is_ours(error: BaseException) -> bool:
    """Whether an error was raised in or below a function of this package."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(frame.f_globals.get('__name__', '').startswith('xmem_ros') for frame in frames)


@contextlib.contextmanager
def throttled_logs() -> Iterator[None]:
    """Throttle the logs of the server and its libraries."""
    filters = [(logging.getLogger(name), Throttle()) for name in _LOGGERS]
    for logger, throttle in filters:
        logger.addFilter(throttle)
    try:
        yield
    finally:
        for logger, throttle in filters:
            logger.removeFilter(throttle)
