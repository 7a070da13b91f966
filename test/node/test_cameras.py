# SPDX-License-Identifier: MIT
"""Several cameras in one process: one tracker each, shared weights, a fair lock."""

import gc
import threading
import time

import pytest
from needs import require

require('rclpy', 'xmem_ros.msg')

import cv2
import node_harness as robots
import numpy as np
import torch
from node_harness import QuickNodeProcess, Robot, bounding_box, iou, mask_seed, pixels_of, wait_until
from scene_files import rendered_scene
from sensor_msgs.msg import CompressedImage, Image

from xmem_ros.errors import ErrorCode
from xmem_ros.node.standard_messages import AVAILABLE
from xmem_ros.stream.fair_lock import FairLock
from xmem_ros.tracker import Tracker
from xmem_ros.tracker.engine import Engines

if AVAILABLE:
    from vision_msgs.msg import Detection2DArray

SCENE = rendered_scene()


@pytest.fixture(scope='module')
def pair():
    """The nodes front and rear of one process."""
    parameters = {'size': 120, 'diagnostics_period': 0.2, 'history': 5, 'held': 1}
    detections = {'seed_detections.enabled': True, 'seed_detections.period': 0.1} if AVAILABLE else {}
    process = QuickNodeProcess(parameters | detections, ['-r', '__ns:=/duo'], options=['--cameras', 'front', 'rear'])
    cameras = []
    try:
        for name in ('front', 'rear'):
            process.says(f'active: waiting for images on /duo/{name}/image', robots.START_S)
            camera = Robot(f'/duo/{name}', robots.CAMERA)
            cameras.append(camera)
            camera.process = process
            camera.wait_camera()
            camera.labels = camera.listen(Image, '~/labels')
            camera.wait_matched('~/labels')
        yield cameras
    finally:
        for camera in cameras:
            camera.close()
        process.close()


@pytest.fixture
def both(pair):
    """The pair of nodes without objects, after the first frame."""
    for camera in pair:
        assert camera.reset().success
        show(camera, 0)
    return pair


def show(camera, index):
    """Show an image until it is tracked: best effort may lose one."""
    for _ in range(5):
        try:
            return pixels_of(camera.show_and_wait(SCENE[index][0], camera.labels))
        except AssertionError:
            continue
    raise AssertionError('no image came through')


def test_the_graph_has_a_node_for_each_camera_and_no_other(pair):
    front, _ = pair

    def trackers():
        names = front.node.get_node_names_and_namespaces()
        return sorted(space for name, space in names if name == 'xmem' and space.startswith('/duo'))

    robots.wait_until(lambda: trackers() == ['/duo/front', '/duo/rear'], 'two nodes')


def test_each_camera_has_objects_of_its_own(both):
    front, rear = both
    assert front.seed(mask_seed(SCENE[0][1] == 1)).success
    assert list(rear.seed(mask_seed(SCENE[0][1] == 3), mask_seed(SCENE[0][1] == 2)).ids) == [1, 2]
    for index in range(1, 6):
        seen_in_front, seen_behind = show(front, index), show(rear, index)
        assert iou(seen_in_front == 1, SCENE[index][1] == 1) > 0.8
        assert iou(seen_behind == 1, SCENE[index][1] == 3) > 0.8
        assert iou(seen_behind == 2, SCENE[index][1] == 2) > 0.8
    assert rear.remove(1, 2).success
    assert iou(show(front, 6) == 1, SCENE[6][1] == 1) > 0.8


def test_a_fast_camera_does_not_starve_a_slow_one(both):
    front, rear = both
    for camera in both:
        assert camera.seed(mask_seed(SCENE[0][1] == 1)).success
    stop = threading.Event()

    def flood():
        while not stop.is_set():
            front.show(SCENE[0][0])
            time.sleep(0.005)

    sender = threading.Thread(target=flood)
    sender.start()
    try:
        heard = len(front.labels)
        for index in range(1, 11):
            show(rear, index)
        assert len(front.labels) > heard
    finally:
        stop.set()
        sender.join()
    assert iou(pixels_of(rear.labels[-1]) == 1, SCENE[10][1] == 1) > 0.8


def test_a_failing_camera_does_not_affect_the_other(both):
    front, rear = both
    assert rear.seed(mask_seed(SCENE[0][1] == 1)).success
    front.show(SCENE[0][0], step=3)
    front.process.says('a row of')
    assert front.change_state('deactivate')
    assert front.change_state('cleanup')
    assert front.set_parameter('weights', 'gigantic').successful
    assert not front.change_state('configure')
    assert iou(show(rear, 1) == 1, SCENE[1][1] == 1) > 0.8
    assert front.set_parameter('weights', 'compact').successful
    assert front.change_state('configure')
    assert front.change_state('activate')
    front.wait_camera()
    show(front, 1)
    assert iou(show(rear, 2) == 1, SCENE[2][1] == 1) > 0.8


def test_hold_keeps_an_image_of_its_own_camera_only(both):
    front, rear = both
    first = [camera.labels[-1].header for camera in both]
    assert front.hold(first[0].stamp).stamp == first[0].stamp
    for index in range(1, 10):  # twice the history
        show(front, index)
        show(rear, index)
    assert front.seed(mask_seed(SCENE[0][1] == 1), stamp=first[0].stamp).success
    refused = rear.seed(mask_seed(SCENE[0][1] == 1), stamp=first[1].stamp)
    assert refused.error_code == ErrorCode.STAMP_NOT_HELD
    assert iou(show(front, 10) == 1, SCENE[10][1] == 1) > 0.8


def test_each_camera_has_its_own_compressed_labels(both):
    for camera, value in zip(both, (1, 3), strict=True):
        camera.packed = camera.listen(CompressedImage, '~/labels/compressed')
        camera.wait_matched('~/labels/compressed')
        assert camera.seed(mask_seed(SCENE[0][1] == value)).success

    def packed(camera):  # an image right after the subscription may go without
        labels = show(camera, 1)
        header = camera.labels[-1].header
        found = [message for message in camera.packed if message.header == header]
        return (labels, cv2.imdecode(np.asarray(found[0].data), cv2.IMREAD_UNCHANGED)) if found else None

    for camera, value in zip(both, (1, 3), strict=True):
        labels, unpacked = wait_until(lambda camera=camera: packed(camera), 'compressed labels')
        assert np.array_equal(labels, unpacked)
        assert iou(unpacked == 1, SCENE[1][1] == value) > 0.8


@pytest.mark.skipif(not AVAILABLE, reason='vision_msgs is not installed')
def test_each_camera_has_its_own_detections(both):
    from detections import box_of, detections

    for camera in both:
        camera.found = camera.listen(Detection2DArray, '~/detections')
        camera.seeds = camera.listen_seeds()
        camera.wait_matched('~/detections')
        camera.wait_matched('~/events')
        camera.detector = camera.node.create_publisher(
            Detection2DArray, f'{camera.prefix}/seed_detections', robots.RELIABLE
        )
        wait_until(camera.detector.get_subscription_count, 'a subscriber of the detections')
    things = list(zip(both, (1, 3), ('cup', 'plate'), strict=True))
    for camera, value, name in things:
        show(camera, 0)
        header = camera.labels[-1].header

        def seeded(camera=camera, header=header, box=(value, name)):  # best effort may lose a message
            camera.detector.publish(detections(header, box_of(SCENE, *box)))
            return [message for message in camera.seeds if message.header == header]

        accepted = wait_until(seeded, f'the seed of the {name}')[0]
        assert [seed.name for seed in accepted.seeds] == [name]
    for camera, value, name in things:

        def told(camera=camera):
            show(camera, 1)
            return [message for message in camera.found if message.header == camera.labels[-1].header]

        (item,) = wait_until(told, 'detections')[0].detections
        assert (item.id, item.results[0].hypothesis.class_id) == ('1', name)
        x, y, width, height = bounding_box(SCENE[1][1] == value)
        assert abs(item.bbox.center.position.x - (x + width / 2)) < 8
        assert abs(item.bbox.center.position.y - (y + height / 2)) < 8
        assert int(camera.diagnostics(lambda values: True, 'anything')['objects from detections']) == 1


def test_trackers_share_weights_and_release_them():
    engines = Engines()
    one, other = (Tracker.from_weights('compact', device='cpu', engines=engines) for _ in range(2))
    assert one.network is other.network
    assert one.fingerprint == other.fingerprint == Tracker.from_weights('compact', device='cpu').fingerprint
    weight = next(one.network.parameters())
    held = torch.utils.weak.WeakTensorKeyDictionary()
    held[weight] = True
    del one, other, weight
    gc.collect()
    assert not len(engines._kept)
    assert not len(held)


def test_the_lock_is_granted_in_the_order_of_requests():
    lock, order, waiting = FairLock(), [], []

    def take(number):
        with lock:
            order.append(number)

    with lock:
        for number in range(5):
            thread = threading.Thread(target=take, args=(number,))
            thread.start()
            waiting.append(thread)
            robots.wait_until(lambda n=number: lock._next == n + 2, 'the thread to wait')
    for thread in waiting:
        thread.join()
    assert order == [0, 1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError), lock:
        1 / 0  # noqa: B018
    with lock:
        order.append(5)
    assert order[-1] == 5


def test_an_interrupted_thread_does_not_block_the_lock():
    lock, order = FairLock(), []

    class Interrupted(threading.Condition):
        def wait_for(self, *_):
            raise KeyboardInterrupt

    def take():
        with lock:
            order.append('next')

    with lock:
        real, lock._changed = lock._changed, Interrupted()
        with pytest.raises(KeyboardInterrupt), lock:
            pass
        lock._changed = real
        thread = threading.Thread(target=take)
        thread.start()
        robots.wait_until(lambda: lock._next == 3, 'the thread to wait')
        assert not order
    thread.join(10)
    assert order == ['next']
