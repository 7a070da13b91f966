# SPDX-License-Identifier: MIT
"""Camera of the demonstration as a process over real DDS."""

import numpy as np
import pytest
from film_listener import listening
from needs import require
from process_state import wait_until
from scene_files import save_sequence

from xmem_ros.child_process import Child
from xmem_ros.demo.scene import RenderedScene


@pytest.fixture
def listener():
    pytest.importorskip('rclpy', reason='ROS 2 is not on the path')
    images = []
    with listening(images.append) as (node, spin_until):
        yield node, images, spin_until


def camera(tmp_path, *options):
    require('rclpy')
    arguments = ['--topic', '/film', '--frame-id', 'lens', '--wait-for-subscriber', '--log', str(tmp_path / 'stamps')]
    return Child('xmem_ros.demo.camera', [*arguments, *options], tmp_path / 'camera.log')


def stamp_of(image):
    return image.header.stamp.sec * 1_000_000_000 + image.header.stamp.nanosec


def test_the_camera_publishes_every_frame_at_the_clips_rate(tmp_path, listener):
    _, images, spin_until = listener
    with camera(tmp_path, '--frames', '20', '--rate', '10') as process:
        assert spin_until(lambda: process.exit_code is not None)
        spin_until(lambda: len(images) == 20, 5)
    assert process.exit_code == 0, process.tail()
    scene = RenderedScene(frames=20)
    assert len(images) == 20
    for image, (frame, _) in zip(images, scene, strict=True):
        assert (image.encoding, image.height, image.width, image.step) == ('rgb8', 240, 432, 1296)
        assert image.header.frame_id == 'lens'
        assert bytes(image.data) == frame.tobytes()
    stamps = np.array([stamp_of(image) for image in images])
    assert (np.diff(stamps) > 0).all()
    # the median, since single images may wait for a busy machine
    assert np.median(np.diff(stamps)) / 1e9 == pytest.approx(1 / 10, rel=0.2)
    logged = [line.split() for line in (tmp_path / 'stamps').read_text().splitlines()]
    assert logged == [[str(stamp), str(index)] for index, stamp in enumerate(stamps)]


def test_the_camera_repeats_its_first_frame_until_it_is_started(tmp_path, listener):
    from std_srvs.srv import Trigger

    node, images, spin_until = listener
    with camera(tmp_path, '--frames', '5', '--hold') as process:
        assert spin_until(lambda: len(images) >= 4)
        first, _ = RenderedScene(frames=1)[0]
        assert {bytes(image.data) for image in images} == {first.tobytes()}
        future = node.create_client(Trigger, '/scene_camera/start').call_async(Trigger.Request())
        assert spin_until(future.done)
        assert future.result().success
        assert spin_until(lambda: process.exit_code is not None)
    logged = [int(line.split()[1]) for line in (tmp_path / 'stamps').read_text().splitlines()]
    held = logged.index(0)
    assert held >= 4
    assert logged == [-1] * held + [0, 1, 2, 3, 4]


def test_the_camera_plays_a_folder_in_a_loop_until_it_is_interrupted(tmp_path, listener):
    _, images, spin_until = listener
    save_sequence(tmp_path, frames=3)
    with camera(tmp_path, '--clip', str(tmp_path / 'JPEGImages' / 'toys'), '--loop', '--rate', '50') as process:
        assert spin_until(lambda: len(images) >= 8)
        assert process.exit_code is None
    assert process.exit_code == 0, process.tail()
    assert bytes(images[0].data) == bytes(images[3].data) == bytes(images[6].data)
    assert bytes(images[0].data) != bytes(images[1].data)


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (['--clip', 'no/such/clip'], 'no/such/clip: no such video or folder; give a video file'),
        (['--objects', '9'], 'it must be 1 to 6'),
        (['--rate', '-1'], "'-1' is not a rate; give 0 to 1000 frames/s"),
    ],
)
def test_a_camera_that_cannot_play_says_why(tmp_path, options, text):
    with camera(tmp_path, *options) as process:
        assert wait_until(lambda: process.exit_code is not None, 60)
    assert process.exit_code == 2
    assert text in process.log.read_text()
    assert 'Traceback' not in process.log.read_text()
