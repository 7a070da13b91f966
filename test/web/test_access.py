# SPDX-License-Identifier: MIT
"""Access control of the page and parsing of its commands, without a node."""

import asyncio
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg', 'aiohttp')

import aiohttp
from node_harness import wait_until
from web_harness import TOKEN, answer, run, serving

from xmem_ros.client import Box, Points
from xmem_ros.errors import ParameterError, SeedError
from xmem_ros.web.access import Access, choose_token, given_token, is_loopback
from xmem_ros.web.commands import ids_of, runs_of, seed_of, stamp_of
from xmem_ros.web.server import MOST_BYTES, MOST_VIEWERS

# --- who may

BAD_BOX = 'invalid box: give four numbers x, y, width, height'


def test_only_files_of_the_page_are_served_with_a_content_security_policy():
    async def check():
        async with serving() as address, aiohttp.ClientSession(f'http://{address}') as session:
            for path, kind in [('/', 'html'), ('/style.css', 'css'), ('/app.js', 'javascript'), ('/icon.svg', 'svg')]:
                async with session.get(path) as response:
                    assert (response.status, kind in response.content_type) == (200, True)
                    policy = response.headers['Content-Security-Policy']
                    assert "default-src 'none'" in policy and "script-src 'self';" in policy
                    text = await response.text()
                    assert 'https://' not in text  # a robot has no internet
            for path in ('/../access.py', '/static/index.html', '/token', '/%2e%2e/access.py'):
                async with session.get(path) as response:
                    assert response.status == 404

    run(check())


@pytest.mark.parametrize('path', ['/', '/app.js', '/socket', '/nothing'])
@pytest.mark.parametrize('given', ['', TOKEN, f'{TOKEN}x', '"', '\xff\xfe'])
def test_only_the_sign_in_form_is_served_without_the_cookie(path, given):
    async def check():
        async with serving(TOKEN) as address, aiohttp.ClientSession(f'http://{address}') as session:
            headers = {'Cookie': f'xmem_ros_{address.rpartition(":")[2]}={given}'} if given else {}
            response = await session.get(f'{path}?token={TOKEN}', headers=headers, allow_redirects=False)
            assert response.status == 403
            assert 'xmem-ros web' in await response.text()

    run(check())


def test_the_token_becomes_a_cookie_that_scripts_cannot_read():
    async def check():
        async with serving(TOKEN) as address:
            jar = aiohttp.CookieJar(unsafe=True)  # an address in place of a name
            async with aiohttp.ClientSession(f'http://{address}', cookie_jar=jar) as session:
                origin = {'Origin': f'http://{address}'}
                for wrong in (b'', b'wrong', TOKEN[:-1].encode(), f'{TOKEN}x'.encode(), b'\xff\xfe'):
                    async with session.post('/signin', data=wrong, headers=origin) as response:
                        assert response.status == 403
                        assert 'Set-Cookie' not in response.headers
                async with session.post('/signin', data=b'x' * 4000, headers=origin) as response:
                    assert response.status == 413
                for other in ({}, {'Origin': 'http://evil.example'}):
                    async with session.post('/signin', data=TOKEN, headers=other) as response:
                        assert response.status == 403
                async with session.post('/signin', data=TOKEN, headers=origin) as response:
                    assert response.status == 204
                    cookie = response.headers['Set-Cookie']
                    assert 'HttpOnly' in cookie and 'SameSite=Strict' in cookie and 'Path=/' in cookie
                    assert TOKEN not in cookie  # other servers on this host get it, too
                async with session.get('/') as response:
                    assert response.status == 200
                async with session.ws_connect('/socket', headers={'Origin': f'http://{address}'}) as page:
                    status = json.loads(await page.receive_str())
                    assert (status['type'], status['state']) == ('status', 'missing')
                    assert (status['node'], status['others']) == ('/nowhere/xmem', [])

    run(check())


@pytest.mark.parametrize('origin', [None, 'http://evil.example', 'null', 'http://127.0.0.1', 'http://127.0.0.1:1'])
def test_a_foreign_page_cannot_connect(origin):
    async def check():
        async with serving() as address, aiohttp.ClientSession(f'http://{address}') as session:
            headers = {'Origin': origin} if origin else {}
            with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                await session.ws_connect('/socket', headers=headers)
            assert refusal.value.status == 403

    run(check())


def test_a_foreign_host_name_for_this_machine_is_refused():
    async def check():
        async with serving() as address, aiohttp.ClientSession(f'http://{address}') as session:
            port = address.rpartition(':')[2]
            for host, expected in [
                (f'evil.example:{port}', 403),
                ('127.0.0.1.evil.example', 403),
                ('a b', 403),
                ("localhost; script-src 'unsafe-inline'", 403),
                (f'localhost:{port}', 200),
                ('[::1]:1234', 200),  # the other end of an SSH tunnel has a port of its own
            ]:
                async with session.get('/', headers={'Host': host}) as response:
                    assert response.status == expected, host

    run(check())


def test_a_token_is_required_if_other_machines_can_connect():
    assert [is_loopback(host) for host in ('127.0.0.1', '127.3.2.1', 'localhost', '::1')] == [True] * 4
    assert [is_loopback(host) for host in ('0.0.0.0', '::', '192.168.1.2', 'robot', '')] == [False] * 5
    assert choose_token('127.0.0.1', None) == ''
    assert choose_token('127.0.0.1', TOKEN) == TOKEN
    one, two = (choose_token('0.0.0.0', None) for _ in range(2))
    assert one != two and len(one) >= 20


def test_the_token_is_read_from_a_file_or_the_environment_and_must_be_long(tmp_path):
    file = tmp_path / 'token'
    file.write_text(f'{TOKEN}\n')
    assert given_token(str(file), {'XMEM_ROS_WEB_TOKEN': 'another-token-of-letters'}) == TOKEN
    assert given_token(None, {'XMEM_ROS_WEB_TOKEN': TOKEN}) == TOKEN
    assert given_token(None, {}) is given_token('', {'XMEM_ROS_WEB_TOKEN': ''}) is None
    for wrong in ('', 'short', 'with space in between', 'ümlauts-in-the-token', 'x' * 1000):
        file.write_text(wrong)
        with pytest.raises(ParameterError, match=f'{file}.*16 to 256') as refusal:
            given_token(str(file), {})
        assert not wrong or wrong not in str(refusal.value)
    with pytest.raises(ParameterError, match='cannot be read'):
        given_token(str(tmp_path), {})
    with pytest.raises(ParameterError, match='XMEM_ROS_WEB_TOKEN'):
        given_token(None, {'XMEM_ROS_WEB_TOKEN': 'short'})


# --- what comes over the socket


def test_an_invalid_command_gets_an_error_and_an_oversized_one_closes_the_connection():
    async def check():
        async with serving() as address, aiohttp.ClientSession(f'http://{address}') as session:
            origin = {'Origin': f'http://{address}'}
            async with session.ws_connect('/socket', headers=origin) as page:
                for text in ('', '{', '[]', '5', 'null', '{"type": 5}'):
                    await page.send_str(text)
                    assert 'invalid command' in (await answer(page))['text']
                await page.send_json({'type': 'seed', 'request': 4, 'kind': 'box', 'box': [1, 2, 3]})
                refusal = await answer(page)
                assert (refusal['request'], refusal['ok'], refusal['text']) == (4, False, BAD_BOX)
                await page.send_bytes(b'\0' * 100)  # is not read
                await page.send_str(' ' * (MOST_BYTES + 1))
                while (message := await page.receive(30)).type == aiohttp.WSMsgType.TEXT:
                    pass
                assert message.data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG

    run(check())


def test_the_number_of_open_pages_is_limited():
    async def check():
        async with serving() as address, aiohttp.ClientSession(f'http://{address}') as session:
            origin = {'Origin': f'http://{address}'}
            pages = [await session.ws_connect('/socket', headers=origin) for _ in range(MOST_VIEWERS)]
            with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                await session.ws_connect('/socket', headers=origin)
            assert refusal.value.status == 503
            await pages[0].close()
            while True:  # until the server has noticed, or `run` ends it
                with contextlib.suppress(aiohttp.WSServerHandshakeError):
                    await (await session.ws_connect('/socket', headers=origin)).close()
                    break
            for page in pages:
                await page.close()

    run(check())


def test_masks_boxes_and_points_are_read():
    mask = np.zeros((3, 4), bool)
    mask[1, 1:3] = mask[2, 3] = True
    assert (runs_of(4, 3, [5, 2, 4, 1], (4, 3)).mask() == mask).all()
    assert runs_of(4, 3, [0, 12], (4, 3)).mask().all()
    who, shape = seed_of({'name': ' cup ', 'kind': 'box', 'box': [1, 2.5, 3, 4]}, None)
    assert (who, shape) == ('cup', Box(1, 2.5, 3, 4))
    who, shape = seed_of({'id': 3, 'kind': 'points', 'points': [[1, 2, 1], [3, 4, 0]]}, None)
    assert (who, shape) == ((3, ''), Points([[1, 2]], [[3, 4]]))
    assert stamp_of({'stamp': {'sec': 7, 'nanosec': 5}}) == 7_000_000_005
    assert ids_of({'ids': [4, 2]}) == (4, 2)


@pytest.mark.parametrize(
    'command',
    [
        {},
        {'kind': 'box', 'box': [1, 2, 3, 'x']},
        {'kind': 'box', 'box': [1, 2, 3, float('nan')]},
        {'kind': 'box', 'box': [1, 2, 3, True]},
        {'kind': 'points'},
        {'kind': 'points', 'points': []},
        {'kind': 'points', 'points': [[1, 2]]},
        {'kind': 'points', 'points': [[1, 2, 2]]},
        {'kind': 'points', 'points': [[1, 2, 1]] * 1001},
        {'kind': 'mask', 'width': 4, 'height': 3, 'runs': [11]},
        {'kind': 'mask', 'width': 4, 'height': 3, 'runs': [-1, 13]},
        {'kind': 'mask', 'width': 65536, 'height': 65536, 'runs': [2**32]},
        {'kind': 'mask', 'width': 0, 'height': 0, 'runs': []},
        {'kind': 'box', 'box': [1, 2, 3, 4], 'name': 'x' * 81},
        {'kind': 'box', 'box': [1, 2, 3, 4], 'name': 'a\nb'},
        {'kind': 'box', 'box': [1, 2, 3, 4], 'name': None},
        {'kind': 'box', 'box': [1, 2, 3, 4], 'id': -1},
        {'kind': 'box', 'box': [1, 2, 3, 4], 'id': '1'},
    ],
)
def test_an_invalid_seed_is_refused(command):
    with pytest.raises(SeedError):
        seed_of(command, (4, 3))


def test_an_invalid_stamp_or_id_is_refused():
    for stamp in (
        None,
        [1, 2],
        {'sec': True, 'nanosec': 0},
        {'sec': 1.5, 'nanosec': 0},
        {'sec': 10**400, 'nanosec': 0},
        5,
        {},
        {'sec': 1},
        {'sec': -1, 'nanosec': 0},
        {'sec': 1, 'nanosec': 10**9},
        {'sec': '1', 'nanosec': 0},
    ):
        with pytest.raises(SeedError, match='no valid image stamp'):
            stamp_of({'stamp': stamp})
    for ids in (None, [], [0], ['1'], 3, [1.0], [True], [2**32], [1] * 256, [[]], {'1': 1}):
        with pytest.raises(SeedError, match='1 to 255 object ids'):
            ids_of({'ids': ids})


# --- the command


def test_the_command_requires_a_token_if_other_machines_can_connect(tmp_path):
    with (tmp_path / 'log').open('w') as log:
        command = [sys.executable, '-m', 'xmem_ros.cli.main', 'web', '--host', '0.0.0.0', '--port', '0']
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        output = tmp_path / 'log'
        address = r'http://[^/]+:(\d+)/#token=(\S+)'
        found = wait_until(lambda: re.search(address, output.read_text()), 'the address', 120)
        page = f'http://127.0.0.1:{found[1]}/'

        async def check():
            async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
                assert (await session.get(page)).status == 403
                origin = {'Origin': page.rstrip('/')}
                assert (await session.post(f'{page}signin', data=found[2], headers=origin)).status == 204
                assert (await session.get(page)).status == 200

        run(check())
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert 'Traceback' not in output.read_text()
    finally:
        process.kill()


def web(*arguments):
    command = [sys.executable, '-m', 'xmem_ros.cli.main', 'web', *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_errors_of_the_command_say_what_is_wrong_and_what_to_do():
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, text in [
            (['--port', port], f'cannot listen on 127.0.0.1:{port}'),
            (['--port', '99999'], 'is not a port'),
            (['--host', '203.0.113.7', '--port', '0'], 'or another host (--host, --port)'),
            (['--token', TOKEN], 'in the process list; use --token-file or XMEM_ROS_WEB_TOKEN'),
            (['--token-file', '/nowhere/token'], 'a file that holds the token (--token-file)'),
            (['--node', 'a b', '--port', '0'], 'is not a valid node name'),
        ]:
            result = web(*arguments)
            assert result.returncode == 2, arguments
            assert text in result.stderr
            assert 'Traceback' not in result.stderr
            assert TOKEN not in result.stderr


def test_malformed_headers_are_refused():
    access = Access(TOKEN)
    assert not access.host_allowed('[::::]')
    assert not access.origin_allowed('http://[', 'robot:8088')
    assert not access.token_matches('\udcff')
    assert not access.signed_in('\udcff')
    assert not Access('').host_allowed('[::::]')


@pytest.mark.parametrize(
    ('token', 'headers'),
    [
        ('', [b'Host: [::::]']),
        ('', [b'Host: [1.2.3]']),
        (TOKEN, [b'Host: HERE', b'Cookie: xmem_ros_0=\xff\xfe']),
        (TOKEN, [b'Host: HERE', b'Cookie: KNOWN', b'Origin: http://[']),
        (TOKEN, [b'Host: HERE', b'Cookie: KNOWN', b'Origin: http://a\xe2\x84\x80b']),
    ],
)
def test_malformed_headers_over_the_wire_cause_no_traceback(token, headers, caplog):
    async def ask():
        async with serving(token) as address:
            known = f'xmem_ros_{address.rpartition(":")[2]}={Access(token).session}'.encode()
            lines = [line.replace(b'HERE', address.encode()).replace(b'KNOWN', known) for line in headers]
            reader, writer = await asyncio.open_connection(*address.split(':'))
            writer.write(b'\r\n'.join([b'GET /socket HTTP/1.1', *lines, b'', b'']))
            status = await reader.readline()
            writer.close()
            return status

    assert run(ask()).split()[1] == b'403'
    assert 'Traceback' not in caplog.text


def test_a_huge_coordinate_is_refused():
    huge = {'type': 'seed', 'name': 'it', 'kind': 'box', 'box': [int('9' * 400), 0, 5, 5]}
    with pytest.raises(SeedError, match='four numbers'):
        seed_of(huge, None)


def test_a_failed_command_gets_an_error_and_the_next_one_is_executed(monkeypatch):
    from xmem_ros.web.viewer import Viewer

    async def commands():
        viewer = Viewer(None, None, None, None, None, lambda: None)
        results = iter([ZeroDivisionError(), [7]])

        def do(command):
            result = next(results)
            if isinstance(result, Exception):
                raise result
            return result

        async def next_answer():
            while not viewer._answers:
                await asyncio.sleep(0.01)
            return json.loads(viewer._answers.popleft())

        monkeypatch.setattr(viewer, '_execute', do)
        viewer._handle('[' * 200_000)
        assert 'invalid command' in (await next_answer())['text']
        for number in (1, 2):
            viewer._handle(json.dumps({'type': 'reset', 'request': number}))
        work = asyncio.ensure_future(viewer._execute_commands())
        answers = [await next_answer() for _ in range(2)]
        work.cancel()
        return answers

    first, second = run(commands())
    assert not first['ok']
    assert 'ZeroDivisionError' in first['text']
    assert second['ok']
