# SPDX-License-Identifier: MIT
"""Clouds, poses, velocities and transforms of objects in a rendered RGB-D scene."""

from __future__ import annotations

import time

import numpy as np
import pytest
from needs import require

require('rclpy', 'xmem_ros.msg')

import node_harness as robots
import rgbd_scene as scene
from geometry_msgs.msg import PoseArray
from node_harness import mask_seed, wait_until
from sensor_msgs.msg import Image, PointCloud2
from space_harness import DepthCamera, points

from xmem_ros.conversions.point_clouds import points_of
from xmem_ros.msg import ObjectMotionArray
from xmem_ros.srv import GetMask

CENTROID_M = 0.01  # at 2 m
PRECISION = 0.98
ON_SURFACE_M = 0.02  # five standard deviations of the sensor's noise
FRAMES = 14
TOPICS = {
    'objects': (PointCloud2, '~/object_points'),
    'background': (PointCloud2, '~/background_points'),
    'poses': (PoseArray, '~/poses'),
    'motions': (ObjectMotionArray, '~/motions'),
}


def start(robot):
    """Seed ball and box in the first frame; return the camera and the labels."""
    labels = robot.listen(Image, '~/labels')
    robot.wait_matched('~/labels')
    camera = DepthCamera(robot)
    for _ in range(60):  # the node's publishers may not have found the new subscription yet
        if labels:
            break
        robot.show(scene.view(0).image, 'mono8')
        time.sleep(0.5)
    camera.show(0, labels)
    truth = scene.view(0).labels
    assert robot.seed(mask_seed(truth == scene.BALL, 'ball'), mask_seed(truth == scene.BOX, 'box')).success
    return camera, labels


def newest(heard: list, header):
    """Wait for the message of a header's stamp."""
    return wait_until(lambda: next((m for m in heard if m.header.stamp == header.stamp), None), 'the frame in space')


@pytest.fixture(scope='module')
def tracked():
    """Messages of each topic for each frame that was tracked after the seed."""
    with robots.running({'depth.enabled': True, 'depth.point_spacing': 1}) as robot:
        heard = {name: robot.listen(kind, topic) for name, (kind, topic) in TOPICS.items()}
        for _, topic in TOPICS.values():
            robot.wait_matched(topic)
        camera, labels = start(robot)
        frames = {}
        for index in range(1, FRAMES):
            header = camera.show(index, labels).header
            frames[index] = {name: newest(messages, header) for name, messages in heard.items()}
        yield frames


def test_poses_are_within_a_centimetre_of_the_visible_surface(tracked):
    for index, messages in tracked.items():
        view = scene.view(index)
        assert len(messages['poses'].poses) == 2
        for label, pose in zip((scene.BALL, scene.BOX), messages['poses'].poses, strict=True):
            truth = np.median(view.points[view.labels == label], axis=0)
            found = (pose.position.x, pose.position.y, pose.position.z)
            assert np.linalg.norm(found - truth) < CENTROID_M, (index, label)
            assert pose.orientation.w == 1


def test_the_box_is_within_a_centimetre_of_its_known_front(tracked):
    front = scene.BOX_CENTRE - (0, 0, scene.BOX_SIZE[2] / 2)
    for messages in tracked.values():
        box = messages['poses'].poses[1].position
        # The left side of the box is seen, too, so its middle is compared in y and z only.
        assert box.y == pytest.approx(front[1], abs=CENTROID_M)
        assert box.z == pytest.approx(front[2], abs=CENTROID_M)


def test_object_points_lie_on_their_objects_and_have_their_centroids(tracked):
    for index, messages in tracked.items():
        view, cloud = scene.view(index), messages['objects']
        assert [field.name for field in cloud.fields] == ['x', 'y', 'z', 'label', 'id']
        assert cloud.header.frame_id == 'camera_optical'
        found, fields = points(cloud), points_of(cloud)
        assert set(fields['id']) == {1, 2}
        for label in (scene.BALL, scene.BOX):
            own = found[fields['label'] == label]
            truth = view.points[view.labels == label]
            assert len(own) > 0.7 * len(truth)  # without the rim and the sensor's holes
            assert (view.distance(own, label) < ON_SURFACE_M).mean() >= PRECISION
            assert np.linalg.norm(own.mean(axis=0) - truth.mean(axis=0)) < CENTROID_M


def test_background_points_are_all_the_rest(tracked):
    for index, messages in tracked.items():
        view, found = scene.view(index), points(messages['background'])
        assert [field.name for field in messages['background'].fields] == ['x', 'y', 'z']
        for label in (scene.BALL, scene.BOX):
            assert (view.distance(found, label) < ON_SURFACE_M).mean() < 1 - PRECISION
        assert len(found) > 0.9 * (view.labels == 0).sum()


def test_velocities_are_those_of_the_objects(tracked):
    for index, messages in tracked.items():
        motions = {item.name: item for item in messages['motions'].motions}
        assert set(motions) == {'ball', 'box'}
        assert all(item.measured for item in motions.values())
        if index < FRAMES - 5:  # the filter settles
            continue
        for name, truth in (('ball', scene.BALL_VELOCITY), ('box', np.zeros(3))):
            velocity, covariance = motions[name].velocity, np.reshape(motions[name].covariance, (6, 6))
            error = (velocity.x, velocity.y, velocity.z) - truth
            assert (np.abs(error) < 3 * np.sqrt(np.diag(covariance)[3:])).all()
            assert np.linalg.norm(error) < 0.1


def test_a_hidden_object_is_predicted_and_has_no_points():
    with robots.running({'depth.enabled': True}) as robot:
        motions = robot.listen(ObjectMotionArray, '~/motions')
        clouds = robot.listen(PointCloud2, '~/object_points')
        for topic in ('~/motions', '~/object_points'):
            robot.wait_matched(topic)
        camera, labels = start(robot)
        for index in range(1, 10):
            header = camera.show(index, labels).header
        before = {item.name: item for item in newest(motions, header).motions}['ball']
        for _ in range(4):
            header = camera.show(None, labels).header
        hidden = {item.name: item for item in newest(motions, header).motions}['ball']
        assert not hidden.measured
        assert hidden.position.x > before.position.x
        assert hidden.covariance[0] > before.covariance[0]
        assert newest(clouds, header).width == 0


def test_nothing_is_measured_while_nobody_listens():
    with robots.running({'depth.enabled': True, 'diagnostics_period': 0.2}) as robot:
        camera, labels = start(robot)
        for index in range(1, 4):
            camera.show(index, labels)
        values = robot.diagnostics(lambda values: int(values['tracked']) >= 4, 'four images')
        assert values['images located by depth'] == '0'


def test_each_visible_object_has_a_transform():
    messages = pytest.importorskip('tf2_msgs.msg', reason='tf2_msgs is not installed')
    with robots.running({'depth.enabled': True, 'depth.publish_tf': True}) as robot:
        heard = robot.listen(messages.TFMessage, '/tf')
        wait_until(lambda: robot.node.count_publishers('/tf'), 'a broadcaster')
        camera, labels = start(robot)
        # The node's publisher may not have found the new subscription yet.
        wait_until(lambda: camera.show(1, labels) and heard, 'a transform')
        header = camera.show(1, labels).header
        found = wait_until(lambda: heard[-1].transforms[0].header.stamp == header.stamp and heard[-1], '/tf')
        prefix = robot.prefix.lstrip('/')
        assert [item.child_frame_id for item in found.transforms] == [f'{prefix}/object_1', f'{prefix}/object_2']
        assert found.transforms[0].header.frame_id == 'camera_optical'
        view = scene.view(1)
        truth = np.median(view.points[view.labels == scene.BALL], axis=0)
        moved = found.transforms[0].transform.translation
        assert np.linalg.norm((moved.x, moved.y, moved.z) - truth) < CENTROID_M


def test_everything_is_in_the_target_frame():
    pytest.importorskip('tf2_ros', reason='tf2_ros is not installed')
    from geometry_msgs.msg import TransformStamped
    from tf2_ros import StaticTransformBroadcaster

    with robots.running({'depth.enabled': True, 'depth.target_frame': 'map', 'depth.point_spacing': 1}) as robot:
        transform = TransformStamped(child_frame_id='camera_optical')
        transform.header.frame_id = 'map'
        # The camera looks along x of the map, half a metre above its origin.
        turned, moved = transform.transform.rotation, transform.transform.translation
        turned.x, turned.y, turned.z, turned.w = -0.5, 0.5, -0.5, 0.5
        moved.z = 0.5
        heard = {name: robot.listen(kind, topic) for name, (kind, topic) in TOPICS.items()}
        for _, topic in TOPICS.values():
            robot.wait_matched(topic)
        camera, labels = start(robot)
        camera.show(1, labels)
        robot.process.says('no transform from camera_optical to map')
        StaticTransformBroadcaster(robot.node).sendTransform(transform)
        wait_until(lambda: camera.show(2, labels) and heard['poses'], 'poses in the target frame')
        header = camera.show(3, labels).header
        view = scene.view(3)
        truth = np.median(view.points[view.labels == scene.BALL], axis=0)
        expected = np.array([truth[2], -truth[0], 0.5 - truth[1]])
        found = {name: newest(messages, header) for name, messages in heard.items()}
        assert {message.header.frame_id for message in found.values()} == {'map'}
        position = found['poses'].poses[0].position
        assert np.linalg.norm((position.x, position.y, position.z) - expected) < CENTROID_M
        cloud = points(found['objects'])[points_of(found['objects'])['label'] == scene.BALL]
        assert np.linalg.norm(np.median(cloud, axis=0) - expected) < CENTROID_M
        assert points(found['background'])[:, 2].min() > 0.5 - scene.FLOOR - 0.1  # the floor is below the map's origin
        for target, z in (('', expected[2]), ('camera_optical', truth[2])):
            answer = robot.call(GetMask, '~/get_mask', GetMask.Request(name='ball', target_frame=target))
            assert answer.box.header.frame_id == answer.cloud.header.frame_id == (target or 'map')
            assert np.median(points(answer.cloud)[:, 2]) == pytest.approx(z, abs=CENTROID_M)
        assert robot.call(GetMask, '~/get_mask', GetMask.Request(name='ball', target_frame='moon')).message.startswith(
            'no transform from camera_optical to moon'
        )


@pytest.mark.parametrize(
    ('parameter', 'value', 'module'),
    [('depth.target_frame', 'map', 'tf2_ros'), ('depth.publish_tf', True, 'tf2_msgs')],
)
def test_missing_tf2_is_said_with_the_remedy(parameter, value, module, tmp_path, monkeypatch):
    import os

    (tmp_path / f'{module}.py').write_text("raise ImportError('not for this test')\n")
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')]))
    process = robots.NodeProcess({'depth.enabled': True, parameter: value})
    try:
        assert process.exit_code() == 1
        assert f'{parameter} needs {module}, which cannot be imported: apt install ros-' in process.output
        assert 'Traceback' not in process.output
    finally:
        process.close()
