# SPDX-License-Identifier: MIT
"""Demonstration with the real node: results, interruption and errors."""

import math
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg')

from process_state import is_alive, wait_until
from scene_files import BUNDLED, FOOTAGE, save_mask, save_sequence, save_untrained_weights

from xmem_ros.demo import run
from xmem_ros.video.clip import Clip

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """The bundled weights; if missing, untrained ones."""
    if BUNDLED.is_file():
        return str(BUNDLED)
    return str(save_untrained_weights(tmp_path_factory.mktemp('weights') / 'untrained.safetensors'))


def start_demo(*options):
    command = [sys.executable, '-m', 'xmem_ros.demo.run', '--quiet', *map(str, options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def demonstrate(*options, seconds=400):
    with start_demo(*options) as demo:
        try:
            output, error = demo.communicate(timeout=seconds)
        finally:
            demo.terminate()
    return subprocess.CompletedProcess(demo.args, demo.returncode, output, error)


def row(output, name):
    return next(line[len(name) :].split() for line in output.splitlines() if line.startswith(name))


def test_the_demonstration_tracks_the_rendered_scene_with_the_real_node(tmp_path, weights):
    done = demonstrate(
        '--frames', 45, '--rate', 5, '--out', tmp_path, '--device', 'cpu', '--size', 160, '--weights', weights
    )
    assert done.returncode == 0, done.stderr + done.stdout
    tracked, dropped = int(row(done.stdout, 'tracked')[0]), int(row(done.stdout, 'dropped')[0])
    assert int(row(done.stdout, 'frames in')[0]) == 45
    assert tracked + dropped == 45
    assert tracked >= 5
    assert row(done.stdout, 'ids stable')[:4] == ['yes:', '1,', '2,', '3']
    assert float(row(done.stdout, 'image to publish')[0]) > 0
    assert len(list(Clip(tmp_path / 'overlay.mp4'))) == tracked
    assert cv2.imread(str(tmp_path / 'frames.png')).shape == (2 * 240 + 4, 3 * 432 + 8, 3)
    scores = [float(row(done.stdout, f'IoU of {name}')[0]) for name in ('ball', 'mug', 'box')]
    assert all(0 <= score <= 1 and not math.isnan(score) for score in scores)
    if BUNDLED.is_file():
        assert min(scores) > 0.5


def test_the_demonstration_tracks_a_box_in_a_live_stream(tmp_path, weights):
    require('av')
    from stream_servers import StreamServer
    from video_files import write_video

    path = tmp_path / 'film.ts'
    # the disc stands still, since nobody knows which frame is the newest when the node has started
    film = write_video(path, options={'tune': 'zerolatency'}, count=200, size=(96, 160), step=0).read_bytes()
    options = ['--frames', 8, '--rate', 4, '--device', 'cpu', '--size', 64, '--weights', weights]
    with StreamServer(lambda handler: server.slowly(film, 60)(handler)) as server:
        done = demonstrate('--video', server.url, '--box', '6,38,20,20', '--out', tmp_path / 'out', *options)
    assert done.returncode == 0, done.stderr + done.stdout
    assert int(row(done.stdout, 'frames in')[0]) == 8
    tracked = int(row(done.stdout, 'tracked')[0])
    assert 1 <= tracked <= 8
    assert len(list(Clip(tmp_path / 'out' / 'camera.mp4'))) == 8
    assert len(list(Clip(tmp_path / 'out' / 'overlay.mp4'))) == tracked


@pytest.mark.skipif(not (FOOTAGE / 'davis-val').is_dir(), reason='needs ../shared/data/davis-val, which is not here')
def test_the_demonstration_tracks_a_box_in_real_footage(tmp_path, weights):
    clip = FOOTAGE / 'davis-val' / 'JPEGImages' / 'blackswan'
    options = ['--frames', 12, '--rate', 3, '--out', tmp_path, '--device', 'cpu', '--size', 160, '--weights', weights]
    done = demonstrate('--video', clip, '--box', '145,90,350,270', *options)
    assert done.returncode == 0, done.stderr + done.stdout
    assert row(done.stdout, 'ids stable')[:2] == ['yes:', '1']
    assert 'IoU' not in done.stdout
    assert (tmp_path / 'overlay.mp4').stat().st_size > 0


@pytest.mark.parametrize(
    ('number', 'reached'), [(signal.SIGINT, 'starting the node'), (signal.SIGTERM, 'seeded')], ids=['SIGINT', 'SIGTERM']
)
@pytest.mark.skipif(not Path('/proc/self/task').is_dir(), reason='finds children by /proc')
def test_an_interrupted_demonstration_leaves_no_process_behind(tmp_path, weights, number, reached):
    options = ['--rate', 2, '--out', tmp_path, '--device', 'cpu', '--size', 64, '--weights', weights]
    with start_demo(*options) as demo:
        while not demo.stdout.readline().startswith(reached):
            assert demo.poll() is None, demo.stderr.read()
        listed = Path(f'/proc/{demo.pid}/task/{demo.pid}/children')
        wanted = 2 if reached == 'seeded' else 1
        assert wait_until(lambda: len(listed.read_text().split()) >= wanted)
        children = [int(child) for child in listed.read_text().split()]
        demo.send_signal(number)
        _, error = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert error.endswith('demo: interrupted\n')
    assert not any(is_alive(child) for child in children)
    assert not (tmp_path / 'overlay.mp4').exists()


@pytest.fixture
def signals():
    """Restore the handler of SIGTERM after a demonstration in this process."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (
            ['--video', 'no/such.mp4', '--box', '0,0,9,9'],
            'no/such.mp4: no such video or folder; give a video file or a folder of images',
        ),
        (['--video', 'CLIP'], 'BOX=x,y,width,height'),
        (['--video', 'CLIP', '--box', '0,0,9,9', '--mask', 'MASK'], 'either a box'),
        (['--video', 'CLIP', '--box', '0,0,97,9'], 'not inside the frame of 96×64 px'),
        (['--box', '0,0,9,9'], 'give a box or a mask only with a video'),
        (['--video', 'CLIP', '--mask', 'LARGE'], 'large.png: the mask is 99×64 px, the first frame 96×64'),
        (['--weights', 'nonsense', '--frames', '3'], 'nonsense'),
    ],
)
def test_errors_of_a_demonstration_are_reported_without_a_traceback(tmp_path, capsys, signals, options, text):
    save_sequence(tmp_path, frames=3)
    save_mask(tmp_path / 'large.png', np.ones((64, 99), np.uint8))
    files = {
        'CLIP': tmp_path / 'JPEGImages' / 'toys',
        'MASK': tmp_path / 'Annotations' / 'toys' / '00000.png',
        'LARGE': tmp_path / 'large.png',
    }
    given = [str(files.get(option, option)) for option in options]
    assert run.main(['--quiet', *given, '--out', str(tmp_path / 'out')]) == 2
    said = capsys.readouterr().err
    assert text in said
    assert 'demo: error: ' in said
    assert 'Traceback' not in said
    assert not (tmp_path / 'out' / 'overlay.mp4').exists()


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (['--rate', 'abc'], "argument --rate: 'abc' is not a rate; give 0 to 1000 frames/s"),
        (['--rate', 'nan'], "'nan' is not a rate"),
        (['--frames', '-1'], "argument --frames: '-1' is not a number of frames; give a whole number from 0"),
    ],
)
def test_an_option_that_is_not_a_number_is_refused_with_the_allowed_values(capsys, options, text):
    with pytest.raises(SystemExit) as end:
        run.main(options)
    assert end.value.code == 2
    assert text in capsys.readouterr().err
