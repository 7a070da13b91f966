# SPDX-License-Identifier: MIT
"""Invalid requests and images: a clear error, and the objects stay."""

import array
import time

import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg')

import node_harness as robots
from builtin_interfaces.msg import Time
from node_harness import box_seed, mask_seed, points_seed, wait_until
from scene_files import rendered_scene
from sensor_msgs.msg import Image

from xmem_ros.msg import Seed, TrackedObjectArray

SCENE = rendered_scene()
FRAME, TRUTH = SCENE[0]
HEIGHT, WIDTH = TRUTH.shape
NAN = float('nan')


@pytest.fixture(scope='module')
def running():
    with robots.running({'size': 120, 'max_objects': 3}) as robot:
        robot.labels = robot.listen(Image, '~/labels')
        robot.objects = robot.listen(TrackedObjectArray, '~/objects')
        robot.wait_matched('~/objects')
        yield robot


@pytest.fixture
def robot(running):
    """A node with two objects, which must still be tracked after the test."""
    assert running.reset().success
    running.show_and_wait(FRAME, running.labels)
    assert running.seed(mask_seed(TRUTH == 1, 'first'), mask_seed(TRUTH == 2, 'second')).success
    before = states_of(running)
    yield running
    after = states_of(running)
    assert [(item.id, item.label, item.name) for item in after] == [(1, 1, 'first'), (2, 2, 'second')]
    assert [item.frames_since_seed for item in after] > [item.frames_since_seed for item in before]
    assert all(item.area for item in after)


def states_of(robot):
    """Show one more frame; return its objects."""
    robot.show_and_wait(FRAME, robot.labels)
    wait_until(lambda: robot.objects[-1].header == robot.labels[-1].header, 'objects')
    return robot.objects[-1].objects


def image_seed(kind=Seed.MASK, object_id=0, **fields):
    """Build a seed with a valid mask, then change fields of its image."""
    seed = mask_seed(TRUTH == 3, object_id=object_id, kind=kind)
    for name, value in fields.items():
        setattr(seed.mask, name, value)
    return seed


def with_id(seed, object_id):
    seed.id = object_id
    return seed


SEEDS = {
    'an empty mask': (mask_seed(np.zeros_like(TRUTH)), 'the mask is empty: set the pixels'),
    'a mask of another size': (
        mask_seed(np.ones((60, 80), np.uint8)),
        f'the mask is 80×60, but the image is {WIDTH}×{HEIGHT}: resize the mask to {WIDTH}×{HEIGHT}',
    ),
    'a mask without pixels': (Seed(kind=Seed.MASK), "the encoding '' cannot be read"),
    'a mask of no size': (image_seed(height=0), 'it has no pixels'),
    'a mask in colour': (image_seed(encoding='rgb8'), 'send masks and label images as mono8'),
    'a mask that is cut off': (image_seed(data=array.array('B', bytes(99))), 'the image is cut off'),
    'a mask with a wrong step': (image_seed(step=7), 'step is 7'),
    'an empty label image': (
        image_seed(Seed.LABELS, data=array.array('B', bytes(TRUTH.size))),
        'the label image is empty',
    ),
    'a label image with an id': (image_seed(Seed.LABELS, object_id=1), 'a label image starts new objects; set id to 0'),
    'a box outside the image': (box_seed(WIDTH - 20, 10, 40, 40), f'not inside the image of {WIDTH}×{HEIGHT}: clip it'),
    'a box far outside the image': (box_seed(4_000_000_000, 10, 40, 40), 'clip it to the image'),
    'an empty box': (box_seed(10, 10, 0, 0), 'is too small: draw it at least'),
    'no points': (points_seed([], []), 'no point on the object: give at least one'),
    'only points that are not on it': (points_seed([(50, 50)], [0]), 'give at least one with the label 1'),
    'more points than labels': (points_seed([(50, 50), (60, 50)], [1]), 'give one label for each point'),
    'a point label that is none': (points_seed([(50, 50)], [3]), 'allowed: 1 (on the object) and 0 (not on it)'),
    'a point outside the image': (points_seed([(50, HEIGHT + 1)], [1]), 'is not inside the image'),
    'a point that is not a number': (points_seed([(NAN, 50)], [1]), 'is not inside the image'),
    'an unknown kind': (Seed(kind=9), 'kind is 9: set it to 0 (MASK), 1 (BOX), 2 (POINTS) or 3 (LABELS)'),
    'an unknown id': (
        mask_seed(TRUTH == 3, object_id=77),
        "no object has the id 77; tracked: 1 'first', 2 'second'; give the id 0 to start a new object",
    ),
    'more objects than fit': (
        mask_seed(np.where(TRUTH == 3, np.arange(WIDTH) % 2 + 1, 0).astype(np.uint8), kind=Seed.LABELS),
        'remove some first or raise max_objects',
    ),
}


@pytest.mark.parametrize('name', SEEDS)
def test_an_unusable_seed_is_refused(robot, name):
    seed, says = SEEDS[name]
    answer = robot.seed(seed)
    assert not answer.success
    assert says in answer.message
    assert not answer.ids


def test_the_error_names_the_unusable_seed(robot):
    answer = robot.seed(mask_seed(TRUTH == 3, 'good'), box_seed(0, 0, 1, 1, 'bad'))
    assert not answer.success
    assert answer.message.startswith("seeds[1] 'bad' (BOX): the box")


def test_a_request_without_seeds_is_refused(robot):
    answer = robot.seed()
    assert not answer.success
    assert 'give at least one' in answer.message


def test_more_seeds_than_max_objects_are_refused_before_any_is_read(robot):
    begun = time.monotonic()
    answer = robot.seed(*[box_seed(10, 10, WIDTH // 2, HEIGHT // 2)] * 1000)
    assert not answer.success
    assert 'the request holds 1000 seeds, and at most 3 objects are allowed (max_objects)' in answer.message
    assert time.monotonic() - begun < 10  # GrabCut for all of them would take over a minute


def test_an_error_does_not_repeat_huge_input(robot):
    long = 'x' * 100_000
    answers = {
        'a name': robot.seed(mask_seed(np.zeros_like(TRUTH), long)),
        'an encoding': robot.seed(image_seed(encoding=long)),
        'point labels': robot.seed(points_seed([(50, 50)] * 20_000, [3] * 20_000)),
        'ids': robot.remove(*range(100, 20_100)),
        'a file name': robot.save_memory(long),
    }
    for what, answer in answers.items():
        assert not answer.success, what
        assert 0 < len(answer.message) < 1000, what
    assert 'no object has the id 100, 101, 102' in answers['ids'].message
    assert '(20000 in all)' in answers['ids'].message
    reason = robot.set_parameter('on_time_jump', long).reason
    assert 'allowed: keep, reset' in reason
    assert len(reason) < 1000


def test_an_overlong_name_is_refused(robot):
    answer = robot.seed(mask_seed(TRUTH == 3, 'x' * 256))
    assert not answer.success
    assert 'the name has 256 characters: give one of at most 255' in answer.message
    answer = robot.seed(mask_seed(TRUTH == 3, 'ü' * 255))
    assert answer.success
    assert robot.remove(*answer.ids).success


def test_a_repeated_id_in_a_call_is_refused(robot):
    answer = robot.seed(mask_seed(TRUTH == 3, object_id=1), mask_seed(TRUTH == 2, object_id=1))
    assert not answer.success
    assert 'give one mask for each object' in answer.message


def test_an_unknown_stamp_is_refused_with_the_span_of_held_images(robot):
    oldest_held = robot.stamp_ns
    answer = robot.seed(mask_seed(TRUTH == 3), stamp=Time(sec=7_000_000))
    assert not answer.success
    assert 'no image with stamp 7000000.000000000 is held' in answer.message
    assert f'to {oldest_held // 10**9}.{oldest_held % 10**9:09d}' in answer.message


@pytest.mark.parametrize(
    ('ids', 'everything', 'says'),
    [
        ((), False, 'the request gives no ids and does not set all'),
        ((1,), True, 'the request gives ids and also sets all'),
        ((1, 99), False, "no object has the id 99; tracked: 1 'first', 2 'second'"),
    ],
)
def test_an_ambiguous_or_unknown_removal_is_refused(robot, ids, everything, says):
    answer = robot.remove(*ids, everything=everything)
    assert not answer.success
    assert says in answer.message
    assert not answer.removed


IMAGES = {
    'a cut-off image': ({'data': array.array('B', bytes(1000))}, 'the image is cut off'),
    'an image without data': ({'data': array.array('B')}, 'the image is cut off'),
    'an unknown encoding': ({'encoding': 'h264'}, "the encoding 'h264' cannot be read; convert it"),
    'an image of no size': ({'height': 0, 'width': 0}, 'it has no pixels'),
    'a wrong step': ({'step': 1}, 'step is 1'),
}


@pytest.mark.parametrize('name', IMAGES)
def test_an_unreadable_image_is_dropped_and_counted(robot, name):
    fields, says = IMAGES[name]
    before = int(robot.diagnostics(lambda values: True, 'the node')['invalid'])
    robot.show(FRAME, **fields)
    after = robot.diagnostics(lambda values: int(values['invalid']) == before + 1, 'one more invalid image')
    assert int(after['received']) == int(after['tracked']) + int(after['dropped']) + int(after['waiting'])
    answer = robot.seed(mask_seed(TRUTH == 3))
    assert not answer.success
    assert says in answer.message


def test_a_negative_stamp_is_dropped_and_counted_and_refused_in_a_seed(robot):
    before = int(robot.diagnostics(lambda values: True, 'the node')['invalid'])
    held = robot.stamp_ns
    robot.show(FRAME, stamp_ns=-1_500_000_000)
    robot.stamp_ns = held
    robot.diagnostics(lambda values: int(values['invalid']) == before + 1, 'one more invalid image')
    answer = robot.seed(mask_seed(TRUTH == 3), stamp=Time(sec=-1))
    assert not answer.success
    assert 'is negative: give the stamp of an image, or zero' in answer.message


@pytest.mark.parametrize(
    ('name', 'value', 'says'),
    [
        ('min_score', 1.5, 'min_score is 1.5; allowed: 0…1'),
        ('min_area', -1, 'min_area is -1; allowed: 0…1000000 px'),
        ('memory_every', 'often', "memory_every is 'often'; it must be a whole number"),
        ('memory_every', True, 'it must be a whole number'),
        ('on_time_jump', 'panic', "on_time_jump is 'panic'; allowed: keep, reset"),
        (
            'max_objects',
            5,
            'max_objects is read when the node is configured: take the transitions deactivate and cleanup',
        ),
        ('autostart', False, 'autostart is read only at the start'),
        ('memry_every', 5, "unknown parameter 'memry_every' (did you mean 'memory_every'?)"),
    ],
)
def test_a_parameter_out_of_range_is_refused_with_the_reason(robot, name, value, says):
    result = robot.set_parameter(name, value)
    assert not result.successful
    assert says in result.reason


def test_a_refused_parameter_keeps_its_value(robot):
    assert robot.set_parameter('min_score', 0.55).successful
    assert not robot.set_parameter('min_score', 2.0).successful
    assert robot.get_parameter('min_score') == 0.55
    assert robot.set_parameter('min_score', 0).successful  # a whole number is accepted
    assert robot.get_parameter('min_score') == 0.0
