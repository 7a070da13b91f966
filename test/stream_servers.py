# SPDX-License-Identifier: MIT
"""Servers of live streams: HTTP whose connections end, and enough of RTSP for one client."""

from __future__ import annotations

import contextlib
import http.server
import re
import socket
import socketserver
import struct
import threading
import time
from fractions import Fraction

import av
from video_files import GROUP, RATE, SIZE, disc

RTP_TYPE = 96  # of the payload


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


def rtp_packets(codec, options, count):
    """Return the RTP packets (RFC 3550) of a video of `video_files`, as FFmpeg sends them."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(('127.0.0.1', 0))
        receiver.settimeout(0.05)
        url = f'rtp://127.0.0.1:{receiver.getsockname()[1]}'
        with av.open(url, 'w', format='rtp') as container:
            stream = container.add_stream(codec, rate=RATE, options=options)
            stream.height, stream.width, stream.pix_fmt = *SIZE, 'yuv420p'
            stream.codec_context.gop_size = GROUP
            for index in range(count + 1):
                picture = av.VideoFrame.from_ndarray(disc(index), format='rgb24') if index < count else None
                if picture is not None:
                    picture.pts, picture.time_base = index, Fraction(1, RATE)
                container.mux(stream.encode(picture))
                with contextlib.suppress(TimeoutError):
                    while True:
                        found.append(receiver.recv(1 << 16))
    return [packet for packet in found if packet[1] & 127 == RTP_TYPE]  # without RTCP


class RtspServer:
    """RTSP server of H.264 as `rtp_packets`, interleaved with RTSP (RFC 2326, 10.12)."""

    def __init__(self, packets, seconds=1.0):
        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                request = b''
                for line in self.rfile:
                    request += line
                    if line.strip():
                        continue
                    method = request.split(b' ')[0].decode()
                    self.answer(method, re.search(rb'CSeq: (\d+)', request)[1].decode())
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
                    body = f'v=0\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP {RTP_TYPE}\r\na=rtpmap:{RTP_TYPE} H264/90000\r\n'
                    body += f'a=fmtp:{RTP_TYPE} packetization-mode=1\r\na=control:video\r\n'
                    headers += ['Content-Type: application/sdp', f'Content-Length: {len(body)}']
                elif method == 'SETUP':
                    headers.append('Transport: RTP/AVP/TCP;unicast;interleaved=0-1')
                self.wfile.write(('RTSP/1.0 200 OK\r\n' + '\r\n'.join(headers) + '\r\n\r\n' + body).encode())

            def play(self):
                for packet in packets:
                    self.wfile.write(struct.pack('>cBH', b'$', 0, len(packet)) + packet)
                    time.sleep(seconds / len(packets))

        self._server = socketserver.ThreadingTCPServer(('127.0.0.1', 0), Handler)
        self._server.daemon_threads = True
        self.url = f'rtsp://127.0.0.1:{self._server.server_address[1]}/live'

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
