# SPDX-License-Identifier: MIT
"""Download of the official weights from a local server that can misbehave."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import http.server
import json
import logging
import os
import re
import ssl
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from xmem_ros.cli.main import main
from xmem_ros.errors import OutputError, WeightsError
from xmem_ros.network.config import COMPACT
from xmem_ros.network.model import XMemNetwork
from xmem_ros.weights import download as downloading
from xmem_ros.weights.fetch import fetch
from xmem_ros.weights.files import bundled_folder, find_weights
from xmem_ros.weights.official import OfficialWeights, licence_of


class Server(http.server.ThreadingHTTPServer):
    """Server of `files`; `cut`: bytes until each response breaks off; `ranges`: range support."""

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.files, self.cut, self.ranges, self.asked, self.tag = {}, [], True, [], '"1"'
        self.busy, self.busy_answer = 0, 503  # number of requests to refuse, and the status code
        self.leads_to, self.endless = '', False

    def handle_error(self, *_):
        """Ignore a client that closes the connection."""

    @property
    def url(self):
        return f'http://127.0.0.1:{self.server_port}/v1.0'


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        wanted = self.headers.get('Range')
        server.asked.append(wanted)
        if server.busy:
            server.busy -= 1
            self.send_error(server.busy_answer)
            return
        if server.leads_to:
            self.send_response(302)
            self.send_header('Location', server.leads_to)
            self.end_headers()
            return
        if server.endless:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(bytes(1 << 20))
            self.close_connection = True
            return
        data = server.files.get(self.path.rsplit('/', 1)[-1])
        if data is None:
            self.send_error(404)
            return
        begin = 0
        same = self.headers.get('If-Range') in (None, server.tag)
        if wanted and server.ranges and same:
            begin = int(re.fullmatch(r'bytes=(\d+)-', wanted)[1])
            if begin >= len(data):
                self.send_response(416)
                self.send_header('Content-Range', f'bytes */{len(data)}')
                self.end_headers()
                return
            self.send_response(206)
            self.send_header('Content-Range', f'bytes {begin}-{len(data) - 1}/{len(data)}')
        else:
            self.send_response(200)
        self.send_header('ETag', server.tag)
        self.send_header('Content-Length', str(len(data) - begin))
        self.end_headers()
        end = min(begin + server.cut.pop(0), len(data)) if server.cut else len(data)
        self.wfile.write(data[begin:end])
        if end < len(data):
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Bytes of a small checkpoint in the format of the authors': a state dict."""
    path = tmp_path_factory.mktemp('checkpoint') / 'small.pth'
    small = replace(COMPACT, key_widths=(8, 8, 8, 8), value_widths=(8, 8, 8, 8), decoder_widths=(8, 8, 8))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(XMemNetwork(small).state_dict(), path)
    return path.read_bytes()


@pytest.fixture
def server(checkpoint, monkeypatch):
    server = Server()
    server.files['XMem.pth'] = checkpoint
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    monkeypatch.setenv('XMEM_ROS_WEIGHTS_URL', server.url)
    monkeypatch.setattr(downloading, 'PAUSE', 0.001)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / 'cache'
    monkeypatch.setenv('XMEM_ROS_WEIGHTS', str(folder))
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)
    return folder


def lock_of(cache):
    return json.loads((cache / 'weights.lock.json').read_text())


def test_fetched_weights_are_found_by_their_name_and_pinned(server, cache, checkpoint, capsys):
    assert main(['weights', 'fetch', 'xmem']) == 0
    assert capsys.readouterr().out.strip() == str(cache / 'XMem.pth')
    assert (cache / 'XMem.pth').read_bytes() == checkpoint
    assert find_weights('xmem') == find_weights('XMem') == cache / 'XMem.pth'
    pinned = lock_of(cache)['XMem.pth']
    assert (pinned['bytes'], pinned['sha256']) == (len(checkpoint), hashlib.sha256(checkpoint).hexdigest())
    assert sorted(path.name for path in cache.iterdir()) == ['XMem.pth', 'weights.lock.json']


def test_existing_weights_are_not_fetched_again(server, cache):
    fetch('xmem', progress=False)
    fetch('xmem', progress=False)
    assert server.asked == [None]


def test_a_broken_download_resumes_where_it_ended(server, cache, checkpoint):
    server.cut = [1000, 2500, 1]
    fetch('xmem', progress=False)
    assert (cache / 'XMem.pth').read_bytes() == checkpoint
    assert server.asked == [None, 'bytes=1000-', 'bytes=3500-', 'bytes=3501-']


@pytest.mark.parametrize(
    'error', [ssl.SSLEOFError(8, 'EOF occurred in violation of protocol'), OSError(errno.EHOSTUNREACH, 'No route')]
)
def test_a_network_error_is_retried_and_not_taken_for_a_full_disk(server, cache, checkpoint, monkeypatch, error):
    read1, failures = http.client.HTTPResponse.read1, [None, error, error]

    def fail(response, size):
        failure = failures.pop(0) if failures else None
        if failure:
            raise failure
        return read1(response, 1000)

    monkeypatch.setattr(http.client.HTTPResponse, 'read1', fail)
    fetch('xmem', progress=False)
    assert (cache / 'XMem.pth').read_bytes() == checkpoint
    assert server.asked == [None, 'bytes=1000-', 'bytes=1000-']


def test_an_unwritable_partial_file_is_named(server, cache):
    (cache / 'XMem.pth.part').mkdir(parents=True)
    with pytest.raises(OutputError, match=r'XMem\.pth\.part: is a link'):
        fetch('xmem', progress=False)
    assert not server.asked


def test_a_file_written_by_two_fetches_at_once_is_fetched_again(server, cache, checkpoint, monkeypatch):
    read, others = downloading._read, [checkpoint + b'more']

    def meddle(response):
        if others:
            (cache / 'XMem.pth.part').write_bytes(others.pop())
        return read(response)

    monkeypatch.setattr(downloading, '_read', meddle)
    fetch('xmem', progress=False)
    assert (cache / 'XMem.pth').read_bytes() == checkpoint
    assert server.asked == [None, None]


def test_an_aborted_fetch_is_resumed_by_the_next_one(server, cache, checkpoint):
    server.cut = [5000] + [0] * downloading.ATTEMPTS
    with pytest.raises(WeightsError, match=r'XMem\.pth: download failed .*resumes the partial download'):
        fetch('xmem', progress=False)
    assert (cache / 'XMem.pth.part').read_bytes() == checkpoint[:5000]
    assert not (cache / 'XMem.pth').exists()
    fetch('xmem', progress=False)
    assert server.asked[-1] == 'bytes=5000-'
    assert (cache / 'XMem.pth').read_bytes() == checkpoint
    assert not (cache / 'XMem.pth.part').exists()


def test_a_complete_partial_file_is_not_fetched_again(server, cache, checkpoint):
    cache.mkdir()
    (cache / 'XMem.pth.part').write_bytes(checkpoint)
    fetch('xmem', progress=False)
    assert (cache / 'XMem.pth').read_bytes() == checkpoint


def test_a_server_without_ranges_sends_the_whole_file_again(server, cache, checkpoint):
    server.ranges, server.cut = False, [4000]
    fetch('xmem', progress=False)
    assert (cache / 'XMem.pth').read_bytes() == checkpoint


def test_two_versions_of_a_file_are_never_mixed(server, cache, checkpoint):
    server.cut = [5000] + [0] * downloading.ATTEMPTS
    with pytest.raises(WeightsError):
        fetch('xmem', progress=False)
    part = cache / 'XMem.pth.part'
    part.write_bytes(b'x' * 5000)
    server.tag = '"2"'
    fetch('xmem', progress=False)
    assert (cache / 'XMem.pth').read_bytes() == checkpoint


@pytest.mark.parametrize(
    ('content', 'text'),
    [
        pytest.param(b'<html>please log in</html>', 'not a PyTorch file', id='a web page'),
        pytest.param(b'PK\x03\x04 and no more', 'cannot be read as weights', id='a damaged archive'),
        pytest.param('cut', 'cannot be read as weights', id='a file that was cut on the server'),
        pytest.param('other', 'not the weights of an XMem network', id='weights of something else'),
    ],
)
def test_a_file_that_is_not_a_checkpoint_is_refused_and_removed(server, cache, checkpoint, tmp_path, content, text):
    if content == 'cut':
        content = checkpoint[: len(checkpoint) // 2]
    if content == 'other':
        torch.save({'weight': torch.zeros(3)}, tmp_path / 'other.pth')
        content = (tmp_path / 'other.pth').read_bytes()
    server.files['XMem.pth'] = content
    with pytest.raises(WeightsError, match=text):
        fetch('xmem', progress=False)
    assert list(cache.iterdir()) == []


def test_a_file_that_would_run_code_is_refused(server, cache, tmp_path):
    class Harm:
        def __reduce__(self):
            return print, ('harm',)

    torch.save({'weight': Harm()}, tmp_path / 'harm.pth')
    server.files['XMem.pth'] = (tmp_path / 'harm.pth').read_bytes()
    with pytest.raises(WeightsError, match='might run code'):
        fetch('xmem', progress=False)
    assert list(cache.iterdir()) == []


def test_a_file_of_another_size_than_the_pinned_one_is_refused_before_it_is_fetched(server, cache, checkpoint):
    fetch('xmem', progress=False)
    (cache / 'XMem.pth').unlink()
    server.files['XMem.pth'] = checkpoint + b'more'
    with pytest.raises(WeightsError, match=rf'{len(checkpoint) + 4} bytes instead of {len(checkpoint)}') as error:
        fetch('xmem', progress=False)
    assert 'is kept' not in str(error.value)


def test_content_other_than_the_pinned_one_is_refused(server, cache, checkpoint):
    fetch('xmem', progress=False)
    changed = bytearray(checkpoint)
    changed[len(changed) // 2] ^= 1
    (cache / 'XMem.pth').write_bytes(changed)
    with pytest.raises(WeightsError, match='differs from the first download of XMem.pth'):
        fetch('xmem', progress=False)
    (cache / 'XMem.pth').unlink()
    server.files['XMem.pth'] = bytes(changed)
    with pytest.raises(WeightsError, match='differs from the first download of XMem.pth'):
        fetch('xmem', progress=False)
    assert sorted(path.name for path in cache.iterdir()) == ['weights.lock.json']


def test_a_file_placed_by_the_user_is_checked_and_pinned(server, cache, checkpoint):
    cache.mkdir()
    (cache / 'XMem.pth').write_bytes(checkpoint)
    fetch('xmem', progress=False)
    assert server.asked == []
    assert lock_of(cache)['XMem.pth']['bytes'] == len(checkpoint)


def test_without_a_network_the_error_gives_the_file_to_download_and_its_folder(cache, monkeypatch, capsys):
    monkeypatch.setenv('XMEM_ROS_WEIGHTS_URL', 'http://127.0.0.1:9')  # no server there
    monkeypatch.setattr(downloading, 'PAUSE', 0.001)
    assert main(['weights', 'fetch', 'xmem-s012']) == 2
    said = capsys.readouterr().err
    assert 'http://127.0.0.1:9/XMem-s012.pth: download failed' in said
    assert 'download XMem-s012.pth by hand from https://github.com/hkchengrex/XMem/releases' in said
    assert f'put it into {cache}' in said


@pytest.mark.parametrize('answer', [503, 429, 408])
def test_a_busy_server_is_retried(server, cache, checkpoint, answer):
    server.busy_answer = answer
    server.busy = downloading.ATTEMPTS - 1
    fetch('xmem', progress=False)
    assert (cache / 'XMem.pth').read_bytes() == checkpoint
    assert len(server.asked) == downloading.ATTEMPTS


def test_a_file_missing_on_the_server_is_named(server, capsys):
    assert main(['weights', 'fetch', 'xmem-s2']) == 2
    assert 'XMem-s2.pth: the server responded 404' in capsys.readouterr().err


def test_fetch_all_fetches_every_official_file(server, cache, checkpoint):
    for name in ('XMem-s012.pth', 'XMem-s2.pth', 'XMem-no-sensory.pth'):
        server.files[name] = checkpoint
    assert main(['weights', 'fetch', 'all']) == 0
    assert sorted(lock_of(cache)) == sorted(server.files)


def test_an_unknown_name_is_refused_before_anything_is_fetched(server, capsys):
    assert main(['weights', 'fetch', 'xmem', 'xmen']) == 2
    assert "unknown official weights 'xmen'" in capsys.readouterr().err
    assert server.asked == []


def test_an_unwritable_cache_is_named(server, tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('XMEM_ROS_WEIGHTS', str(tmp_path / 'file' / 'cache'))
    with pytest.raises(OutputError, match='file/cache: cannot be created'):
        fetch('xmem', progress=False)


def test_weights_in_a_read_only_cache_are_used(server, cache, checkpoint):
    cache.mkdir()
    (cache / 'XMem.pth').write_bytes(checkpoint)
    (cache / 'weights.lock.json').symlink_to('absent')  # blocks the lock file
    assert fetch('xmem', progress=False) == cache / 'XMem.pth'
    assert not (cache / 'weights.lock.json').exists()


@pytest.mark.parametrize('text', ['{', '[1]', '{"XMem.pth": "sha256"}'])
def test_a_damaged_lock_file_is_named(server, cache, text):
    cache.mkdir()
    (cache / 'weights.lock.json').write_text(text)
    with pytest.raises(WeightsError, match=r'weights\.lock\.json: (cannot be read|not a lock)'):
        fetch('xmem', progress=False)


def test_the_list_distinguishes_bundled_fetched_and_partially_fetched_weights(server, cache, checkpoint, capsys):
    fetch('xmem', progress=False)
    (cache / 'XMem-s2.pth.part').write_bytes(b'0' * 1_500_000)
    (cache / 'XMem-s012.pth').write_bytes(checkpoint)
    assert main(['weights', 'list']) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert 'bundled' in lines['compact']
    assert 'CC BY-NC 4.0' in lines['compact']
    assert 'MIT' in lines['compact-permissive']
    assert 'see release page' in lines['xmem']
    assert hashlib.sha256(checkpoint).hexdigest()[:12] in lines['xmem']
    assert 'not verified' in lines['xmem-s012']
    assert '1.5 MB fetched' in lines['xmem-s2']
    assert 'not fetched' in lines['xmem-no-sensory']
    assert '/releases/download/v1.0/XMem-no-sensory.pth' in lines['xmem-no-sensory']


def test_the_licences_of_the_list_are_those_of_the_readme():
    readme = (Path(__file__).parents[2] / 'README.md').read_text()
    table = [[cell.strip() for cell in line.split('|')] for line in readme.splitlines() if line.startswith('| `')]
    said = {row[1].strip('`'): row[4] for row in table if len(row) == 7 and row[1].startswith('`compact')}
    bundled = {path.stem: licence_of(path) for path in bundled_folder().glob('*.safetensors')}
    assert bundled == said


def test_weights_without_a_card_have_no_stated_licence(tmp_path):
    assert licence_of(tmp_path / 'mine.safetensors') == 'not stated'


def test_missing_official_weights_are_refused_with_the_command_to_fetch_them(cache):
    with pytest.raises(WeightsError, match=r'`xmem-ros weights fetch xmem-no-sensory`.*XMem-no-sensory\.pth') as error:
        find_weights('xmem-no-sensory')
    assert str(cache) in str(error.value)


@pytest.mark.parametrize('address', ['http://127.0.0.1:9/XMem.pth', 'file:///etc/passwd', 'ftp://127.0.0.1/XMem.pth'])
def test_redirects_other_than_to_https_are_refused(server, cache, address):
    server.leads_to = address
    with pytest.raises(WeightsError, match='only https:// is allowed|is not allowed'):
        fetch('xmem', progress=False)
    assert not list(cache.iterdir())


@pytest.mark.parametrize('mirror', ['file:///etc', 'ftp://127.0.0.1', 'nothing'])
def test_a_mirror_other_than_http_is_refused(cache, monkeypatch, mirror):
    monkeypatch.setenv('XMEM_ROS_WEIGHTS_URL', mirror)
    with pytest.raises(WeightsError, match=r'give one that begins with https://|give the address'):
        fetch('xmem', progress=False)


def test_an_endless_response_is_stopped_at_the_size_limit(server, cache, monkeypatch):
    monkeypatch.setattr(OfficialWeights, 'most_bytes', 5_000_000)
    server.endless = True
    with pytest.raises(WeightsError, match='more than the allowed 5000000 bytes'):
        fetch('xmem', progress=False)
    assert not list(cache.iterdir())


def test_a_file_beyond_the_size_limit_is_not_downloaded(server, cache, monkeypatch, checkpoint):
    monkeypatch.setattr(OfficialWeights, 'most_bytes', len(checkpoint) - 1)
    with pytest.raises(WeightsError, match=f'has {len(checkpoint)} bytes; at most {len(checkpoint) - 1}'):
        fetch('xmem', progress=False)
    assert not list(cache.iterdir())


@pytest.mark.parametrize('name', ['XMem.pth.part', 'XMem.pth.part.etag'])
@pytest.mark.parametrize('link', [os.symlink, os.link])
def test_nothing_is_written_through_a_link(server, cache, tmp_path, name, link):
    cache.mkdir()
    (tmp_path / 'mine').write_bytes(b'precious')
    link(tmp_path / 'mine', cache / name)
    with pytest.raises(OutputError, match='is a link'):
        fetch('xmem', progress=False)
    assert (tmp_path / 'mine').read_bytes() == b'precious'


def test_an_invalid_etag_is_not_sent_to_the_server(server, cache, checkpoint):
    cache.mkdir()
    (cache / 'XMem.pth.part').write_bytes(checkpoint[:1000])
    (cache / 'XMem.pth.part.etag').write_text('"1"\r\nHost: elsewhere')
    fetch('xmem', progress=False)
    assert server.asked == [None]
    assert (cache / 'XMem.pth').read_bytes() == checkpoint


def test_the_first_fetch_says_that_its_checksum_is_taken_on_trust(server, cache, checkpoint, caplog):
    with caplog.at_level(logging.WARNING):
        fetch('xmem', progress=False)
        assert 'downloaded for the first time, without encryption' in caplog.text
        assert 'is taken on trust' in caplog.text
        assert hashlib.sha256(checkpoint).hexdigest() in caplog.text
        caplog.clear()
        (cache / 'XMem.pth').unlink()
        fetch('xmem', progress=False)
        assert 'trust' not in caplog.text
