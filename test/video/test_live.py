# SPDX-License-Identifier: MIT
"""Live streams over real connections: recording, reconnecting, errors and limits."""

import contextlib
import datetime
import functools
import http.server
import threading
import time

import pytest
from needs import require

require('av')

import av
import cv2
from process_state import wait_until
from stream_servers import RtspServer, StreamServer, rtp_packets
from video_files import COUNT, RATE, disc, shown, write_video

from xmem_ros.errors import FrameError, OutputError, ParameterError
from xmem_ros.outside_text import for_log
from xmem_ros.video import connection, live, stream_recorder
from xmem_ros.video.address import Kind, stream_address
from xmem_ros.video.clip import Clip
from xmem_ros.video.stream_recorder import record_stream

HALF = COUNT // 2


@pytest.fixture(scope='module')
def film(tmp_path_factory):
    """Bytes of an MPEG transport stream of `COUNT` frames."""
    return write_video(tmp_path_factory.mktemp('film') / 'film.ts').read_bytes()


@pytest.fixture(scope='module')
def start(tmp_path_factory):
    """Bytes of a transport stream of the first half of the frames."""
    return write_video(tmp_path_factory.mktemp('film') / 'start.ts', count=HALF).read_bytes()


def record(url, path, said=None, **options):
    said = [] if said is None else said
    return record_stream(stream_address(url), path, said.append, stop=threading.Event(), **options)


def indexes(path):
    return [shown(frame) for _, frame in Clip(path)]


def times_ms(path):
    clip = Clip(path)
    return [clip.time_ns(index) // 1_000_000 for index in range(len(clip))]


@pytest.fixture
def folder_server(tmp_path):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


def coded(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def test_a_stream_is_recorded_without_a_new_encoding(tmp_path):
    before = datetime.datetime.now(datetime.timezone.utc)
    film = write_video(tmp_path / 'film.mkv').read_bytes()
    with StreamServer(film) as server:
        found = record(server.url, tmp_path / 'rec.mkv', duration_s=1)
    assert coded(found.path)[:COUNT] == coded(tmp_path / 'film.mkv')
    assert indexes(found.path)[:COUNT] == list(range(COUNT))
    assert times_ms(found.path)[: COUNT // 2] == pytest.approx([k * 1000 / RATE for k in range(COUNT // 2)], abs=1.5)
    with av.open(str(found.path)) as container:
        begun = datetime.datetime.fromisoformat(container.metadata['creation_time'].replace('Z', '+00:00'))
    assert before <= begun <= datetime.datetime.now(datetime.timezone.utc)


def test_a_stream_that_breaks_off_is_recorded_on_with_a_gap_in_time(tmp_path, film, start):
    said = []
    with StreamServer(start, 503, film) as server:
        found = record(server.url, tmp_path / 'rec.mkv', said, duration_s=3)
    assert indexes(found.path)[: HALF + COUNT] == [*range(HALF), *range(COUNT)]
    assert found.images == len(Clip(found.path))
    begin, end = found.gaps[0]
    assert begin == pytest.approx((HALF - 1) / RATE, abs=0.01)
    assert end >= live.FIRST_PAUSE_S * 3, 'two pauses, the second of twice the time'
    times = times_ms(found.path)
    assert times[HALF] - times[HALF - 1] == pytest.approx((end - begin) * 1000, abs=2)
    assert found.damage.startswith(
        f'{found.path}: the connection was lost {len(found.gaps)} times; no images from 0.5 to '
    )
    changes = [text.partition(': ')[2].partition(' ')[0] for text in said[:3]]
    assert changes == ['connected', 'connection', 'connected'], said


def test_a_stream_of_another_size_ends_the_recording(tmp_path, start):
    other = write_video(tmp_path / 'other.ts', size=(96, 192)).read_bytes()
    with StreamServer(start, other) as server:
        found = record(server.url, tmp_path / 'rec.mkv')
    assert found.end == 'the stream has changed: now h264, 192×96 px; record it to another file'
    assert indexes(found.path) == list(range(HALF))


def test_jpegs_of_a_camera_have_their_time_of_arrival(tmp_path):
    parts = []
    for index in range(10):
        data = cv2.imencode('.jpg', disc(index))[1].tobytes()
        parts.append(b'--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n' % (len(data), data))

    def send(handler):
        for part in parts:
            handler.wfile.write(part)
            time.sleep(0.2)

    with StreamServer(send, content_type='multipart/x-mixed-replace; boundary=frame') as server:
        found = record(server.url, tmp_path / 'rec.mkv', duration_s=1.9)
    assert indexes(found.path)[:9] == list(range(9))
    # FFmpeg first reads some to know the stream; its own times would be 40 ms apart
    assert 1000 <= times_ms(found.path)[8] <= 2500


def test_a_camera_without_jpegs_is_recorded_raw(tmp_path, monkeypatch):
    """A file stands for the camera, which test machines do not have."""
    raw = write_video(tmp_path / 'camera.nut', 'rawvideo', 'yuyv422')
    monkeypatch.setattr(connection.Connection, '_open', lambda *_: av.open(str(raw)))
    found = record('/dev/video0', tmp_path / 'rec.mkv')
    # at once, so that uneven times may look like lost images between them
    readable = [frame for _, frame in Clip(found.path).frames() if not isinstance(frame, FrameError)]
    assert [shown(frame) for frame in readable] == list(range(COUNT)), 'the layout of the pixels is known'


def test_a_camera_with_rtsp_is_recorded_and_connected_again(tmp_path):
    packets = rtp_packets('libx264', {'tune': 'zerolatency'}, COUNT)
    with RtspServer(packets) as server:
        found = record(server.url, tmp_path / 'rec.mkv', duration_s=2.5)
    assert len(found.gaps) == 1
    assert indexes(found.path)[: COUNT + 3] == [*range(COUNT), 0, 1, 2], 'the first image has no time of its own'
    assert times_ms(found.path)[:COUNT] == pytest.approx([k * 1000 / RATE for k in range(COUNT)], abs=1.5)


def test_a_recording_ends_on_request(tmp_path, film):
    stop = threading.Event()
    with StreamServer(lambda handler: server.slowly(film, 8)(handler)) as server:
        address = stream_address(server.url)
        found = record_stream(
            address, tmp_path / 'rec.mkv', lambda _: None, stop=stop, progress=lambda n: n > 2 and stop.set()
        )
    assert found.end == 'interrupted'
    assert 3 <= found.images < COUNT
    assert indexes(found.path) == list(range(found.images))


def test_a_silent_stream_is_connected_again(tmp_path, film, monkeypatch):
    monkeypatch.setattr(connection, 'SILENCE_S', 1.0)
    said = []
    with StreamServer(lambda handler: server.slowly(film, 0.1, hold=True)(handler)) as server:
        found = record(server.url, tmp_path / 'rec.mkv', said, duration_s=3)
    assert 'connection lost (no image for 1 s); connecting again' in said[1]
    assert len(found.gaps) >= 1


def test_a_stream_that_does_not_come_back_ends_the_recording(tmp_path, film, monkeypatch):
    monkeypatch.setattr(stream_recorder, 'GIVE_UP_S', 1.0)
    with StreamServer(film, 404) as server:
        found = record(server.url, tmp_path / 'rec.mkv')
    assert found.end == 'the connection was lost and did not come back within 1 s'
    assert found.images == COUNT


def test_a_full_disk_ends_or_prevents_the_recording(tmp_path, film, monkeypatch):
    usage = stream_recorder.shutil.disk_usage(tmp_path)
    free = iter([stream_recorder.RESERVED_BYTES + 1])
    monkeypatch.setattr(
        stream_recorder.shutil,
        'disk_usage',
        lambda _: usage._replace(free=next(free, stream_recorder.RESERVED_BYTES - 1)),
    )
    with StreamServer(lambda handler: server.slowly(film, 0.1, hold=True)(handler)) as server:
        found = record(server.url, tmp_path / 'rec.mkv')
        assert found.end == 'less than 1 GiB of the disk is left'
        assert found.images
        with pytest.raises(OutputError, match='make room'):
            record(server.url, tmp_path / 'other.mkv')


def test_an_earlier_recording_is_not_overwritten(tmp_path, film):
    (tmp_path / 'rec.mkv').write_bytes(b'earlier')
    with (
        StreamServer(film) as server,
        pytest.raises(ParameterError, match='already exists; if it is the recording of an earlier run'),
    ):
        record(server.url, tmp_path / 'rec.mkv')
    assert (tmp_path / 'rec.mkv').read_bytes() == b'earlier'
    assert not server.paths


def test_a_playlist_of_segments_is_read(tmp_path, film, folder_server):
    (tmp_path / 'film.ts').write_bytes(film)
    playlist = '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfilm.ts\n#EXT-X-ENDLIST\n'
    (tmp_path / 'live.m3u8').write_text(playlist)
    found = record(f'{folder_server}/live.m3u8', tmp_path / 'rec.mkv')
    assert found.end == 'the stream ended'
    assert indexes(found.path) == list(range(COUNT))


@pytest.mark.parametrize('place', ['file://{}', '{}', 'concat:{}', 'subfile,,start,0,end,0,,:{}'])
def test_a_playlist_does_not_open_local_files(tmp_path, film, folder_server, place):
    """The same playlist with an address on the server works, see above."""
    hidden = tmp_path / 'hidden'
    hidden.mkdir()
    (hidden / 'film.ts').write_bytes(film)
    playlist = f'#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{place.format(hidden / "film.ts")}\n#EXT-X-ENDLIST\n'
    (tmp_path / 'live.m3u8').write_text(playlist)
    with pytest.raises(FrameError):
        record(f'{folder_server}/live.m3u8', tmp_path / 'rec.mkv')
    assert not (tmp_path / 'rec.mkv').exists()


def test_an_mp4_on_a_server_is_to_be_downloaded(tmp_path, folder_server):
    write_video(tmp_path / 'film.mp4')
    with pytest.raises(FrameError, match='download another video, such as MP4, and give the file'):
        record(f'{folder_server}/film.mp4', tmp_path / 'rec.mkv')


def test_a_server_that_refuses_or_has_no_video_is_named_without_the_password(tmp_path):
    for answer, text in (
        (404, 'the server does not have it'),
        (401, 'the server refuses access'),
        (b'<html>nothing</html>' * 1000, 'not a video stream that can be read'),
    ):
        with StreamServer(answer) as server, pytest.raises(FrameError, match=text) as error:
            record(f'http://bob:hunter2@{server.address}/live?token=hunter2', tmp_path / 'rec.mkv')
        assert str(error.value).startswith(f'http://***@{server.address}/live: ')
        assert 'hunter2' not in str(error.value) + repr(error.value)


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('http://127.0.0.1:9/live', r'cannot be reached \(connection refused\); check host and port'),
        ('rtsp://127.0.0.1:9/live', r'cannot be reached \(connection refused\); check host and port'),
        ('http://no-such-host.invalid/live', 'the host no-such-host.invalid is unknown'),
        ('997', r'/dev/video997: no such camera; cameras here: '),
        ('/dev/video998', r'/dev/video998: no such camera; cameras here: '),
    ],
)
def test_a_stream_that_cannot_be_reached_is_named(tmp_path, text, said):
    with pytest.raises(FrameError, match=said):
        record(text, tmp_path / 'rec.mkv')


def test_a_live_reader_that_is_slow_gets_the_newest_group_of_pictures(film):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(StreamServer(lambda handler: server.slowly(film, 0.1, hold=True)(handler)))
        stream = stack.enter_context(live.LiveStream(stream_address(server.url), lambda _: None, newest=True))
        assert wait_until(lambda: stream.waiting)
        time.sleep(1)  # as long as a slow reader takes, when all have arrived
        taken = []
        while (arrived := stream.take(0)) is not None:
            taken.append(arrived.packet)
    assert taken[0].is_keyframe
    assert len(taken) < COUNT
    assert not any(packet.is_keyframe for packet in taken[1:])


@pytest.mark.parametrize(
    ('text', 'kind', 'url', 'shown_as'),
    [
        ('-', Kind.PIPE, 'pipe:0', 'standard input'),
        ('0', Kind.CAMERA, '/dev/video0', '/dev/video0'),
        ('/dev/video12', Kind.CAMERA, '/dev/video12', '/dev/video12'),
        ('RTSP://a:b@c:554/x', Kind.NETWORK, 'rtsp://a:b@c:554/x', 'rtsp://***@c:554/x'),
        ('rtsp://a:p@ss@c/x?k=v', Kind.NETWORK, 'rtsp://a:p@ss@c/x?k=v', 'rtsp://***@c/x'),
        ('rtsp://c/user=a_password=b_stream=0.sdp', Kind.NETWORK, None, 'rtsp://c/***'),
        ('http://[::1]:80/x', Kind.NETWORK, 'http://[::1]:80/x', 'http://[::1]:80/x'),
        ('udp://@:5000', Kind.NETWORK, 'udp://@:5000', 'udp://:5000'),
    ],
)
def test_addresses_are_recognised_and_shown_without_secrets(text, kind, url, shown_as):
    address = stream_address(text)
    assert (address.kind, address.url) == (kind, url or text)
    assert str(address) == for_log(address) == shown_as


def test_files_and_folders_are_no_streams(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / '0').mkdir()
    assert [stream_address(text) for text in ('0', './0', 'scene', 'clip.mp4', '/a/b', '12345', './-')] == [None] * 7


@pytest.mark.parametrize('text', ['file:///etc/passwd', 'rtmp://bob:hunter2@host/live', 'concat://a', 'rtsp:///live'])
def test_other_addresses_are_refused(text):
    with pytest.raises(ParameterError, match='is not read; give rtsp://|no host in this address') as error:
        stream_address(text)
    assert 'hunter2' not in str(error.value)
