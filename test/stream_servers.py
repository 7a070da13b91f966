# SPDX-License-Identifier: MIT
"""Servers of live streams: HTTP whose connections end, and enough of RTSP for one client."""

from __future__ import annotations

import contextlib
import http.server
import re
import socketserver
import struct
import threading
import time

TS_PACKET = 188  # bytes


class StreamServer:
    """HTTP server whose answer `k` has the data of `answers[k]`, the last one again and again.

    It has no length, like a camera's. Data may be an HTTP status instead, or a callable that gets
    the handler.

    Attributes:
        url: address of the stream.
        paths: requested paths.
    """

    def __init__(self, *answers, content_type='video/mp2t'):
        served = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                with served._lock:
                    answer = answers[min(len(served.paths), len(answers) - 1)]
                    served.paths.append(self.path)
                if isinstance(answer, int):
                    self.send_error(answer)
                    return
                self.send_response(200)
                self.send_header('Content-Type', content_type)
                self.end_headers()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    answer(self) if callable(answer) else self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.paths, self._lock = [], threading.Lock()
        self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self._server.daemon_threads = True
        self._stop = threading.Event()
        self.address = f'127.0.0.1:{self._server.server_port}'
        self.url = f'http://{self.address}/live'

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()

    def slowly(self, data, seconds, hold=False):
        """Return an answer that spreads data over a time, and then may hold the connection."""

        def write(handler):
            steps = max(40, round(40 * seconds))
            for step in range(steps):
                handler.wfile.write(data[len(data) * step // steps : len(data) * (step + 1) // steps])
                if self._stop.wait(seconds / steps):
                    return
            if hold:
                self._stop.wait()

        return write


class RtspServer:
    """RTSP server of an MPEG transport stream, interleaved with RTSP (RFC 2326, 10.12)."""

    def __init__(self, data, seconds=1.0):
        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                request = b''
                for line in self.rfile:
                    request += line
                    if line.strip():
                        continue
                    method = request.split(b' ')[0].decode()
                    sequence = re.search(rb'CSeq: (\d+)', request)[1].decode()
                    self.answer(method, sequence)
                    request = b''
                    if method == 'PLAY':
                        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                            self.play()
                        return

            def answer(self, method, sequence):
                headers, body = [f'CSeq: {sequence}', 'Session: 1'], ''
                if method == 'OPTIONS':
                    headers.append('Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN')
                elif method == 'DESCRIBE':
                    body = 'v=0\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:*\r\n'
                    headers += ['Content-Type: application/sdp', f'Content-Length: {len(body)}']
                elif method == 'SETUP':
                    headers.append('Transport: RTP/AVP/TCP;unicast;interleaved=0-1')
                self.wfile.write(('RTSP/1.0 200 OK\r\n' + '\r\n'.join(headers) + '\r\n\r\n' + body).encode())

            def play(self):
                size = 7 * TS_PACKET
                for number, place in enumerate(range(0, len(data), size)):
                    header = struct.pack('>BBHII', 0x80, 33, number, int(time.monotonic() * 90000) & 0xFFFFFFFF, 1)
                    packet = header + data[place : place + size]
                    self.wfile.write(struct.pack('>cBH', b'$', 0, len(packet)) + packet)
                    time.sleep(seconds * size / len(data))

        self._server = socketserver.ThreadingTCPServer(('127.0.0.1', 0), Handler)
        self._server.daemon_threads = True
        self.url = f'rtsp://127.0.0.1:{self._server.server_address[1]}/live'

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
