# SPDX-License-Identifier: MIT
"""Client with the real node over real DDS, on the rendered scene."""

import gc
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg')

import node_harness as robots
import rclpy
from node_harness import bounding_box, iou, wait_until
from rclpy.executors import SingleThreadedExecutor
from scene_files import rendered_scene
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from xmem_ros.client import Box, LoadedMemory, Points, XMemClient
from xmem_ros.client.seeds import seed_messages, time_message
from xmem_ros.errors import (
    MemoryFileMissingError,
    NodeError,
    NodeInactiveError,
    NodeMissingError,
    NodeTimeoutError,
    ParameterError,
    SeedError,
    StampNotHeldError,
    UnknownObjectError,
)
from xmem_ros.msg import Seed
from xmem_ros.objects import ObjectState

SCENE = rendered_scene()
SIZE = 120  # px, half of the scene's: the masks are as good for these tests, and a frame takes a quarter of the time
FOLLOWED = 0.8  # IoU, as in test_node.py
ANSWER_S = 60.0  # on a busy machine


@pytest.fixture(scope='module')
def running():
    with robots.running({'size': SIZE}) as robot:
        robot.labels = robot.listen(Image, '~/labels')
        robot.seeds = robot.listen_seeds()
        robot.wait_matched('~/events')
        with XMemClient(robot.prefix, timeout=ANSWER_S) as client:
            robot.client = client
            meet(robot, client)
            yield robot


@pytest.fixture
def robot(running):
    """A node without objects after one frame, which the client has received."""
    running.client.reset()
    show(running, 0)
    return running


@pytest.fixture
def client(robot):
    return robot.client


def meet(robot, client):
    """Show frames until the client receives one; only the node knows its subscribers."""

    def heard():
        robot.show_and_wait(SCENE[0][0], robot.labels)
        return client.latest()

    wait_until(heard, 'the client to hear the node', ANSWER_S)


def show(robot, index):
    """Show a frame of the scene; returns the frame that the client received."""
    sent = robot.show_and_wait(SCENE[index][0], robot.labels)
    return wait_until(
        lambda: (frame := robot.client.latest()) is not None and frame.header == sent.header and frame,
        'the client to hear of the frame',
    )


def truth(value, index=0):
    return SCENE[index][1] == value


# --- seeding and following


def test_objects_seeded_by_mask_box_and_points_are_tracked(robot, client):
    ys, xs = np.nonzero(truth(3))
    ids = client.seed(
        {
            'mask': truth(1),
            'box': Box(*bounding_box(truth(2), 4)),
            'points': Points(on=[(xs.mean() - 8, ys.mean())], off=[(2, 2)]),
        }
    )
    assert ids == [1, 2, 3]
    frame = show(robot, 1)
    assert [item.name for item in frame.objects] == ['mask', 'box', 'points']
    for value, item in enumerate(frame.objects, 1):
        assert item.state is ObjectState.TRACKED
        assert item.mask.dtype == bool
        assert iou(item.mask, truth(value, 1)) > FOLLOWED
        assert item.area == item.mask.sum()
        assert item.box == bounding_box(item.mask)
    assert frame.labels.shape == SCENE.size
    assert frame.processing_ms > 0


def test_a_stamp_in_any_form_selects_the_image_to_seed(robot, client):
    frames = [show(robot, index) for index in (0, 4, 8)]
    message = Image(header=frames[1].header)
    for stamp in (frames[1], message, frames[1].header, frames[1].header.stamp, frames[1].stamp_ns):
        client.reset()
        client.seed({'it': truth(1, 4)}, stamp=stamp)
        wait_until(lambda: robot.seeds and robot.seeds[-1].header == frames[1].header, 'the seed on its image')
        robot.seeds.clear()


def test_a_correction_by_id_keeps_the_object_and_may_rename_it(robot, client):
    first, second = client.seed([('cup', truth(1)), ('cup', truth(2))])
    show(robot, 1)
    assert client.seed({second: truth(2, 1)}) == [second]
    frame = show(robot, 2)
    assert frame[second].name == 'cup'
    assert iou(frame[second].mask, truth(2, 2)) > FOLLOWED
    wait_until(lambda: [list(m.ids) for m in robot.seeds[-2:]] == [[first, second], [second]], 'both seeds')
    assert client.seed({(first, 'mug'): truth(1, 2)}) == [first]
    assert show(robot, 3)[first].name == 'mug'


def test_renaming_an_object_keeps_its_mask(robot, client):
    first, second = client.seed([('cup', truth(1)), ('bowl', truth(2))])
    before = show(robot, 1)
    client.rename(second, 'plate')
    wait_until(lambda: robot.seeds[-1].seeds[0].name == 'plate', 'the accepted seed')
    assert robot.seeds[-1].header == before.header
    assert list(robot.seeds[-1].ids) == [second]
    frame = show(robot, 2)
    assert [item.name for item in frame.objects] == ['cup', 'plate']
    for object_id, value in ((first, 1), (second, 2)):
        assert iou(frame[object_id].mask, truth(value, 2)) > FOLLOWED
    client.wait()
    client.rename(first, 'mug')  # where the camera stands still, too, and once more
    client.rename(second, 'bowl')
    assert [item.name for item in show(robot, 3).objects] == ['mug', 'bowl']
    for name in ('', None, 3):
        with pytest.raises(SeedError, match='the name is .*: give a non-empty'):
            client.rename(first, name)
    with pytest.raises(NodeTimeoutError, match='object 9 is not tracked'):
        client.rename(9, 'mug', timeout=0.1)
    with pytest.raises(UnknownObjectError):
        client.rename('cup', 'mug')


def test_a_held_image_can_be_seeded_after_it_left_the_history():
    with robots.running({'size': SIZE, 'history': 8, 'held': 1}) as robot:
        robot.labels = robot.listen(Image, '~/labels')
        robot.wait_matched('~/labels')
        with XMemClient(robot.prefix, timeout=ANSWER_S) as robot.client:
            meet(robot, robot.client)
            first = show(robot, 0)
            with XMemClient(robot.prefix, timeout=ANSWER_S) as young:
                assert young.hold(first) == first.stamp_ns  # before anybody has asked the client for anything else
                second = show(robot, 1)
                for index in range(2, 12):
                    show(robot, index)
                for ask in (lambda: young.seed({'it': truth(1, 1)}, stamp=second), lambda: young.hold(second)):
                    with pytest.raises(StampNotHeldError, match='no image with stamp'):
                        ask()
                young.seed({'it': truth(1)}, stamp=first)
                assert iou(show(robot, 12)['it'].mask, truth(1, 12)) > FOLLOWED


def test_wait_tracked_returns_the_image_in_which_all_objects_are_visible(robot, client):
    ids = client.seed({'one': truth(1), 'two': truth(2)})
    threading.Timer(0.2, lambda: robot.show(SCENE[1][0])).start()
    frame = client.wait_tracked(ids)
    assert frame.ids == ids
    assert all(item.visible for item in frame.objects)
    assert frame['two'] is frame[ids[1]]


def test_wait_returns_each_image_at_most_once(robot, client):
    show(robot, 1)
    first = client.wait()
    assert first is client.latest()
    sent = []
    threading.Timer(0.2, lambda: sent.append(robot.show(SCENE[2][0]))).start()
    assert client.wait().header == wait_until(lambda: sent, 'the image')[0].header
    with pytest.raises(NodeTimeoutError, match='published no new frame'):
        client.wait(timeout=0.05)


def test_objects_are_removed_by_id_and_by_a_reset(robot, client):
    client.seed({'one': truth(1), 'two': truth(2), 'three': truth(3)})
    assert client.remove(2) == [2]
    assert show(robot, 1).ids == [1, 3]
    assert sorted(client.remove_all()) == [1, 3]
    assert show(robot, 2).ids == []
    client.reset()
    assert client.latest() is None
    show(robot, 3)
    assert client.seed({'again': truth(1, 3)}) == [1]


def test_a_client_works_inside_a_callback_of_the_programs_own_executor(robot, client):
    """A blocking call in a callback must not depend on that callback's executor."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('own', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    ids = []
    timer = node.create_timer(0.01, lambda: ids or ids.extend(client.seed({'it': truth(1)})))
    try:
        end = time.monotonic() + ANSWER_S
        while not ids and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.1)
        assert ids == [1]
    finally:
        timer.cancel()
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()


def test_two_clients_receive_the_same_results(robot, client):
    with XMemClient(robot.prefix, timeout=ANSWER_S) as other:
        meet(robot, other)
        sent = robot.show(SCENE[1][0])
        for each in (other, client):
            wait_until(lambda each=each: each.latest() and each.latest().header == sent.header, 'the image')


# --- what goes wrong


def test_an_object_that_does_not_become_visible_is_named_with_its_state(robot, client):
    client.seed({'it': truth(1)})
    show(robot, 1)
    with pytest.raises(NodeTimeoutError, match='object 1 is TRACKED, object 7 is not tracked'):
        client.wait_tracked([1, 7], timeout=0.1)
    frame = client.latest()
    assert 'it' in frame
    assert 'that' not in frame
    with pytest.raises(UnknownObjectError, match="no object 'that' is tracked in this image; tracked: 1 'it'"):
        frame['that']


def test_a_refused_seed_changes_nothing_and_says_why(robot, client):
    client.seed({'it': truth(1)})
    with pytest.raises(SeedError, match="'small'.*the mask is 20×10, but the image is 432×240"):
        client.seed({'good': truth(2), 'small': np.ones((10, 20), bool)})
    with pytest.raises(StampNotHeldError, match='no image with stamp 5.000000000 is held'):
        client.seed({'good': truth(2)}, stamp=5_000_000_000)
    for ask in (lambda: client.remove([1, 9]), lambda: client.seed({9: truth(2)})):
        with pytest.raises(UnknownObjectError, match='no object has the id 9; tracked: 1'):
            ask()
    for ids in ('1', '12', b'1', 1.0, 2.9, None, [None], True, [True], np.array(1)):
        with pytest.raises(UnknownObjectError, match=r'ids are .*: give one id or several'):
            client.remove(ids)
    with pytest.raises(UnknownObjectError, match='no id given'):
        client.remove([])
    assert show(robot, 1).ids == [1]


def test_a_missing_node_is_reported_with_the_visible_ones(robot):
    with XMemClient('/elsewhere/xmem', timeout=1.0) as client:
        link = client.link
        wait_until(lambda: robot.prefix in str(link.missing(0)), 'the client to see the other node')
        for ask in (lambda: client.seed({'it': truth(1)}), client.wait, client.reset, client.latest):
            with pytest.raises(NodeMissingError, match=f'no node /elsewhere/xmem .* {robot.prefix}.*ros2') as said:
                ask()
            assert '/elsewhere/xmem' not in str(said.value).split('visible trackers:')[1]


def test_latest_waits_for_the_node_and_is_none_before_the_first_result():
    with XMemClient('/starting/xmem', timeout=0.1) as client:
        with pytest.raises(NodeMissingError, match='no node /starting/xmem was found within 0.1 s'):
            client.latest()
        process = robots.QuickNodeProcess({'autostart': False}, ['-r', '__ns:=/starting'])
        try:
            assert client.latest(robots.START_S) is None
            assert client.link.state(ANSWER_S) == 'unconfigured'
        finally:
            process.close()
        wait_until(lambda: not client.link.is_there(), 'the node to be gone', ANSWER_S)
        with pytest.raises(NodeMissingError):
            client.latest()
    with pytest.raises(NodeError, match='closed'):
        client.latest()


def test_memory_is_saved_and_loaded_with_the_same_ids(robot, client, tmp_path):
    name = f'client_{tmp_path.name}'
    ids = client.seed({'it': truth(1)})
    try:
        saved = client.save_memory(name)
        assert (saved.ids, saved.nbytes) == ((1,), Path(saved.path).stat().st_size)
        client.remove(ids)
        assert client.load_memory(name) == LoadedMemory(saved.path, {1: 1})
        assert show(robot, 1).ids == ids
    finally:
        Path(saved.path).unlink(missing_ok=True)
    with pytest.raises(MemoryFileMissingError, match=name):
        client.load_memory(name)


def test_an_inactive_node_is_reported_with_the_transition_to_request(robot, client):
    assert robot.change_state('deactivate')
    try:
        for ask in (lambda: client.seed({'it': truth(1)}), lambda: client.remove(1), client.reset, client.hold):
            with pytest.raises(NodeInactiveError, match='take the transition activate'):
                ask()
        client.latest()
        with pytest.raises(NodeInactiveError, match='is inactive and tracks nothing'):
            client.wait_tracked(99, timeout=ANSWER_S / 10)
    finally:
        assert robot.change_state('activate')
        robot.wait_camera()


def test_close_ends_a_wait_for_a_missing_node():
    client = XMemClient('/nowhere/xmem', timeout=ANSWER_S)
    errors = []

    def look():
        try:
            client.latest()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    wait_until(lambda: client.link._clients, 'the search to have begun')
    client.close()
    thread.join(ANSWER_S / 2)
    assert [type(error) for error in errors] == [NodeError]


def test_frames_from_before_a_load_or_reset_are_not_returned_after_it(robot, client, tmp_path):
    (old,) = client.seed({'old': truth(1)})
    name = f'trial_{tmp_path.name}'
    client.save_memory(name)
    show(robot, 1)
    assert client.wait_tracked(old).ids == [old]
    client.load_memory(name)
    assert client.latest() is None
    with pytest.raises(NodeTimeoutError):
        client.wait_tracked(old, timeout=0.3)
    show(robot, 2)
    assert client.wait_tracked(old)['old'].visible
    client.reset()
    assert client.latest() is None


def test_wait_tracked_returns_each_image_once_and_none_from_before_a_correction(robot, client):
    (number,) = client.seed({'it': truth(1)})
    show(robot, 1)
    first = client.wait_tracked(number)
    with pytest.raises(NodeTimeoutError):
        client.wait_tracked(number, timeout=0.3)
    show(robot, 2)
    second = client.wait_tracked(number)
    assert second.stamp_ns > first.stamp_ns
    show(robot, 3)
    client.seed({number: truth(1, 3)})
    with pytest.raises(NodeTimeoutError):
        client.wait_tracked(number, timeout=0.3)


def test_an_unreferenced_client_leaves_the_graph(robot):
    client = XMemClient(robot.prefix)
    name, gone = client.link.node.get_name(), weakref.ref(client)
    wait_until(lambda: name in robot.node.get_node_names(), 'the client')
    del client

    def freed():
        gc.collect()
        return gone() is None

    wait_until(freed, 'the client to be freed')
    wait_until(lambda: name not in robot.node.get_node_names(), 'the client to leave')


def test_a_closed_client_refuses_calls_and_ends_waits(robot):
    client = XMemClient(robot.prefix)
    errors = []

    def wait():
        try:
            client.wait(ANSWER_S)
        except NodeError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    client.close()
    thread.join(ANSWER_S)
    assert 'closed' in str(errors[0])
    with pytest.raises(NodeError, match='closed: create a new client'):
        client.seed({'it': truth(1)})
    client.close()


@pytest.mark.parametrize('name', ['', '/', '/a b', '/1x', '/a//b', None])
def test_an_invalid_node_name_is_refused(name):
    with pytest.raises(ParameterError, match='is not a valid node name'):
        XMemClient(name)


# --- seeds as messages, without a node


def test_an_invalid_seed_is_refused_by_name():
    mask = np.ones((4, 5), bool)
    for shapes, text in [
        ({}, 'no seed given'),
        ({'cup': None}, "the seed of 'cup' is None"),
        ({'cup': np.ones((4, 5, 3))}, r"the seed of 'cup' is an array of shape \(4, 5, 3\)"),
        ({'cup': 'mask.png'}, "'mask.png'"),
        ({'cup': (1, 2, 3)}, r'\(1, 2, 3\)'),
        ({'cup': (-1, 2, 3, 4)}, 'clipped to the image'),
        ({'cup': (0, 0, float('nan'), 4)}, 'clipped to the image'),
        ({'cup': Points([(1, 2, 3)])}, 'N pairs of x, y'),
        ({'cup': Points([(1, float('inf'))])}, 'N pairs of x, y'),
        ({0: mask}, 'is 0'),
        ({-2: mask}, 'is -2'),
        ({True: mask}, 'is True'),
        ({2.5: mask}, 'is 2.5'),
        ([('cup', mask, 3)], 'give pairs'),
        ([mask], 'give pairs'),
    ]:
        with pytest.raises(SeedError, match=text):
            seed_messages(shapes)


def test_boxes_points_and_masks_are_converted_to_seed_messages():
    for box in ((1, 2, 3, 4), [1, 2, 3, 4], Box(1, 2, 3, 4), np.array([1, 2, 3, 4]), (1.9, 2.2, 2.2, 4.1)):
        (seed,) = seed_messages({'it': box})
        assert seed.kind == Seed.BOX
        assert (seed.box.x_offset, seed.box.y_offset, seed.box.width, seed.box.height) == (1, 2, 3, 4)
    (seed,) = seed_messages({'it': Points((5, 6))})
    assert [(point.x, point.y) for point in seed.points] == [(5, 6)]
    (seed,) = seed_messages({3: Points(on=np.array([[5, 6]]), off=[(1, 2), (3, 4)])})
    assert (seed.id, list(seed.point_labels)) == (3, [1, 0, 0])
    (seed,) = seed_messages([(np.int64(3), np.array([[0, 0.5]], np.float32))])
    assert list(seed.mask.data) == [0, 255]


def test_stamps_are_converted_exactly_and_inexact_ones_are_refused():
    assert time_message(None) == Header().stamp
    stamp = time_message(1_234_567_890_123_456_789)
    assert (stamp.sec, stamp.nanosec) == (1_234_567_890, 123_456_789)
    assert time_message(rclpy.time.Time(seconds=7, nanoseconds=5)).nanosec == 5
    for wrong in (12.5, '12', 10**30, True, object()):
        with pytest.raises(SeedError, match='stamp'):
            time_message(wrong)
