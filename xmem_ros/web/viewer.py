# SPDX-License-Identifier: MIT
"""One open page: what it is sent, and what it asks for."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

from aiohttp import WSCloseCode, WSMsgType, web

from xmem_ros.client.calls import Calls
from xmem_ros.errors import SeedError, StampNotHeldError, XMemError
from xmem_ros.web.commands import ids_of, seed_of, stamp_of

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

_MOST_WAITING = 32  # messages for a page that does not read them, and commands of one that does not wait


class Viewer:
    """Reads and writes a WebSocket until it closes.

    Texts are JSON. A page gets an image once it has shown the one before, so a slow one gets fewer, and never old ones.

    Arguments:
        socket: that is open.
        calls: of the node.
        on_change: is called when what the page looks at has changed, or it can take an image.
    """

    def __init__(self, socket: web.WebSocketResponse, calls: Calls, on_change: Callable[[], None]) -> None:
        self._socket, self._calls, self._on_change = socket, calls, on_change
        self._waiting: asyncio.Queue[str | bytes] = asyncio.Queue(_MOST_WAITING)
        self._commands: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_MOST_WAITING)
        self.visible = True  # whether anybody sees the page
        self.live = True  # whether it shows the newest image, not a frozen one
        self.ready = True  # for another image

    @property
    def wants_images(self) -> bool:
        """Whether it shows what is live."""
        return self.visible and self.live

    def send(self, message: dict[str, Any]) -> None:
        """Send JSON; a page that reads nothing is closed."""
        self._put(json.dumps(message))

    def send_image(self, data: bytes) -> None:
        """Send an image; none is sent until it is acknowledged."""
        self.ready = False
        self._put(data)

    def _put(self, item: str | bytes) -> None:
        try:
            self._waiting.put_nowait(item)
        except asyncio.QueueFull:
            self._closing = asyncio.ensure_future(self.close())

    async def close(self) -> None:
        """Close the page's connection; it will ask for another one."""
        await self._socket.close(code=WSCloseCode.GOING_AWAY)

    async def run(self) -> None:
        """Serve the page until it goes."""
        tasks = [asyncio.ensure_future(work()) for work in (self._write, self._work)]
        try:
            async for message in self._socket:
                if message.type == WSMsgType.TEXT:
                    self._take(message.data)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self) -> None:
        while True:
            item = await self._waiting.get()
            await (self._socket.send_str(item) if isinstance(item, str) else self._socket.send_bytes(item))

    def _take(self, text: str) -> None:
        try:
            command = json.loads(text)
        except (ValueError, RecursionError):  # brackets in brackets without end
            command = None
        kind = command.get('type') if isinstance(command, dict) else None
        if kind == 'shown':
            self.ready = True
            self._on_change()
        elif kind == 'look':
            self.visible, self.live = bool(command.get('visible')), bool(command.get('live'))
            self.ready = True
            self._on_change()
        elif kind in ('hold', 'seed', 'remove', 'reset'):
            try:
                self._commands.put_nowait(command)
            except asyncio.QueueFull:
                self._answer(command, ok=False, text='the node is busy with what you asked for: wait for it')
        else:
            self.send({'type': 'answer', 'request': None, 'ok': False, 'text': f'{kind!r:.40} is no command'})

    async def _work(self) -> None:
        """One command after the other; the node's answers are waited for in a thread."""
        while True:
            command = await self._commands.get()
            try:
                text, ids = await asyncio.get_running_loop().run_in_executor(None, self._do, command)
                self._answer(command, ok=True, text=text, ids=ids)
            except XMemError as error:
                self._answer(command, ok=False, text=str(error), gone=isinstance(error, StampNotHeldError))
            except Exception as error:  # the page's next command is to be taken all the same
                log.exception('a command of the page failed')
                self._answer(command, ok=False, text=f'internal error: {type(error).__name__}: {error}')

    def _do(self, command: dict[str, Any]) -> tuple[str, list[int]]:
        kind = command['type']
        if kind == 'hold':
            self._calls.hold(stamp_of(command))
            return '', []
        if kind == 'seed':
            who, shape = seed_of(command)
            stamp = stamp_of(command)
            if not stamp:
                raise SeedError('the images have no stamps, so none can be named: have the camera set header.stamp')
            ids = self._calls.seed([(who, shape)], stamp=stamp)
            return f'{"corrected" if isinstance(who, tuple) else "seeded"}: object {ids[0]}', ids
        if kind == 'remove':
            ids = self._calls.remove(ids_of(command))
            return f'removed: object {", ".join(map(str, ids))}', ids
        self._calls.reset()
        return 'all objects are forgotten', []

    def _answer(self, command: dict[str, Any], **answer: Any) -> None:
        request = command.get('request')
        self.send({'type': 'answer', 'request': request if isinstance(request, int) else None, **answer})
