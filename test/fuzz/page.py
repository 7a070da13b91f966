# SPDX-License-Identifier: MIT
"""Kind `page`: HTTP requests and WebSocket commands to the real server, with a fake node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import aiohttp
import numpy as np
from sensor_msgs.msg import Image

from fuzz.documents import mutate_json
from fuzz.kinds import Kind
from fuzz.messages import image, namespace
from fuzz.mutation import Source, mutate_bytes, mutate_tree
from fuzz.sandbox import Link, Places
from xmem_ros.client.calls import ServiceCalls
from xmem_ros.conversions.images import image_from_array
from xmem_ros.web import server
from xmem_ros.web.access import Access

TOKEN = 'abcdefghijklmnop'
REFUSED = (1003, 1007, 1008, 1009)  # close codes: not text, invalid, too many or too large messages
REQUESTS = [
    b'GET / HTTP/1.1\r\nHost: localhost\r\nCookie: @COOKIE@\r\nConnection: close\r\n\r\n',
    b'POST /signin HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nContent-Length: 16\r\n\r\n'
    + TOKEN.encode(),
    b'GET /socket HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nCookie: @COOKIE@\r\n'
    b'Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n'
    b'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x85\x00\x00\x00\x00hello',
]
STAMP = {'sec': 17, 'nanosec': 5}
COMMANDS: list[Any] = [
    {'type': 'shown'},
    {'type': 'look', 'visible': True, 'live': True},
    {'type': 'hold', 'stamp': STAMP},
    {'type': 'preview', 'request': 6, 'stamp': STAMP, 'kind': 'box', 'box': [1, 2, 3, 4]},
    {'type': 'seed', 'request': 1, 'stamp': STAMP, 'name': 'cup', 'kind': 'box', 'box': [1, 2, 3, 4]},
    {'type': 'seed', 'request': 2, 'stamp': STAMP, 'id': 3, 'kind': 'points', 'points': [[1, 2, 1], [3, 4.5, 0]]},
    {'type': 'seed', 'request': 3, 'stamp': STAMP, 'kind': 'mask', 'width': 6, 'height': 4, 'runs': [5, 9, 10]},
    {'type': 'preview', 'request': 7, 'stamp': STAMP, 'id': 3, 'kind': 'points', 'points': []},
    {'type': 'remove', 'request': 4, 'ids': [1, 2]},
    {'type': 'reset', 'request': 5},
    {'type': 'accept', 'request': 8, 'preview': 6, 'candidate': 0, 'name': 'cup', 'id': 0},
]
HEADERS = [b'Host', b'Origin', b'Cookie', b'Content-Length', b'Transfer-Encoding', b'Upgrade', b'Expect', b'Range']
HEADERS += [b'Sec-WebSocket-Key', b'Sec-WebSocket-Version', b'Sec-WebSocket-Extensions', b'Content-Type', b'X']
VALUES = [
    b'',
    b'chunked',
    b'-1',
    b'99999999999999999999',
    b'localhost',
    b'evil.example',
    b'[::1',
    b'127.0.0.1:99999999',
]
VALUES += [
    b'http://evil.example',
    b'null',
    b'permessage-deflate; server_max_window_bits=99',
    b'bytes=0-',
    b'100-continue',
]
VALUES += [
    b'@COOKIE@\xff\xfe',
    b'@COOKIE@"',
    b'a=' + b'x' * 9000,
    b'13, 13',
    b'\x00',
    b'multipart/form-data',
]
TARGETS = [
    b'/../../etc/passwd',
    b'//etc/passwd',
    b'/%2e%2e/%2e%2e/etc/passwd',
    b'/static/',
    b'http://evil.example/',
    b'*',
]
TARGETS += [b'/?token=%ff%fe', b'/?token=' + b'x' * 20_000, b'/app.js%00', b'/\xff', b'/socket?', b'', b'/' * 8000]


def _log(text: str, **_: Any) -> None:
    print(text)


class FakeLink:
    """Fake link to a node that grants every request."""

    name, timeout = '/xmem', 1.0
    node = SimpleNamespace(get_logger=lambda: SimpleNamespace(warning=_log), destroy_subscription=lambda _: None)

    def advertise(self, *_: Any) -> None:
        """Grant the request."""

    def publish(self, *_: Any) -> None:
        """Grant the request."""

    def check_there(self, *_: Any) -> None:
        """The node is there."""

    def call(self, kind: Any, _: str, request: Any, *__: Any, **___: Any) -> Any:
        """Grant the request."""
        answer = kind.Response(success=True)
        if hasattr(answer, 'masks'):
            answer.masks = [image_from_array(np.full((4, 6), 255, np.uint8), 'mono8', Image)]
            answer.qualities = [0.5]
        if hasattr(answer, 'ids'):
            answer.ids = list(range(1, len(request.seeds) + 1))
        return answer

    def close(self) -> None:
        """Nothing to close."""


class FakeBridge(ServiceCalls):
    """Bridge without a ROS graph."""

    def __init__(self, _: str, on_image: Callable[[Any], None]) -> None:
        super().__init__(FakeLink())  # type: ignore[arg-type]
        self._on_image = on_image

    def subscribe_to(self, *, overlay: bool, **_: bool) -> None:
        """Deliver an image at once."""
        if overlay:
            self._on_image(namespace(image(np.zeros((4, 6, 3), np.uint8), 'rgb8')))

    def status(self) -> dict[str, Any]:
        """Status of an idle node."""
        return {'type': 'status', 'objects': []}

    def close(self) -> None:
        """Nothing to close."""


def _make() -> list[dict[str, bytes]]:
    # an acceptance succeeds only after the answer to its preview, for which nobody waits here
    texts = [json.dumps(command) for command in COMMANDS if command['type'] != 'accept']
    few = [texts[start : start + 4] for start in range(0, len(texts), 4)]  # the length of the queue of commands
    commands = [{'commands.json': json.dumps(item).encode()} for item in few]
    return [*({'request.bin': request} for request in REQUESTS), *commands]


def _mutate(source: Source, files: dict[str, bytes]) -> dict[str, bytes | Link]:
    if 'request.bin' in files and source.chance(60):
        return {'request.bin': _mutate_request(source, files['request.bin'])}
    texts = []
    for _ in range(source.between(1, 5)):
        command = source.pick(COMMANDS)
        if source.chance(70):
            texts.append(json.dumps(mutate_tree(source, command)))
        else:
            texts.append(mutate_json(source, json.dumps(command).encode()).decode(errors='replace'))
    return {'commands.json': json.dumps(texts).encode()}


def _mutate_request(source: Source, request: bytes) -> bytes:
    if source.chance(25):
        return mutate_bytes(source, request)
    head, _, body = request.partition(b'\r\n\r\n')
    first, *lines = head.split(b'\r\n')
    for _ in source.several():
        kind = source.between(0, 5)
        line = source.pick(HEADERS) + b': ' + (source.pick(VALUES) if source.chance(80) else source.data())
        source.note(f'{kind}: {line[:60]!r}')
        if kind < 2:
            lines.append(line)
        elif kind == 2:
            lines[source.between(0, len(lines) - 1)] = line
        elif kind == 3:
            method = source.pick(
                [b'GET', b'POST', b'PUT', b'HEAD', b'OPTIONS', b'TRACE', b'CONNECT', b'get', b'', b'X' * 99]
            )
            version = source.pick([b'HTTP/1.1', b'HTTP/1.0', b'HTTP/0.9', b'HTTP/2.0', b'HTTP/9.9', b''])
            first = b' '.join([method, source.pick(TARGETS), version])
        elif kind == 4:
            lines += [line] * source.pick([2, 200, 5000])
        else:
            body += source.data() + (mutate_bytes(source, body) if body else b'')
    return b'\r\n'.join([first, *lines]) + b'\r\n\r\n' + body


def _use(places: Places) -> int:
    server.Bridge = FakeBridge  # type: ignore[assignment,misc]
    return asyncio.run(_served(places))


async def _served(places: Places) -> int:
    request = places.input / 'request.bin'
    access = Access(TOKEN if request.exists() else '')
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(server.serve('/xmem', access, '127.0.0.1', 0, started.set_result))
    port = await started
    cookie = f'xmem_ros_{port}={access.session}'.encode()
    if request.exists():
        code = await _request(port, request.read_bytes().replace(b'@COOKIE@', cookie))
    else:
        code = await _commands(port, json.loads((places.input / 'commands.json').read_text()))
    again = await _answer(port, REQUESTS[0].replace(b'@COOKIE@', cookie), 8)
    assert again.startswith(b'HTTP/1.1 200'), f'afterwards the page is not served: {again[:40]!r}'
    assert not serving.done()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    return code


async def _answer(port: int, request: bytes, seconds: float) -> bytes:
    """Return the beginning of the response; empty if the request is incomplete."""
    reader, writer = await asyncio.open_connection('127.0.0.1', port)
    try:
        writer.write(request)
        await writer.drain()
        return await asyncio.wait_for(reader.read(1 << 16), seconds)
    except (TimeoutError, asyncio.TimeoutError, ConnectionError):
        return b''
    finally:
        writer.close()


async def _request(port: int, request: bytes) -> int:
    head = (await _answer(port, request, 0.5)).partition(b'\r\n')[0]
    status = int(head.split()[1]) if head.startswith(b'HTTP/') else 0
    assert status < 500, f'answered with {head!r}'
    return 0 if status in (101, 200, 204) else 2


async def _commands(port: int, texts: list[str]) -> int:
    """Send commands; the last one is valid and must succeed."""
    url = f'http://localhost:{port}'
    refused = False
    async with aiohttp.ClientSession() as session, session.ws_connect(f'{url}/socket', origin=url) as socket:
        while (await asyncio.wait_for(socket.receive(), 8)).type != aiohttp.WSMsgType.BINARY:
            pass  # masks refer to the image that was sent
        try:
            for text in texts:
                await socket.send_str(text.encode('utf-8', 'replace').decode())
                await asyncio.sleep(0.01)  # let a preview be answered before its acceptance
            await asyncio.sleep(0.05)  # let the queue of commands drain
            await socket.send_str(json.dumps({'type': 'reset', 'request': 7777}))
        except ConnectionError:  # too large a message ends the connection before it has been sent
            assert max(map(len, texts)) > server.MOST_BYTES, 'the connection was lost'
            return 2
        while True:
            message = await asyncio.wait_for(socket.receive(), 8)
            if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED):
                assert socket.close_code in REFUSED, f'the socket was closed: {socket.close_code}'
                return 2
            if message.type != aiohttp.WSMsgType.TEXT or (answer := json.loads(message.data))['type'] != 'answer':
                continue
            assert not str(answer.get('text')).startswith('internal error'), answer['text']
            refused |= not answer['ok']
            if answer['request'] == 7777:
                return 2 if refused else 0


def kinds() -> list[Kind]:
    """List the kinds of this module."""
    may = frozenset({'socket.bind', 'socket.connect', 'socket.getaddrinfo'})
    return [Kind('page', _make, _mutate, _use, may=may)]
