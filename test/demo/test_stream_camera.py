# SPDX-License-Identifier: MIT
"""Camera process of a live stream over real DDS."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from needs import require

require('av', 'rclpy')

from film_listener import listening
from process_state import wait_until
from stream_servers import StreamServer
from video_files import COUNT, SIZE, shown, write_video

from xmem_ros.child_process import Child
from xmem_ros.video.clip import Clip


@pytest.fixture(scope='module')
def film(tmp_path_factory):
    """Bytes of an MPEG transport stream without B-frames."""
    return write_video(tmp_path_factory.mktemp('film') / 'film.ts', options={'tune': 'zerolatency'}).read_bytes()


@pytest.fixture
def listener():
    images = []
    with listening(lambda image: images.append((image, time.time_ns()))) as (node, spin_until):
        yield node, images, spin_until


def camera(tmp_path, clip, *options):
    arguments = ['--topic', '/film', '--wait-for-subscriber', '--log', str(tmp_path / 'stamps'), *options]
    return Child('xmem_ros.demo.camera', arguments, tmp_path / 'camera.log', variables={'XMEM_ROS_CLIP': clip})


def pixels(image):
    return np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)


def stamp_of(image):
    return image.header.stamp.sec * 1_000_000_000 + image.header.stamp.nanosec


def test_a_stream_is_published_live_and_again_after_a_loss(tmp_path, film, listener):
    _, images, spin_until = listener
    half = len(film) // 188 // 2 * 188
    with (
        StreamServer(lambda handler: server.slowly(film[:half], 1)(handler), 404, film) as server,
        camera(tmp_path, f'http://bob:hunter2@{server.address}/live') as process,
    ):
        assert spin_until(lambda: process.log.read_text().count('connected') >= 2 and len(images) > 15)
        assert process.exit_code is None
    assert process.exit_code == 0, process.tail()
    found = [shown(pixels(image)) for image, _ in images]
    assert {(image.encoding, image.height, image.width) for image, _ in images} == {('rgb8', *SIZE)}
    assert found[0] <= 8
    again = next(place for place in range(1, len(found)) if found[place] < found[place - 1])
    assert found[:again] == sorted(set(found[:again])), 'in order, none twice'
    stamps = [stamp_of(image) for image, _ in images]
    assert (np.diff(stamps) > 0).all()
    assert all(0 <= received - stamp < 5e9 for stamp, (_, received) in zip(stamps, images, strict=True))
    log = process.log.read_text()
    assert 'connection lost' in log
    assert 'connected again after' in log
    assert 'hunter2' not in log


def test_a_held_stream_goes_on_and_counts_from_its_start(tmp_path, film, listener):
    from std_srvs.srv import Trigger

    node, images, spin_until = listener
    saved = tmp_path / 'saved.mp4'
    with (
        StreamServer(lambda handler: server.slowly(film, 5)(handler)) as server,
        camera(tmp_path, server.url, '--hold', '--frames', '6', '--save', str(saved)) as process,
    ):
        assert spin_until(lambda: len(images) >= 3)
        future = node.create_client(Trigger, '/scene_camera/start').call_async(Trigger.Request())
        assert spin_until(future.done)
        assert spin_until(lambda: process.exit_code is not None)
    assert process.exit_code == 0, process.tail()
    logged = [int(line.split()[1]) for line in (tmp_path / 'stamps').read_text().splitlines()]
    held = logged.index(0)
    assert logged == [-1] * held + list(range(6))
    assert len({shown(pixels(image)) for image, _ in images[:3]}) == 3, 'the held stream moves'
    assert len(list(Clip(saved))) == 6


def test_a_pipe_is_published_to_its_end(tmp_path, film, listener):
    _, images, spin_until = listener
    command = [sys.executable, '-m', 'xmem_ros.demo.camera', '--clip', '-', '--topic', '/film', '--wait-for-subscriber']
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ, text=False
    ) as process:
        steps = 24
        for step in range(steps):
            process.stdin.write(film[len(film) * step // steps : len(film) * (step + 1) // steps])
            process.stdin.flush()
            spin_until(lambda: False, 0.1)
        process.stdin.close()
        assert spin_until(lambda: process.poll() is not None)
        spin_until(lambda: False, 0.3)
        assert process.returncode == 0, process.stderr.read()
    found = [shown(pixels(image)) for image, _ in images]
    assert found == sorted(set(found))
    assert found[-1] == COUNT - 1


@pytest.mark.parametrize(
    ('clip', 'options', 'text'),
    [
        ('995', [], '/dev/video995: no such camera; cameras here: '),
        ('http://127.0.0.1:9/live', [], 'cannot be reached (connection refused); check host and port'),
        ('-', [], 'standard input: nothing to read; write a video into the pipe'),
        ('rtmp://bob:hunter2@host/live', [], 'rtmp://***@host/live: rtmp:// is not read; give rtsp://'),
        ('rtsp://host/live', ['--loop'], 'rtsp://host/live: a stream cannot be repeated; omit --loop'),
        ('scene', ['--save', 'x.mp4'], '--save requires a stream; omit it'),
    ],
)
def test_a_stream_that_cannot_be_published_says_why(tmp_path, listener, clip, options, text):
    with camera(tmp_path, clip, *options) as process:
        assert wait_until(lambda: process.exit_code is not None, 60)
    assert process.exit_code == 2
    assert text in process.log.read_text()
    assert 'Traceback' not in process.log.read_text()
    assert 'hunter2' not in process.log.read_text()
