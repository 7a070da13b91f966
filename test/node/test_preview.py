# SPDX-License-Identifier: MIT
"""`~/preview_seed` of the real node over real DDS: candidates of a seed, and nothing changes."""

import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg')

import node_harness as robots
from builtin_interfaces.msg import Time
from node_harness import bounding_box, box_seed, iou, mask_seed, pixels_of, points_seed, wait_until
from scene_files import rendered_scene
from sensor_msgs.msg import Image

from xmem_ros.client import Box, Points, XMemClient
from xmem_ros.errors import ErrorCode, SeedError
from xmem_ros.msg import Seed, TrackedObjectArray
from xmem_ros.seeding.prompt_segmenter import FILE
from xmem_ros.srv import PreviewSeed

SCENE = rendered_scene()
CUP = SCENE[0][1] == 1
CUP_BOX = bounding_box(CUP, 4)
ANSWER_S = 60.0  # on a busy machine


@pytest.fixture(scope='module', params=['grabcut', 'bundled'])
def running(request):
    if request.param == 'bundled' and not FILE.exists():
        pytest.skip('the weights of the prompt network are not there')
    with robots.running({'size': 120, 'max_objects': 2, 'history': 5, 'seeder': request.param}) as robot:
        robot.seeder = request.param
        robot.labels = robot.listen(Image, '~/labels')
        robot.objects = robot.listen(TrackedObjectArray, '~/objects')
        robot.seeds = robot.listen_seeds()
        for topic in ('~/labels', '~/objects', '~/events'):
            robot.wait_matched(topic)
        yield robot


@pytest.fixture
def robot(running):
    """A node that has tracked one image and has no objects."""
    running.first = running.show_and_wait(SCENE[0][0], running.labels).header.stamp
    assert running.reset().success
    return running


def preview(robot, seed, stamp=None):
    request = PreviewSeed.Request(seed=seed)
    if stamp is not None:
        request.header.stamp = stamp
    return robot.call(PreviewSeed, '~/preview_seed', request, ANSWER_S)


def with_id(seed, object_id):
    seed.id = object_id
    return seed


def test_a_preview_shows_masks_of_the_image_of_its_stamp_and_starts_nothing(robot):
    later = robot.show_and_wait(SCENE[1][0], robot.labels).header.stamp
    answer = preview(robot, box_seed(*CUP_BOX), robot.first)
    assert (answer.success, answer.error_code) == (True, ErrorCode.NONE)
    assert answer.stamp == robot.first
    assert 1 <= len(answer.masks) <= 3
    assert len(answer.qualities) == len(answer.masks)
    for mask in answer.masks:
        assert mask.header.stamp == robot.first
        assert pixels_of(mask).shape == SCENE.size
        assert set(np.unique(pixels_of(mask))) == {0, 255}
    assert preview(robot, box_seed(*CUP_BOX)).stamp == later  # the newest
    robot.show_and_wait(SCENE[0][0], robot.labels)
    wait_until(lambda: robot.objects[-1].header == robot.labels[-1].header, 'the objects')
    assert not robot.objects[-1].objects


def test_candidates_differ_and_are_in_the_order_of_their_quality(robot):
    answer = preview(robot, points_seed([(212, 145)], [1]), robot.first)
    masks = [pixels_of(mask) > 0 for mask in answer.masks]
    assert all(iou(one, other) < 0.9 for index, one in enumerate(masks) for other in masks[:index])
    if robot.seeder == 'grabcut':
        assert np.isnan(answer.qualities).tolist() == [True]
        assert masks[0][145, 212]
    else:
        assert all(0 <= quality <= 1 for quality in answer.qualities)
        assert sorted(answer.qualities, reverse=True) == list(answer.qualities)


def test_a_previewed_mask_can_be_given_as_a_seed_and_the_same_preview_gives_it_again(robot):
    with XMemClient(robot.prefix, timeout=ANSWER_S) as client:
        shape = Box(*CUP_BOX)
        first = client.preview(shape, robot.first)[0].mask
        again = client.preview(shape, robot.first)[0].mask
        assert (first == again).all()
        before = len(robot.seeds)
        (one,) = client.seed({'cup': first}, robot.first)
        accepted = wait_until(lambda: robot.seeds[before:], 'the accepted seed')[0]
        assert (accepted.seeds[0].kind, list(accepted.ids)) == (Seed.MASK, [one])
        assert ((pixels_of(accepted.seeds[0].mask) > 0) == first).all()


def test_without_points_a_known_object_shows_its_own_mask_and_points_correct_it(robot):
    assert robot.seed(mask_seed(CUP), stamp=robot.first).success
    labels = robot.show_and_wait(SCENE[1][0], robot.labels)
    own = pixels_of(labels) == 1
    assert own.any()
    answer = preview(robot, with_id(points_seed([], []), 1), labels.header.stamp)
    (mask,) = answer.masks
    assert ((pixels_of(mask) > 0) == own).all()
    assert np.isnan(answer.qualities[0])
    if robot.seeder == 'bundled':  # GrabCut begins anew and needs a point on the object
        x, y, *_ = bounding_box(own)
        off = with_id(points_seed([(x, y)], [0]), 1)
        assert preview(robot, off, labels.header.stamp).success
        assert preview(robot, with_id(off, 0), labels.header.stamp).error_code == ErrorCode.INVALID_SEED


def test_an_unusable_seed_is_refused_with_the_code_of_a_seed_and_tracking_goes_on(robot):
    assert robot.seed(mask_seed(CUP), mask_seed(SCENE[0][1] == 2), stamp=robot.first).success  # as many as are allowed
    asked = {
        'tiny': (box_seed(0, 0, 3, 3), None, ErrorCode.INVALID_SEED),
        'outside': (points_seed([(999, 9)], [1]), None, ErrorCode.INVALID_SEED),
        'labels': (mask_seed(SCENE[0][1].astype(np.uint8), kind=Seed.LABELS), None, ErrorCode.INVALID_SEED),
        'no kind': (Seed(kind=9), None, ErrorCode.INVALID_SEED),
        'id': (with_id(box_seed(*CUP_BOX), 9), None, ErrorCode.UNKNOWN_ID),
        'room': (box_seed(*CUP_BOX), None, ErrorCode.TOO_MANY_OBJECTS),
        'stamp': (with_id(box_seed(*CUP_BOX), 1), Time(sec=5), ErrorCode.STAMP_NOT_HELD),
    }
    answers = {what: preview(robot, seed, stamp) for what, (seed, stamp, _) in asked.items()}
    codes = {what: ErrorCode(answer.error_code) for what, answer in answers.items()}
    assert codes == {what: code for what, (*_, code) in asked.items()}
    assert not any(answer.success or answer.masks for answer in answers.values())
    assert answers['tiny'].message.startswith('seed (BOX): the box')
    robot.show_and_wait(SCENE[1][0], robot.labels)
    assert set(np.unique(pixels_of(robot.labels[-1]))) == {0, 1, 2}


def test_the_client_returns_candidates_and_raises_the_errors_of_a_seed(robot):
    with XMemClient(robot.prefix, timeout=ANSWER_S) as client:
        found = client.preview(Points([(212, 145)]), robot.first)
        assert found
        assert all(item.mask.shape == SCENE.size and item.mask.dtype == bool and item.mask.any() for item in found)
        with pytest.raises(SeedError, match='is not inside the image'):
            client.preview(Points([(999, 9)]), robot.first)
        (one,) = client.seed({'cup': CUP}, robot.first)
        labels = robot.show_and_wait(SCENE[0][0], robot.labels)
        (own,) = client.preview(Points(on=()), labels, object_id=one)
        assert iou(own.mask, CUP) > 0.9
