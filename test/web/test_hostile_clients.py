# SPDX-License-Identifier: MIT
"""Hostile clients over raw sockets: the page stays available, memory and log stay small."""

import asyncio
import base64
import contextlib
import json
import logging
import os
import socket
import struct
from pathlib import Path

import pytest
from needs import require

require('rclpy', 'xmem_ros.msg', 'aiohttp')

import aiohttp
import aiohttp.web
import numpy as np
from sensor_msgs.msg import Image
from web_harness import TOKEN, WebProcess, answer, page_of, run, serving

import xmem_ros.web.gate
import xmem_ros.web.viewer
from xmem_ros.client.link import NodeLink
from xmem_ros.conversions.images import image_from_array
from xmem_ros.node import qos
from xmem_ros.web.access import Access
from xmem_ros.web.bridge import encode_overlay
from xmem_ros.web.gate import MOST_VISITORS
from xmem_ros.web.log_throttle import throttled_logs
from xmem_ros.web.server import MOST_VIEWERS

FEW_FILES = 256  # that the server may open
LITTLE_LOG = 20_000  # characters
LITTLE_MEMORY = 100_000_000  # bytes
SIGN_IN = b'POST /signin HTTP/1.1\r\nHost: HERE\r\nOrigin: http://HERE\r\n'


@pytest.fixture
def token_file(tmp_path):
    file = tmp_path / 'token'
    file.write_text(TOKEN)
    file.chmod(0o600)
    return file


def connected(port):
    return socket.create_connection(('127.0.0.1', port), timeout=30)


def fetched(port, path='/'):
    """Return the status of a GET request like that of a browser."""
    with connected(port) as visitor:
        visitor.sendall(f'GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n'.encode())
        return int(visitor.recv(100).split()[1])


def opened(port, token=''):
    """Open a WebSocket; returns its raw socket."""
    page = connected(port)
    cookie = f'Cookie: xmem_ros_{port}={Access(token).session}\r\n' if token else ''
    page.sendall(
        f'GET /socket HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\n{cookie}'
        'Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n'
        f'Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n\r\n'.encode()
    )
    head = b''
    while not head.endswith(b'\r\n\r\n'):
        head += page.recv(1)
    assert b' 101 ' in head, head
    return page


def framed(data, kind=1):
    """Build a WebSocket frame of a client, with a zero mask."""
    length = len(data)
    if length < 126:
        size = bytes([0x80 | length])
    else:
        size = b'\xfe' + struct.pack('>H', length) if length < 65536 else b'\xff' + struct.pack('>Q', length)
    return bytes([0x80 | kind]) + size + bytes(4) + data


# --- without the token


@pytest.mark.parametrize('opening', [b'', b'GET /socket HTTP/1.1\r\nHost: x\r\n', b'\x16\x03\x01\x02\x00\x01'])
def test_idle_connections_neither_lock_others_out_nor_fill_the_log(opening, token_file):
    process = WebProcess('/nowhere/xmem', arguments=('--token-file', str(token_file)), files=FEW_FILES)
    idle = []
    try:
        for _ in range(3 * FEW_FILES):
            one = socket.socket()
            one.setblocking(False)
            idle.append(one)
            with contextlib.suppress(BlockingIOError):
                one.connect(('127.0.0.1', process.port))
            with contextlib.suppress(OSError):
                one.send(opening)
        assert [fetched(process.port) for _ in range(20)] == [403] * 20
        assert len(process.output) < LITTLE_LOG
    finally:
        for one in idle:
            one.close()
        process.close()


@pytest.mark.parametrize('opening', [b'', b'GET / HTTP/1.1\r\nHost: x\r\nX: ', b'POST /signin HTTP/1.1\r\nHost: x\r\n'])
def test_an_endless_request_is_disconnected(opening, monkeypatch):
    monkeypatch.setattr(xmem_ros.web.gate, 'VISIT_S', 0.5)

    async def drip():
        async with serving(TOKEN) as address:
            reader, writer = await asyncio.open_connection(*address.split(':'))
            writer.write(opening)
            with contextlib.suppress(ConnectionError):
                while not reader.at_eof():  # until the server has closed it, or `run` gives up
                    writer.write(b'x')
                    await asyncio.wait([asyncio.ensure_future(reader.read(1))], timeout=0.1)
                    await writer.drain()

    run(drip())


@pytest.mark.parametrize(
    'request_',
    [
        b'GET / HTTP/1.1\r\nHost: HERE\r\nContent-Length: x\r\n\r\n',
        b'GET / HTTP/1.1\r\nHost: HERE\r\nContent-Length: -1\r\n\r\n',
        SIGN_IN + b'Content-Length: 1\r\nContent-Length: 2\r\n\r\nx',
        SIGN_IN + b'Content-Length: 99999999999999999999\r\n\r\nx',
        SIGN_IN + b'Transfer-Encoding: chunked\r\n\r\nzz\r\n',
        SIGN_IN + b'Content-Length: 100000\r\n\r\n' + b'x' * 100_000,
        b'GET / HTTP/1.1\r\nHost: HERE\r\nX: ' + b'x' * 1_000_000 + b'\r\n\r\n',
        b'GET / HTTP/1.1\r\nHost: HERE\r\n' + b'X: x\r\n' * 100_000 + b'\r\n',
        b'GET /' + b'x' * 1_000_000 + b' HTTP/1.1\r\nHost: HERE\r\n\r\n',
        b'GET / HTTP/1.1\r\nHost: HERE\r\nHost: evil.example\r\n\r\n',
        b'GET / HTTP/1.1\r\nHost: HERE\r\nCookie: xmem_ros_0=SECRET\x00\r\n\r\n',
        b'GET / HTTP/1.1\r\nCookie xmem_ros_0=SECRET\r\n\r\n',
        b'GET / HTTP/9.9\r\nHost: HERE\r\n\r\n',
        b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + b'\xff' * 100 + b'\r\n\r\n',
        b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
        b'GET http://[ HTTP/1.1\r\nHost: HERE\r\n\r\n',
        b'GET //%ff%00/../ HTTP/1.1\r\nHost: HERE\r\n\r\n',
        b'OPTIONS * HTTP/1.1\r\nHost: HERE\r\n\r\n',
        b'CONNECT x:1 HTTP/1.1\r\nHost: HERE\r\n\r\n',
        b'GET /socket HTTP/1.1\r\nHost: HERE\r\nOrigin: http://HERE\r\n\r\n',
        b'GET /style.css HTTP/1.1\r\nHost: HERE\r\nExpect: nothing\r\n\r\n',
        SIGN_IN + b'Content-Length: 1\r\nExpect: SECRET\xff\xfe\r\n\r\nx',
        b'GET /nothing HTTP/1.1\r\nHost: HERE\r\nExpect: \xff\xfe\r\n\r\n',
        b'CONNECT /nothing HTTP/1.1\r\nHost: HERE\r\n\r\n',
        b'CONNECT \xff HTTP/1.1\r\nHost: HERE\r\n\r\n',
        b'GET /style.css HTTP/1.1\r\nHost: HERE\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\nno gzip at',
    ],
)
@pytest.mark.parametrize('token', ['', TOKEN])
def test_a_malformed_request_is_refused_briefly(request_, token, caplog, capfd):
    async def ask():
        async with serving(token) as address:
            reader, writer = await asyncio.open_connection(*address.split(':'))
            with contextlib.suppress(ConnectionError):
                writer.write(request_.replace(b'HERE', address.encode()))
                writer.write_eof()
                await writer.drain()
            said = b''
            with contextlib.suppress(ConnectionError):
                while part := await reader.read(100_000):
                    said += part
            writer.close()
            async with aiohttp.ClientSession(f'http://{address}') as session, session.get('/') as response:
                assert response.status == (403 if token else 200)  # others are served as before
            return said

    said = run(ask())
    assert not said or said.startswith((b'HTTP/1.1 4', b'HTTP/1.0 4', b'HTTP/1.1 200')), said[:100]
    output = caplog.text + ''.join(capfd.readouterr())
    assert 'Traceback' not in output
    assert 'SECRET' not in output
    assert len(output) < LITTLE_LOG


def test_only_faults_of_our_own_are_logged_with_a_traceback(caplog):
    def logged(fault):
        caplog.clear()
        try:
            fault()
        except (ValueError, AttributeError) as error:
            logging.getLogger('asyncio').error('Task exception was never retrieved', exc_info=error)
        return caplog.text

    with throttled_logs():
        theirs = logged(lambda: aiohttp.web.Response(text='\ud800'))  # as aiohttp answers some requests
        assert 'a malformed HTTP request was refused (UnicodeEncodeError)' in theirs
        assert 'Traceback' not in theirs
        assert 'Traceback' in logged(lambda: encode_overlay(None))


def test_pipelined_requests_are_not_all_answered():
    async def ask():
        async with serving(TOKEN) as address:
            reader, writer = await asyncio.open_connection(*address.split(':'))
            one = f'GET /style.css HTTP/1.1\r\nHost: {address}\r\n\r\n'.encode()
            with contextlib.suppress(ConnectionError):
                writer.write(one * 1000)
                await writer.drain()
            said = b''
            with contextlib.suppress(ConnectionError):
                while part := await reader.read(100_000):
                    said += part
            return said.count(b'HTTP/1.1 ')

    assert run(ask()) <= 2


@pytest.mark.parametrize('path', ['/', '/style.css', '/app.js', '/nothing', '/socket', '/signin'])
@pytest.mark.parametrize('method', ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS'])
@pytest.mark.parametrize('token', ['', TOKEN])
def test_every_response_has_the_security_headers(path, method, token):
    async def ask():
        async with (
            serving(token) as address,
            aiohttp.ClientSession(f'http://{address}') as session,
            session.request(method, path) as response,
        ):
            policy = response.headers['Content-Security-Policy']
            for part in ("default-src 'none'", "script-src 'self';", "style-src 'self';", "frame-ancestors 'none'"):
                assert part in policy
            assert 'unsafe' not in policy
            assert response.headers['X-Content-Type-Options'] == 'nosniff'
            assert response.headers['Referrer-Policy'] == 'no-referrer'
            assert response.headers['Cross-Origin-Resource-Policy'] == 'same-origin'
            assert 'Access-Control-Allow-Origin' not in response.headers
            assert 'Python' not in response.headers['Server']

    run(ask())


def test_the_token_appears_neither_in_the_process_list_nor_in_the_log(token_file):
    process = WebProcess('/nowhere/xmem', arguments=('--token-file', str(token_file)))
    try:
        assert TOKEN not in Path(f'/proc/{process.process.pid}/cmdline').read_text()
        assert fetched(process.port) == 403
        opened(process.port, TOKEN).close()
        assert TOKEN not in process.output
        assert 'the page requires your token' in process.output
    finally:
        process.close()


def test_disconnecting_clients_cause_no_traceback(caplog, capfd):
    def ask(port, request):
        with connected(port) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))  # the end is a reset
            client.sendall(request)

    async def check():
        async with serving() as address:
            port = int(address.rpartition(':')[2])
            key = base64.b64encode(bytes(16)).decode()
            head = f'GET /socket HTTP/1.1\r\nHost: {address}\r\nOrigin: http://{address}\r\n'
            upgrade = 'Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n'
            for request in (f'{head}{upgrade}Sec-WebSocket-Key: {key}\r\n\r\n', f'{head}\r\n', f'{head}X'):
                for _ in range(30):
                    await asyncio.to_thread(ask, port, request.encode())
            assert await asyncio.to_thread(fetched, port) == 200

    run(check())
    assert 'Traceback' not in caplog.text + ''.join(capfd.readouterr())


# --- with it


def test_commands_of_a_page_take_little_memory():
    process = WebProcess('/nowhere/xmem')
    try:
        before = process.resident
        hold = json.dumps({'type': 'hold', 'stamp': {'sec': 1, 'nanosec': 0}}).encode()  # waits for the node
        lists = json.dumps({'type': 'seed', 'kind': 'mask', 'runs': [[]] * 250_000}).encode()
        for _ in range(4):
            with opened(process.port) as page, contextlib.suppress(ConnectionError, TimeoutError):
                page.sendall(framed(hold))
                for _ in range(40):
                    page.sendall(framed(lists))
        assert fetched(process.port) == 200
        assert process.peak - before < LITTLE_MEMORY
    finally:
        process.close()


@pytest.mark.parametrize('frame', [framed(b''), framed(b'{"type": "shown"}'), framed(b'x' * 125, 9), framed(b'', 10)])
def test_a_page_that_floods_the_server_is_disconnected(frame):
    async def flood():
        async with serving() as address:
            page = await asyncio.to_thread(opened, int(address.rpartition(':')[2]))
            reader, writer = await asyncio.open_connection(sock=page)
            with contextlib.suppress(ConnectionError):
                while not reader.at_eof():
                    writer.write(frame * 1000)
                    await writer.drain()
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(reader.read(100_000), 0.01)

    run(flood())


def test_a_page_that_does_not_read_its_images_is_disconnected_and_others_get_theirs(monkeypatch):
    monkeypatch.setattr(xmem_ros.web.viewer, 'SLOW_S', 1.0)
    noise = np.random.default_rng(0).integers(0, 255, (1280, 1280, 3), np.uint8)

    async def check():
        camera = NodeLink('/nowhere/xmem')
        overlays = camera.node.create_publisher(Image, '/nowhere/xmem/overlay', qos.output())
        async with serving(node='/nowhere/xmem') as address, aiohttp.ClientSession(f'http://{address}') as session:
            lazy = await asyncio.to_thread(opened, int(address.rpartition(':')[2]))
            lazy.setblocking(False)
            async with session.ws_connect('/socket', headers={'Origin': f'http://{address}'}) as page:
                images, gone = 0, False
                while images < 5 or not gone:
                    overlays.publish(image_from_array(noise, 'rgb8', Image))
                    await asyncio.sleep(0.1)
                    with contextlib.suppress(BlockingIOError):
                        try:
                            lazy.send(framed(b'{"type": "shown"}'))  # but reads nothing
                        except ConnectionError:
                            gone = True
                    with contextlib.suppress(asyncio.TimeoutError):
                        if (await page.receive(0.05)).type == aiohttp.WSMsgType.BINARY:
                            images += 1
                            await page.send_json({'type': 'shown'})
            lazy.close()
        camera.close()

    run(check())


def test_commands_that_wait_for_the_node_do_not_delay_the_status_of_other_pages():
    async def check():
        async with serving() as address, aiohttp.ClientSession(f'http://{address}') as session:
            origin = {'Origin': f'http://{address}'}
            pages = [await session.ws_connect('/socket', headers=origin) for _ in range(MOST_VIEWERS)]
            for page in pages:
                await page.send_json({'type': 'hold', 'request': 1, 'stamp': {'sec': 1, 'nanosec': 0}})
            kinds = []
            while kinds.count('status') < 10 and 'answer' not in kinds:
                kinds.append(json.loads(await pages[0].receive_str(timeout=30))['type'])
            assert 'answer' not in kinds  # which comes when the node has been waited for in vain
            for page in pages:
                await page.close()

    run(check())


COMMANDS = [
    {'type': 'hold', 'stamp': {'sec': 1, 'nanosec': 0}},
    {'type': 'seed', 'stamp': {'sec': 1, 'nanosec': 0}, 'name': 'cup', 'id': 1, 'kind': 'box', 'box': [1, 2, 3, 4]},
    {'type': 'seed', 'stamp': {'sec': 1, 'nanosec': 0}, 'kind': 'points', 'points': [[1, 2, 1]]},
    {'type': 'seed', 'stamp': {'sec': 1, 'nanosec': 0}, 'kind': 'mask', 'width': 4, 'height': 1, 'runs': [1, 2, 1]},
    {'type': 'remove', 'ids': [1]},
    {'type': 'look', 'visible': True, 'live': True},
]
DEEP = '[' * 900 + ']' * 900
VALUES = ['null', 'true', '-1', '1.5', '1e308', '1e999', '9' * 400, '9' * 5000, 'NaN', '-Infinity', '""', '"\\ud800"']
VALUES += ['"\\u0000"', '"' + 'x' * 100_000 + '"', '[]', '{}', DEEP, f'[{DEEP}]', f'{{"sec": {DEEP}, "nanosec": 0}}']
VALUES += [
    '{"sec": NaN, "nanosec": 0}',
    '{"sec": 1e9, "nanosec": 0}',
    '[NaN, 1, 1, 1]',
    '[[NaN, NaN, 1]]',
    '[[1, 2, true]]',
]
VALUES += ['[[1, 2, [1]]]', '[1e999]', '[true]', '[4294967296]', '[' + '1,' * 1000 + '1]', '65536', '4294967295']


@pytest.mark.parametrize('command', COMMANDS, ids=lambda command: f'{command["type"]} {command.get("kind", "")}')
def test_a_field_of_any_type_gets_an_answer_and_the_page_stays_connected(command, caplog):
    async def check():
        async with serving() as address, aiohttp.ClientSession(f'http://{address}') as session:
            for field in [*command, 'request']:
                page = await session.ws_connect('/socket', headers={'Origin': f'http://{address}'})
                for value in VALUES:
                    text = json.dumps({'request': 7, **command, field: 'VALUE'}).replace('"VALUE"', value)
                    await page.send_str(text)
                    await page.send_json({'type': 'reset and', 'request': 12345})
                    while (await answer(page))['request'] != 12345:
                        pass
                await page.close()

    run(check())
    assert 'Traceback' not in caplog.text


def test_a_mask_of_another_size_than_the_image_is_refused_before_it_is_decoded():
    async def check():
        async with serving() as address, page_of(address) as page:
            seed = {'type': 'seed', 'request': 1, 'stamp': {'sec': 1, 'nanosec': 0}, 'kind': 'mask'}
            await page.send_json({**seed, 'width': 8000, 'height': 8000, 'runs': [64_000_000]})
            assert 'a different size than the image' in (await answer(page))['text']

    run(check())


def test_visitors_leave_room_for_every_page():
    assert MOST_VIEWERS + MOST_VISITORS + 80 < FEW_FILES  # of ROS, of Python, and of those that are just being closed
