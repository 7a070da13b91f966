# SPDX-License-Identifier: MIT
"""HTTP server: the page's files, and a WebSocket for each open page."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from xmem_ros.errors import FrameError, NodeError, NodeMissingError, ParameterError, Setting, naming
from xmem_ros.outside_text import for_log
from xmem_ros.web.bridge import Bridge, encode_overlay
from xmem_ros.web.gate import Gate
from xmem_ros.web.log_throttle import throttled_logs
from xmem_ros.web.viewer import Viewer

if TYPE_CHECKING:
    from collections.abc import Callable

    from xmem_ros.web.access import Access

STATIC = Path(__file__).parent / 'static'
OPEN_FILES = {
    '/style.css': ('style.css', 'text/css'),
    '/signin.js': ('signin.js', 'text/javascript'),
    '/icon.svg': ('icon.svg', 'image/svg+xml'),
}
"""Files of the sign-in page, served without a token."""
_SCRIPTS = ('app.js', 'drawing.js', 'input.js', 'objects.js', 'preview.js', 'texts.js')
FILES = {**{f'/{name}': (name, 'text/javascript') for name in _SCRIPTS}, **OPEN_FILES}
MOST_VIEWERS = 16
MOST_BYTES = 1024 * 1024  # of a WebSocket message; a painted mask takes a few hundred kilobytes at most
MOST_SIGN_IN = 1024  # bytes of a sign-in request
_BACKLOG = 32  # connections that wait to be accepted
_CALLS = 4  # concurrent calls to the node, for all pages together
_PREVIEWS = 2  # concurrent previews, for all pages together
_HEARTBEAT_S = 10.0  # period of pings; an unresponsive page is disconnected
_STATUS_S = 0.25
_SUBSCRIBE_S = 0.2  # minimum time between changes of subscriptions
_NODE_S = 3.0  # discovery time after which the log reports a missing node
_LOG_S = 10.0  # minimum time between warnings of one kind
_COOKIE_S = 7 * 24 * 3600


class Server:
    """Server of the page.

    Arguments:
        node: full name of the tracker's node.
        access: the checks that every request must pass.
    """

    def __init__(self, node: str, access: Access) -> None:
        self._access = access
        self.cookie = 'xmem_ros'  # name
        self._viewers: set[Viewer] = set()
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()  # set when there may be something to send
        self._image: Any = None  # newest overlay, not yet sent
        self._executor = ThreadPoolExecutor(_CALLS, 'command')  # separate, so that images and status do not wait
        self._previewer = ThreadPoolExecutor(_PREVIEWS, 'preview')
        self.gate: Gate | None = None  # connection limits; set when serving starts
        self._bridge = Bridge(node, self._on_image)
        self._subscribed = (False, False)  # overlays, objects
        self._tasks: list[asyncio.Task[None]] = []

    def application(self) -> web.Application:
        """Return the application: routes behind the access checks."""
        app = web.Application(middlewares=[self._check], client_max_size=MOST_SIGN_IN)
        router = app.router
        for path, (name, kind) in FILES.items():
            router.add_get(path, _file_handler(STATIC / name, kind), expect_handler=_expect)
        router.add_get('/', _file_handler(STATIC / 'index.html', 'text/html'), expect_handler=_expect)
        router.add_post('/signin', self._sign_in, expect_handler=_expect)
        router.add_get('/socket', self._socket, expect_handler=_expect)
        router.add_route('*', '/{path:.*}', _not_found, expect_handler=_expect)
        app.on_startup.append(self._start)
        app.on_cleanup.append(self._stop)
        return app

    async def _start(self, _: web.Application) -> None:
        self._tasks = [asyncio.ensure_future(_repeat(work)) for work in (self._send_images, self._send_status)]
        self._tasks.append(asyncio.ensure_future(self._look_for_node()))

    async def close_viewers(self) -> None:
        """Close every page's connection."""
        await asyncio.gather(*(viewer.close() for viewer in self._viewers))

    async def _stop(self, _: web.Application) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._loop.run_in_executor(None, self._bridge.close)
        for executor in (self._executor, self._previewer):
            executor.shutdown(wait=False, cancel_futures=True)

    async def _look_for_node(self) -> None:
        """Report a missing node, for example a mistyped name, before the page is opened."""
        try:
            await self._loop.run_in_executor(None, self._bridge.link.check_there, _NODE_S)
        except NodeMissingError as error:
            self._bridge.link.node.get_logger().warning(f'{for_log(error)}. The page waits for the node')
        except NodeError:  # the link was closed meanwhile
            pass

    # --- access

    @web.middleware
    async def _check(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        hosts = request.headers.getall('Host', [])
        host = hosts[0] if len(hosts) == 1 and self._access.host_allowed(hosts[0]) else ''
        try:
            if not host:
                response: web.StreamResponse = web.Response(
                    status=403, text='unknown Host: open the page as localhost\n'
                )
            elif request.path in OPEN_FILES or request.path == '/signin' or self._signed_in(request):
                response = await handler(request)
            elif request.path == '/':
                response = _file(STATIC / 'signin.html', 'text/html', 403)
            else:
                response = web.Response(status=403, text='not signed in: open the address that xmem-ros web printed\n')
        except web.HTTPException as error:
            response = web.Response(status=error.status, text=f'{error.status} {error.reason}\n')
        return response if response.prepared else _protected(response, host)

    def _signed_in(self, request: web.Request) -> bool:
        return self._access.signed_in(request.cookies.get(self.cookie))

    def _from_page(self, request: web.Request) -> bool:
        """Whether a request comes from our own page."""
        origins = request.headers.getall('Origin', [])
        return len(origins) == 1 and self._access.origin_allowed(origins[0], request.headers['Host'])

    async def _sign_in(self, request: web.Request) -> web.StreamResponse:
        """Check the token in the body; in the URL it would end up in browser histories and logs."""
        if not self._from_page(request):
            return web.Response(status=403, text='foreign Origin: sign in on the page itself\n')
        given = (await request.read()).decode('ascii', 'replace')
        if not self._access.token_matches(given):
            return web.Response(status=403, text='wrong token: give the one that xmem-ros web printed\n')
        response = web.Response(status=204)
        response.set_cookie(
            self.cookie,
            self._access.session,
            max_age=_COOKIE_S,
            path='/',
            httponly=True,
            samesite='Strict',
            secure=request.headers['Origin'].startswith('https://'),  # behind a proxy with TLS
        )
        return response

    # --- pages

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if not self._from_page(request):
            return web.Response(status=403, text='foreign Origin: connect from the page itself\n')
        if len(self._viewers) >= MOST_VIEWERS:
            return web.Response(
                status=503, text=f'{MOST_VIEWERS} pages are already open, which is the limit: close one\n'
            )
        socket = web.WebSocketResponse(
            max_msg_size=MOST_BYTES, heartbeat=_HEARTBEAT_S, compress=False, autoping=False, timeout=1.0
        )
        transport = request.transport
        if transport is None or not socket.can_prepare(request):
            return web.Response(status=400, text='not a WebSocket request: open / instead\n')
        viewer = Viewer(socket, transport, self._bridge, self._executor, self._previewer, self._changed.set)
        self._viewers.add(viewer)
        try:
            await socket.prepare(request)
            if self.gate is not None:
                self.gate.keep(transport)
            self._changed.set()
            await viewer.run()
        finally:
            self._viewers.discard(viewer)
            self._changed.set()
        return socket

    # --- to the pages

    def _on_image(self, message: Any) -> None:
        """Receive an overlay, in the thread of the bridge."""
        self._image = message  # only the newest is kept, because overlays may be large
        with contextlib.suppress(RuntimeError):  # the loop may be closed by now
            self._loop.call_soon_threadsafe(self._changed.set)

    async def _send_images(self) -> None:
        await self._changed.wait()
        self._changed.clear()
        overlay = any(viewer.wants_images for viewer in self._viewers)
        objects = any(viewer.visible for viewer in self._viewers)
        if (overlay, objects) != self._subscribed:
            await self._loop.run_in_executor(None, lambda: self._bridge.subscribe_to(overlay=overlay, objects=objects))
            self._subscribed = (overlay, objects)
            await asyncio.sleep(_SUBSCRIBE_S)  # limits the load of a page that toggles its visibility
        if not overlay:
            self._image = None  # an old image must not be shown later
        receivers = [viewer for viewer in self._viewers if viewer.wants_images and viewer.ready]
        if self._image is None or not receivers:
            return
        message, self._image = self._image, None
        try:
            data, size = await self._loop.run_in_executor(None, encode_overlay, message)
        except FrameError as error:
            logger = self._bridge.link.node.get_logger()
            logger.warning(f'unreadable overlay: {for_log(error)}', throttle_duration_sec=_LOG_S)
            return
        for viewer in receivers:
            if viewer in self._viewers and viewer.wants_images:
                viewer.send_image(data, size)

    async def _send_status(self) -> None:
        if any(viewer.visible for viewer in self._viewers):
            status = await self._loop.run_in_executor(None, self._bridge.status)
            for viewer in list(self._viewers):
                if viewer.visible:
                    viewer.send_status(status)
        await asyncio.sleep(_STATUS_S)


async def serve(node: str, access: Access, host: str, port: int, started: Callable[[int], None]) -> None:
    """Serve until cancelled.

    Args:
        node: full name of the tracker's node.
        access: the checks that every request must pass.
        host: listening address.
        port: listening port; 0: any free port.
        started: called with the port once the server listens.

    Raises:
        ParameterError: listening fails, or `node` is not a valid node name.
    """
    server = Server(node, access)
    # Neither drain nor decompress request bodies: a client could send an unlimited amount.
    runner = web.AppRunner(server.application(), access_log=None, lingering_time=0.0, auto_decompress=False)
    with throttled_logs():
        await runner.setup()
        assert runner.server is not None
        server.gate = Gate(runner.server)
        listening = None
        try:
            try:
                listening = await asyncio.get_running_loop().create_server(server.gate, host, port, backlog=_BACKLOG)
            except OSError as error:
                text = (
                    f'cannot listen on {host}:{port} ({error.strerror or error}): choose another port (0: any free '
                    'port) or another host'
                )
                raise naming(Setting.ADDRESS, ParameterError(text)) from error
            port = listening.sockets[0].getsockname()[1]
            server.cookie = f'xmem_ros_{port}'  # browsers share cookies between the ports of a host
            started(port)
            await asyncio.Event().wait()
        finally:
            if listening is not None:
                listening.close()
            server.gate.close()
            await server.close_viewers()
            await runner.cleanup()


def _file(path: Path, kind: str, status: int = 200) -> web.Response:
    return web.Response(body=path.read_bytes(), content_type=kind, charset='utf-8', status=status)


async def _expect(request: web.Request) -> web.StreamResponse | None:
    """Answer an Expect header; aiohttp's own handler fails if the header is not UTF-8."""
    if request.headers['Expect'].lower() == '100-continue':
        await request.writer.write(b'HTTP/1.1 100 Continue\r\n\r\n')
        return None
    return _protected(web.Response(status=417, text='unknown Expect: leave the header out\n'), '')


async def _not_found(request: web.Request) -> web.StreamResponse:  # noqa: ARG001
    raise web.HTTPNotFound


def _file_handler(path: Path, kind: str) -> Callable[[web.Request], Any]:
    async def handle(_: web.Request) -> web.Response:
        return _file(path, kind)

    return handle


def _protected(response: web.StreamResponse, host: str) -> web.StreamResponse:
    """Add security headers; `host` has been checked. Older browsers need the ws:// sources."""
    sockets = f' ws://{host} wss://{host}' if host else ''
    response.headers.update(
        {
            'Content-Security-Policy': "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
            f"connect-src 'self'{sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            'X-Content-Type-Options': 'nosniff',
            'Referrer-Policy': 'no-referrer',
            'Cross-Origin-Resource-Policy': 'same-origin',
            'Cross-Origin-Opener-Policy': 'same-origin',
            'Cache-Control': 'no-store',
            'Server': 'xmem-ros',
        }
    )
    response.force_close()  # one request per connection, see Gate
    return response


async def _repeat(work: Callable[[], Any]) -> None:
    """Repeat a task forever; an exception in one round must not end the task."""
    while True:
        try:
            await work()
        except Exception:
            traceback.print_exc()
            await asyncio.sleep(_LOG_S)
