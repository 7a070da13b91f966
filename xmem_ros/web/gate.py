# SPDX-License-Identifier: MIT
"""Limits on connections, below HTTP: number, duration and bytes until they belong to a page."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

MOST_VISITORS = 128  # connections without a page
VISIT_S = 10.0  # longest duration of request and response
MOST_SENT = 16 * 1024  # bytes of a request with its headers
_TOO_LARGE = b'HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'


class Gate:
    """Protocol factory that limits connections.

    A connection is a visitor until `keep` marks it as a page's. Visitors are limited in number,
    duration and bytes. If there are too many, the oldest visitor from the address with the most
    visitors is disconnected, so that idle connections do not lock others out.

    Arguments:
        make: factory of the protocol that serves a connection.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._visitors: dict[Any, _Connection] = {}  # by transport, oldest first

    def __call__(self) -> asyncio.Protocol:
        return _Connection(self, self._make())

    def keep(self, transport: Any) -> None:
        """Mark a connection as a page's, without limits."""
        connection = self._visitors.pop(transport, None)
        if connection is not None:
            connection.settle()

    def close(self) -> None:
        """Close every visitor's connection."""
        for transport in list(self._visitors):
            transport.abort()

    def enter(self, transport: Any, connection: _Connection) -> None:
        """Add a visitor."""
        self._visitors[transport] = connection
        if len(self._visitors) <= MOST_VISITORS:
            return
        address, count = Counter(visitor.address for visitor in self._visitors.values()).most_common(1)[0]
        log.warning('too many connections: closing the oldest of the %d from %s', count, address)
        oldest = next(item for item, visitor in self._visitors.items() if visitor.address == address)
        self.leave(oldest)
        oldest.abort()

    def leave(self, transport: Any) -> None:
        """Remove a visitor."""
        self._visitors.pop(transport, None)


class _Connection(asyncio.Protocol):
    """Forwards the events of a connection to its protocol, within the limits."""

    def __init__(self, gate: Gate, inner: Any) -> None:
        self._gate, self._inner = gate, inner
        self._sent = 0  # bytes sent as a visitor
        self._deadline: asyncio.TimerHandle | None = None
        self.address = ''

    def settle(self) -> None:
        """Lift the limits."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.address = str((transport.get_extra_info('peername') or ['?'])[0])
        self._deadline = asyncio.get_running_loop().call_later(VISIT_S, transport.abort)
        self._inner.connection_made(transport)
        self._gate.enter(transport, self)

    def data_received(self, data: bytes) -> None:
        if self._deadline is not None:
            self._sent += len(data)
            if self._sent > MOST_SENT:
                if self._sent - len(data) <= MOST_SENT:  # report once
                    self._transport.write(_TOO_LARGE)
                    self._transport.close()
                return
        try:
            self._inner.data_received(data)
        except Exception as error:  # some versions of aiohttp let parser errors through
            log.warning('unreadable request (%s): connection closed', type(error).__name__)
            self._transport.abort()

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, error: BaseException | None) -> None:
        self.settle()
        self._gate.leave(self._transport)
        self._inner.connection_lost(error)
