# SPDX-License-Identifier: MIT
"""The HTTP server: the page's files, and a WebSocket for each page that is open."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from xmem_ros.errors import FrameError, NodeError, NodeMissingError, ParameterError
from xmem_ros.outside_text import for_log
from xmem_ros.web.bridge import Bridge, encoded
from xmem_ros.web.viewer import Viewer

if TYPE_CHECKING:
    from collections.abc import Callable

    from xmem_ros.web.access import Access

STATIC = Path(__file__).parent / 'static'
FILES = {
    '/': ('index.html', 'text/html'),
    '/style.css': ('style.css', 'text/css'),
    '/app.js': ('app.js', 'text/javascript'),
    '/drawing.js': ('drawing.js', 'text/javascript'),
    '/icon.svg': ('icon.svg', 'image/svg+xml'),
}
MOST_VIEWERS = 16
MOST_BYTES = 2 * 1024 * 1024  # of a message from a page; a painted mask takes some hundred kilobytes at most
_HEARTBEAT_S = 10.0  # after which a page that does not answer counts as gone
_STATUS_S = 0.25
_NODE_S = 3.0  # that the node may take to be seen before the log says that it is not there

_DENIED = """<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>xmem_ros</title><p>This page needs the whole address that <code>xmem-ros web</code> printed, with
<code>?token=</code> at its end."""


class Server:
    """Serves the page.

    Arguments:
        node: name of the tracker's node.
        access: who may use it.
        port: is part of the cookie's name, since browsers share cookies between ports.
    """

    def __init__(self, node: str, access: Access, port: int) -> None:
        self._access = access
        self._cookie = f'xmem_ros_{port}'
        self._viewers: set[Viewer] = set()
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()  # something may be to send
        self._image: Any = None  # the newest overlay, not yet sent
        self._bridge = Bridge(node, self._hear_image)
        self._looking = (False, False)  # at overlays, at objects
        self._tasks: list[asyncio.Task[None]] = []

    def application(self) -> web.Application:
        """The routes, with everything that is checked before them."""
        app = web.Application(middlewares=[self._check], client_max_size=64 * 1024)
        for path, (name, kind) in FILES.items():
            app.router.add_get(path, _file_handler(STATIC / name, kind))
        app.router.add_get('/socket', self._socket)
        app.on_startup.append(self._start)
        app.on_cleanup.append(self._stop)
        app.on_shutdown.append(self._close_viewers)
        return app

    async def _start(self, _: web.Application) -> None:
        self._tasks = [asyncio.ensure_future(_again_and_again(work)) for work in (self._send_images, self._send_status)]
        self._tasks.append(asyncio.ensure_future(self._look_for_node()))

    async def _close_viewers(self, _: web.Application) -> None:
        for viewer in list(self._viewers):
            await viewer.close()

    async def _stop(self, _: web.Application) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._loop.run_in_executor(None, self._bridge.close)

    async def _look_for_node(self) -> None:
        """Whoever has mistyped its name is to know before they open the page."""
        try:
            await self._loop.run_in_executor(None, self._bridge.link.check_there, _NODE_S)
        except NodeMissingError as error:
            self._bridge.link.node.get_logger().warning(f'{for_log(error)}. The page waits for it')
        except NodeError:  # it was closed meanwhile
            pass

    # --- who may

    @web.middleware
    async def _check(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        host = request.headers.get('Host', '')
        if not self._access.host_allowed(host):
            return _protected(web.Response(status=403, text='not a name of this machine\n'), '')
        given = request.query.get('token')
        if given is not None and self._access.knows(given) and request.path == '/':
            # Into a cookie, and out of the address bar.
            response: web.StreamResponse = web.Response(status=303, headers={'Location': '/'})
            response.set_cookie(self._cookie, given, httponly=True, samesite='Lax', max_age=7 * 24 * 3600)
            return _protected(response, host)
        if not self._access.knows(request.cookies.get(self._cookie)):
            return _protected(web.Response(status=403, text=_DENIED, content_type='text/html'), host)
        response = await handler(request)
        return response if response.prepared else _protected(response, host)

    # --- pages

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if not self._access.origin_allowed(request.headers.get('Origin'), request.headers.get('Host', '')):
            return web.Response(status=403, text='only the page itself may connect\n')
        if len(self._viewers) >= MOST_VIEWERS:
            return web.Response(status=503, text=f'{MOST_VIEWERS} pages are open already\n')
        socket = web.WebSocketResponse(max_msg_size=MOST_BYTES, heartbeat=_HEARTBEAT_S, compress=False)
        await socket.prepare(request)
        viewer = Viewer(socket, self._bridge, self._changed.set)
        self._viewers.add(viewer)
        self._changed.set()
        try:
            await viewer.run()
        finally:
            self._viewers.discard(viewer)
            self._changed.set()
        return socket

    # --- what they get

    def _hear_image(self, message: Any) -> None:
        """In the thread of the bridge."""
        with contextlib.suppress(RuntimeError):  # the loop may be closed by now
            self._loop.call_soon_threadsafe(self._take_image, message)

    def _take_image(self, message: Any) -> None:
        self._image = message
        self._changed.set()

    async def _send_images(self) -> None:
        await self._changed.wait()
        self._changed.clear()
        overlay = any(viewer.wants_images for viewer in self._viewers)
        objects = any(viewer.visible for viewer in self._viewers)
        if (overlay, objects) != self._looking:
            await self._loop.run_in_executor(None, lambda: self._bridge.look(overlay=overlay, objects=objects))
            self._looking = (overlay, objects)
        if not overlay:
            self._image = None  # an old one is not to be shown when somebody looks again
        takers = [viewer for viewer in self._viewers if viewer.wants_images and viewer.ready]
        if self._image is None or not takers:
            return
        message, self._image = self._image, None
        try:
            data = await self._loop.run_in_executor(None, encoded, message)
        except FrameError as error:
            self._bridge.link.node.get_logger().warning(f'an overlay cannot be read: {for_log(error)}')
            return
        for viewer in takers:
            if viewer in self._viewers and viewer.wants_images:
                viewer.send_image(data)

    async def _send_status(self) -> None:
        if any(viewer.visible for viewer in self._viewers):
            status = await self._loop.run_in_executor(None, self._bridge.status)
            for viewer in list(self._viewers):
                if viewer.visible:
                    viewer.send(status)
        await asyncio.sleep(_STATUS_S)


async def serve(node: str, access: Access, host: str, port: int, started: Callable[[int], None]) -> None:
    """Serve until cancelled.

    Args:
        node: name of the tracker's node.
        access: who may use the page.
        host: address to listen on.
        port: to listen on; 0: any that is free.
        started: is called with the port.

    Raises:
        ParameterError: it cannot be listened on, or no node can have that name.
    """
    server = Server(node, access, port)
    runner = web.AppRunner(server.application(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise ParameterError(
                f'{host}:{port} cannot be listened on ({error.strerror or error}): choose another --port, 0 for any '
                'that is free, or another --host'
            ) from error
        started(runner.addresses[0][1])
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def _file_handler(path: Path, kind: str) -> Callable[[web.Request], Any]:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=path.read_bytes(), content_type=kind, charset='utf-8')

    return handle


def _protected(response: web.StreamResponse, host: str) -> web.StreamResponse:
    """With the headers that keep other pages out. `host` is checked by now; older browsers need its sockets named."""
    response.headers.update(
        {
            'Content-Security-Policy': "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
            f"connect-src 'self' ws://{host} wss://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            'X-Content-Type-Options': 'nosniff',
            'Referrer-Policy': 'no-referrer',
            'Cache-Control': 'no-store',
        }
    )
    return response


async def _again_and_again(work: Callable[[], Any]) -> None:
    """A fault of one round must not end the page."""
    while True:
        try:
            await work()
        except Exception:
            traceback.print_exc()
            await asyncio.sleep(1.0)
