# SPDX-License-Identifier: MIT
"""One open page: the WebSocket that sends images and status, and takes commands."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from aiohttp import WSCloseCode, WSMsgType, web

from xmem_ros.client.calls import ServiceCalls
from xmem_ros.errors import NodeMissingError, SeedError, StampNotHeldError, XMemError
from xmem_ros.web.commands import (
    Acceptance,
    Command,
    Hold,
    Preview,
    Removal,
    RunLengthMask,
    Seeding,
    command_of,
    json_object,
    request_of,
)
from xmem_ros.web.previews import Offer, PackedMask, offer_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

log = logging.getLogger(__name__)

MOST_COMMANDS = 4  # commands that wait for the node
MOST_ANSWERS = 32  # answers that wait to be sent
MOST_TEXT = 2000  # characters of an answer
SLOW_S = 20.0  # time limit for sending a message to a page
_PREVIEW_FOUND_S = 1.0  # discovery time of the service for previews, which older nodes do not have
_CLOSE_S = 2.0  # timeout of the closing handshake
_MESSAGES_S, _BYTES_S = 200, 2**20  # limits of a page per second
_BURST_S = 4.0  # burst, in seconds of these limits


class Viewer:
    """Connection to a page, served until it closes.

    Text messages are JSON. A page gets its next image after it has shown the previous one, so a
    slow page gets fewer images, but always recent ones. At most one image, one status, a few
    answers and a few commands are queued. Of the previews that a page asks for one is under way and
    the newest waits. The last candidates are kept until the page is live again.

    Arguments:
        socket: open socket without autoping.
        transport: transport of the socket.
        calls: calls of the node.
        executor: threads that wait for the node.
        previewer: threads that wait for previews, which must not delay other commands.
        on_change: called when the page's view changes or it can take another image.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: Any,
        calls: ServiceCalls,
        executor: Executor,
        previewer: Executor,
        on_change: Callable[[], None],
    ) -> None:
        self._socket, self._transport, self._calls, self._on_change = socket, transport, calls, on_change
        self._executor, self._previewer = executor, previewer
        self._preview: tuple[int, Preview] | None = None  # waits
        self._preview_due = asyncio.Event()
        self._offer: Offer | None = None
        self._answers: deque[str] = deque()
        self._status: str | None = None
        self._image: bytes | None = None
        self._shown = True  # whether the page has shown the previous image
        self._size: tuple[int, int] | None = None  # width and height of the newest sent image [px]
        self._due = asyncio.Event()
        self._commands: asyncio.Queue[tuple[int | None, Command]] = asyncio.Queue(MOST_COMMANDS)
        self._budget_until = 0.0  # time.monotonic() until which the received messages use up the limits
        self.visible = True  # whether the page is in view
        self.live = True  # False: the image is frozen

    @property
    def wants_images(self) -> bool:
        """Whether the page shows live images."""
        return self.visible and self.live

    @property
    def ready(self) -> bool:
        """Whether the page can take another image."""
        return self._shown and self._image is None

    def send_status(self, status: dict[str, Any]) -> None:
        """Send a status; it replaces one that is still queued."""
        self._status = json.dumps(status)
        self._due.set()

    def send_image(self, data: bytes, size: tuple[int, int]) -> None:
        """Send an image, one until acknowledged; `size`: camera's width and height [px]."""
        self._shown, self._image, self._size = False, data, size
        self._due.set()

    async def close(self, code: int = WSCloseCode.GOING_AWAY) -> None:
        """Close the connection; the page will reconnect."""
        with contextlib.suppress(asyncio.TimeoutError, ConnectionError):
            await asyncio.wait_for(self._socket.close(code=code), _CLOSE_S)
        self._transport.abort()

    async def run(self) -> None:
        """Serve the page until it disconnects."""
        tasks = [
            asyncio.ensure_future(work()) for work in (self._write, self._execute_commands, self._execute_previews)
        ]
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
            if not self._within_limits(len(message.data)):
                await self.close(WSCloseCode.POLICY_VIOLATION)
                return
            if message.type == WSMsgType.TEXT:
                self._handle(message.data)
            elif message.type == WSMsgType.PING:
                await self._in_time(self._socket.pong(message.data))
            if len(self._answers) > MOST_ANSWERS:  # it sends requests but reads no answers
                await self.close(WSCloseCode.POLICY_VIOLATION)
                return

    def _within_limits(self, length: int) -> bool:
        """Whether a message of this length [bytes] is within the limits of a page."""
        now = time.monotonic()
        self._budget_until = max(self._budget_until, now) + max(1 / _MESSAGES_S, length / _BYTES_S)
        return self._budget_until - now <= _BURST_S

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
        """Send within `SLOW_S`; disconnect a page that does not read."""
        try:
            await asyncio.wait_for(sending, SLOW_S)
        except asyncio.TimeoutError:
            self._transport.abort()

    def _answer(self, request: int | None, **answer: Any) -> None:
        self._answers.append(json.dumps({'type': 'answer', 'request': request, **answer}))
        self._due.set()

    def _reject(self, request: int | None, text: str, *, gone: bool = False) -> None:
        text = text if len(text) <= MOST_TEXT else f'{text[:MOST_TEXT]}…'
        self._answer(request, ok=False, gone=gone, text=text)

    def _refuse(self, request: int | None, error: Exception) -> None:
        self._reject(request, str(error), gone=isinstance(error, StampNotHeldError))

    # --- from the page

    def _handle(self, text: str) -> None:
        message = json_object(text)
        kind = message.get('type') if message is not None else None
        if message is None or not isinstance(kind, str):
            return self._reject(None, 'invalid command: give a JSON object with a type')
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
            known = 'hold, seed, preview, accept, remove or reset'
            return self._reject(request, f'unknown command {kind[:40]!r}: give {known}')
        if isinstance(command, Preview):
            return self._ask_preview(request, command)
        try:
            if isinstance(command, Acceptance):
                command = self._accepted(command)
            self._commands.put_nowait((request, command))
        except SeedError as error:
            self._refuse(request, error)
        except asyncio.QueueFull:
            self._reject(request, 'the node is still busy with earlier commands: wait and try again')

    def _ask_preview(self, request: int | None, command: Preview) -> None:
        if request is None:
            return self._reject(request, 'invalid preview: give it a request number')
        if self._preview is not None:
            self._reject(self._preview[0], 'a newer preview was asked for')
        self._preview = request, command
        return self._preview_due.set()

    def _accepted(self, command: Acceptance) -> Seeding:
        """Return the seed of a kept candidate."""
        offer = self._offer
        if offer is None or offer.request != command.preview or command.candidate >= len(offer.masks):
            raise SeedError('this candidate is no longer kept: change the drawing, or draw again')
        return Seeding(command.target, offer.masks[command.candidate], offer.stamp)

    def _look(self, message: dict[str, Any]) -> None:
        visible, live = message.get('visible'), message.get('live')
        if not isinstance(visible, bool) or not isinstance(live, bool):
            return self._reject(None, 'invalid look: visible and live must be true or false')
        self.visible, self.live, self._shown = visible, live, True
        if live:
            self._offer = None
        return self._on_change()

    async def _execute_commands(self) -> None:
        """Execute the commands one by one; a thread waits for the node."""
        while True:
            request, command = await self._commands.get()
            try:
                ids = await asyncio.get_running_loop().run_in_executor(self._executor, self._execute, command)
                if not isinstance(command, Hold):
                    self._answer(request, ok=True, ids=ids)
            except XMemError as error:
                self._refuse(request, error)
            except Exception as error:  # must not end the loop
                log.exception('a command of the page failed')
                self._refuse(request, RuntimeError(f'internal error: {type(error).__name__}: {error}'))

    def _execute(self, command: Command) -> list[int]:
        if isinstance(command, Hold):
            self._calls.hold(command.stamp)
            return []
        if isinstance(command, Seeding):
            shape = command.shape
            if isinstance(shape, RunLengthMask | PackedMask):
                return self._calls.seed([(command.target, shape.mask())], stamp=command.stamp)
            return self._calls.seed([(command.target, shape)], stamp=command.stamp)
        if isinstance(command, Removal):
            return self._calls.remove(command.ids)
        self._calls.reset()
        return []

    async def _execute_previews(self) -> None:
        """Execute the previews one by one, each after the candidates before it have been sent."""
        while True:
            await self._preview_due.wait()
            self._preview_due.clear()
            if self._preview is None:
                continue
            (request, command), self._preview = self._preview, None
            try:
                run = asyncio.get_running_loop().run_in_executor
                self._offer, shown = await run(self._previewer, self._find_candidates, request, command, self._size)
                answer = {'type': 'answer', 'request': request, 'ok': True, 'candidates': shown}
                await self._in_time(self._socket.send_str(json.dumps(answer)))
            except XMemError as error:
                self._refuse(request, error)
            except ConnectionError:  # the page has gone; the reader notices
                return
            except Exception as error:  # must not end the loop
                log.exception('a preview of the page failed')
                self._refuse(request, RuntimeError(f'internal error: {type(error).__name__}: {error}'))

    def _find_candidates(
        self, request: int, command: Preview, size: tuple[int, int] | None
    ) -> tuple[Offer, list[dict[str, Any]]]:
        try:
            found = self._calls.preview(
                command.shape, command.stamp, object_id=command.object_id, found_within=_PREVIEW_FOUND_S
            )
        except NodeMissingError:  # an older node; the drawing is then sent as it is
            found = []
        return offer_of(request, command.stamp, found, size)
