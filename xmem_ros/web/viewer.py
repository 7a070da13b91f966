# SPDX-License-Identifier: MIT
"""One open page: what it is sent, and what it asks for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from aiohttp import WSCloseCode, WSMsgType, web

from xmem_ros.client.calls import Calls
from xmem_ros.errors import StampNotHeldError, XMemError
from xmem_ros.web.commands import Command, Hold, Removal, Runs, Seeding, command_of, object_of, request_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

log = logging.getLogger(__name__)

MOST_COMMANDS = 4  # that wait for the node
MOST_ANSWERS = 32  # that wait to be sent
MOST_TEXT = 2000  # characters of an answer
SLOW_S = 20.0  # that a page may take to read an image
_CLOSE_S = 2.0  # that it may take to answer that the connection is closed
_MESSAGES_S, _BYTES_S = 200, 2**20  # that a page may send in a second
_BURST_S = 4.0  # as much as in so many seconds may come at once


class Viewer:
    """Reads and writes a WebSocket until it closes.

    Texts are JSON. A page gets an image once it has shown the one before, so a slow one gets fewer, and never old ones.
    At most one image, one status and a few answers wait for it, and a few commands of it, checked and packed.

    Arguments:
        socket: that is open; without autoping.
        transport: of the socket.
        calls: of the node.
        executor: whose threads wait for the node.
        on_change: is called when what the page looks at has changed, or it can take an image.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: Any,
        calls: Calls,
        executor: Executor,
        on_change: Callable[[], None],
    ) -> None:
        self._socket, self._transport, self._calls, self._on_change = socket, transport, calls, on_change
        self._executor = executor
        self._answers: deque[str] = deque()
        self._status: str | None = None
        self._image: bytes | None = None
        self._shown = True  # the image before
        self._size: tuple[int, int] | None = None  # width and height of the newest image it was sent [px]
        self._due = asyncio.Event()
        self._commands: asyncio.Queue[tuple[int | None, Command]] = asyncio.Queue(MOST_COMMANDS)
        self._sent_until = 0.0  # what it has sent so far would have taken until then, time.monotonic()
        self.visible = True  # whether anybody sees the page
        self.live = True  # whether it shows the newest image, not a frozen one

    @property
    def wants_images(self) -> bool:
        """Whether it shows what is live."""
        return self.visible and self.live

    @property
    def ready(self) -> bool:
        """Whether it can take another image."""
        return self._shown and self._image is None

    def send_status(self, status: dict[str, Any]) -> None:
        """Send a status in place of one that still waits."""
        self._status = json.dumps(status)
        self._due.set()

    def send_image(self, data: bytes, size: tuple[int, int]) -> None:
        """Send an image; none is sent until it is acknowledged. `size`: width and height of the camera's image [px]."""
        self._shown, self._image, self._size = False, data, size
        self._due.set()

    async def close(self, code: int = WSCloseCode.GOING_AWAY) -> None:
        """Close the page's connection; it will ask for another one."""
        with contextlib.suppress(asyncio.TimeoutError, ConnectionError):
            await asyncio.wait_for(self._socket.close(code=code), _CLOSE_S)
        self._transport.abort()

    async def run(self) -> None:
        """Serve the page until it goes."""
        tasks = [asyncio.ensure_future(work()) for work in (self._write, self._work)]
        try:
            await self._read()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING, WSMsgType.PONG):
                return
            if not self._affordable(len(message.data)):
                await self.close(WSCloseCode.POLICY_VIOLATION)
                return
            if message.type == WSMsgType.TEXT:
                self._take(message.data)
            elif message.type == WSMsgType.PING:
                await self._in_time(self._socket.pong(message.data))
            if len(self._answers) > MOST_ANSWERS:  # it asks and does not read
                await self.close(WSCloseCode.POLICY_VIOLATION)
                return

    def _affordable(self, length: int) -> bool:
        """Whether a message of so many bytes is within what a page may send."""
        now = time.monotonic()
        self._sent_until = max(self._sent_until, now) + max(1 / _MESSAGES_S, length / _BYTES_S)
        return self._sent_until - now <= _BURST_S

    # --- to the page

    async def _write(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            while self._answers:
                await self._in_time(self._socket.send_str(self._answers.popleft()))
            if self._status is not None:
                status, self._status = self._status, None
                await self._in_time(self._socket.send_str(status))
            if self._image is not None:
                await self._in_time(self._socket.send_bytes(self._image))
                self._image = None
                self._on_change()

    async def _in_time(self, sending: Any) -> None:
        """A page that does not read is given up."""
        try:
            await asyncio.wait_for(sending, SLOW_S)
        except asyncio.TimeoutError:
            self._transport.abort()

    def _answer(self, request: int | None, **answer: Any) -> None:
        self._answers.append(json.dumps({'type': 'answer', 'request': request, **answer}))
        self._due.set()

    def _refuse(self, request: int | None, error: Exception) -> None:
        text = str(error)
        text = text if len(text) <= MOST_TEXT else f'{text[:MOST_TEXT]}…'
        self._answer(request, ok=False, gone=isinstance(error, StampNotHeldError), text=text)

    # --- from the page

    def _take(self, text: str) -> None:
        message = object_of(text)
        kind = message.get('type') if message is not None else None
        if message is None or not isinstance(kind, str):
            return self._answer(None, ok=False, gone=False, text='no command: give a JSON object with a type')
        if kind == 'shown':
            self._shown = True
            return self._on_change()
        if kind == 'look':
            return self._look(message)
        request = request_of(message)
        try:
            command = command_of(message, self._size)
        except XMemError as error:
            return self._refuse(request, error)
        if command is None:
            return self._answer(request, ok=False, gone=False, text=f'{kind[:40]!r} is no command')
        try:
            self._commands.put_nowait((request, command))
        except asyncio.QueueFull:
            self._answer(request, ok=False, gone=False, text='the node is busy with what you asked for: wait for it')

    def _look(self, message: dict[str, Any]) -> None:
        visible, live = message.get('visible'), message.get('live')
        if not isinstance(visible, bool) or not isinstance(live, bool):
            return self._answer(None, ok=False, gone=False, text='look: visible and live must be true or false')
        self.visible, self.live, self._shown = visible, live, True
        return self._on_change()

    async def _work(self) -> None:
        """One command after the other; the node's answers are waited for in a thread."""
        while True:
            request, command = await self._commands.get()
            try:
                ids = await asyncio.get_running_loop().run_in_executor(self._executor, self._do, command)
                if not isinstance(command, Hold):
                    self._answer(request, ok=True, ids=ids)
            except XMemError as error:
                self._refuse(request, error)
            except Exception as error:  # the page's next command is to be taken all the same
                log.exception('a command of the page failed')
                self._refuse(request, RuntimeError(f'internal error: {type(error).__name__}: {error}'))

    def _do(self, command: Command) -> list[int]:
        if isinstance(command, Hold):
            self._calls.hold(command.stamp)
            return []
        if isinstance(command, Seeding):
            shape = command.shape.mask() if isinstance(command.shape, Runs) else command.shape
            return self._calls.seed([(command.who, shape)], stamp=command.stamp)
        if isinstance(command, Removal):
            return self._calls.remove(command.ids)
        self._calls.reset()
        return []
