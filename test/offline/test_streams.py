# SPDX-License-Identifier: MIT
"""`xmem-ros track` of live streams: they are recorded first, then tracked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from needs import require

require('av', 'rosbags.rosbag2')

from process_state import wait_until
from stream_servers import StreamServer
from video_files import COUNT, SIZE, disc, shown, write_video

from xmem_ros.cli.main import main
from xmem_ros.video.clip import Clip

BOX = 'disc=6,14,20,20'  # around the disc of the first frame
OPTIONS = ['--size', '64', '--device', 'cpu']
HALF = COUNT // 2


@pytest.fixture(scope='module')
def film(tmp_path_factory):
    """Bytes of an MPEG transport stream of `COUNT` frames."""
    return write_video(tmp_path_factory.mktemp('film') / 'film.ts').read_bytes()


@pytest.fixture(scope='module')
def start(tmp_path_factory):
    """Bytes of a transport stream of the first half of the frames."""
    return write_video(tmp_path_factory.mktemp('film') / 'start.ts', count=HALF).read_bytes()


def track(*arguments):
    return main(['track', *map(str, arguments), *OPTIONS])


def start_track(*arguments, **options):
    command = [sys.executable, '-m', 'xmem_ros.cli.main', 'track', *map(str, arguments), *OPTIONS]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, env=os.environ, text=True, **options)


def masks(folder):
    """Return the frame that the mask of each file shows; −1 if it is empty."""
    files = sorted(folder.glob('*.png'))
    return [shown(np.repeat((cv2.imread(str(file), 0) > 0).astype(np.uint8)[..., None] * 255, 3, 2)) for file in files]


def test_a_pipe_is_recorded_and_tracked(tmp_path, film):
    (tmp_path / 'film.ts').write_bytes(film)
    with subprocess.Popen(['cat', tmp_path / 'film.ts'], stdout=subprocess.PIPE) as cat:
        process = start_track('-', '--box', BOX, '--out', tmp_path / 'out', stdin=cat.stdout)
        output, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert output.startswith(f'{tmp_path}/out.mkv: {COUNT} images in 1.0 s recorded; the stream ended\n')
    assert [shown(frame) for _, frame in Clip(tmp_path / 'out.mkv')] == list(range(COUNT))
    assert len(masks(tmp_path / 'out')) == COUNT
    assert masks(tmp_path / 'out')[:3] == [0, 1, 2]


def test_ctrl_c_ends_the_recording_and_what_was_recorded_is_tracked(tmp_path, film):
    with StreamServer(lambda handler: server.slowly(film, 6)(handler)) as server:
        process = start_track(server.url, '--box', BOX, '--out', tmp_path / 'out')
        recorded = tmp_path / 'out.mkv'
        assert wait_until(recorded.exists, 60)
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert 'recorded; interrupted\n' in output
    assert len(masks(tmp_path / 'out')) == len(Clip(recorded)) > 3


def test_ctrl_c_before_the_first_image_interrupts(tmp_path):
    with StreamServer(lambda handler: server.slowly(b'', 60)(handler)) as server:
        process = start_track(server.url, '--box', BOX, '--out', tmp_path / 'out')
        assert wait_until(lambda: server.paths, 60)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.endswith('xmem-ros track: interrupted\n')
    assert list(tmp_path.iterdir()) == []


def test_a_stream_without_a_seed_is_recorded_with_an_image_to_draw_it_on(tmp_path, film, capsys):
    with StreamServer(film) as server:
        assert track(server.url, '--duration', 0.5, '--out', tmp_path / 'out') == 2
    error = capsys.readouterr().err
    recorded, image = tmp_path / 'out.mkv', tmp_path / 'out.first.png'
    assert f'{recorded}: no seeds were given; draw a mask on its first image, {image}, and give this file' in error
    pixels = cv2.imread(str(image))[:, :, ::-1]
    assert pixels.shape == (*SIZE, 3)
    assert np.abs(pixels.astype(int) - disc(0)).mean() < 8
    assert not (tmp_path / 'out').exists()
    assert track(recorded, '--box', BOX, '--out', tmp_path / 'out') == 0
    assert len(masks(tmp_path / 'out')) == len(Clip(recorded))


def test_a_lost_connection_is_a_gap_that_the_report_names(tmp_path, film, start, capsys):
    with StreamServer(start, 503, film) as server:
        url = f'http://bob:hunter2@{server.address}/live?key=hunter2'
        assert track(url, '--duration', 1.8, '--box', BOX, '--out', tmp_path / 'out') == 0
    said = capsys.readouterr()
    assert f'warning: {tmp_path}/out.mkv: the connection was lost once; no images from 0.5 to ' in said.err
    assert 'hunter2' not in said.err + said.out
    assert f'http://***@{server.address}/live: connection lost (the other side closed it)' in said.err
    assert masks(tmp_path / 'out')[: HALF + 3 : HALF] == [0, 0], 'the film begins again after the gap'


@pytest.mark.parametrize(
    ('arguments', 'text'),
    [
        (['--box', 'disc=1'], "'disc=1' is not a box"),
        (['--seed', 'no-such-mask.png'], 'no-such-mask.png'),
        (['--image-topic', '/camera'], 'a stream, so it has no topic /camera; omit --image-topic'),
        (['--box', BOX, '--weights', 'nonsense'], 'nonsense'),
        (['--box', BOX, '--only-ours'], '--only-ours and --labels require --format bag'),
    ],
)
def test_a_fault_of_the_options_is_found_before_the_recording(tmp_path, film, capsys, arguments, text):
    with StreamServer(film) as server:
        assert track(server.url, *arguments, '--out', tmp_path / 'out') == 2
        assert not server.paths
    assert text in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_second_recording_does_not_replace_the_first(tmp_path, film, capsys):
    (tmp_path / 'out.mkv').write_bytes(b'first')
    with StreamServer(film) as server:
        assert track(server.url, '--box', BOX, '--out', tmp_path / 'out') == 2
    error = capsys.readouterr().err
    assert f'{tmp_path}/out.mkv: already exists; if it is the recording of an earlier run, give it' in error
    assert '(--out)' in error
    assert (tmp_path / 'out.mkv').read_bytes() == b'first'


def test_a_duration_is_for_streams(tmp_path, capsys):
    assert track('clip.mp4', '--duration', 3, '--out', tmp_path / 'out') == 2
    assert 'clip.mp4: not a stream; --duration is for what is recorded first' in capsys.readouterr().err
