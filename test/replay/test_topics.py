# SPDX-License-Identifier: MIT
"""Selection, order, times and QoS of replayed topics, without a node."""

from __future__ import annotations

import os
import sys
import time
from types import SimpleNamespace

import pytest
from needs import require

require('rclpy', 'xmem_ros.msg', 'rosbags.rosbag2')

from bag_files import TOPIC, image_items, scene, stamp_of, write_bag

from xmem_ros.recordings import typestore as messages
from xmem_ros.recordings.topics import recorded_outputs
from xmem_ros.replay import topics as replay_topics
from xmem_ros.replay.clock import ReplayClock
from xmem_ros.replay.ros2_bag_play import BagTopics, recorded_remaps, topics_of
from xmem_ros.replay.source import RecordedMessage
from xmem_ros.replay.topics import companions_first, excluded_topics, foreign_topics, message_class, publisher_qos

MS = 1_000_000


def image(at_ms, data=b''):
    return RecordedMessage('/image', 'sensor_msgs/msg/Image', at_ms * MS, data, at_ms * MS)


def info(at_ms, stamp_ms):
    return RecordedMessage('/info', 'sensor_msgs/msg/CameraInfo', at_ms * MS, b'', stamp_ms * MS)


def transform(at_ms):
    return RecordedMessage('/tf', 'tf2_msgs/msg/TFMessage', at_ms * MS, b'')


def test_late_recorded_camera_infos_come_before_their_image_and_time_never_decreases():
    recorded = [message for at in (1000, 1100, 1200) for message in (image(at), transform(at + 20), info(at + 40, at))]
    ordered = list(companions_first(recorded, '/image'))
    assert [message.topic for message in ordered] == ['/info', '/image', '/tf'] * 3
    times = [message.received_ns // MS for message in ordered]
    assert times == [1000, 1000, 1020, 1100, 1100, 1120, 1200, 1200, 1220]


CAMERA = {
    '/camera/image_raw': 'sensor_msgs/msg/Image',
    '/camera/camera_info': 'sensor_msgs/msg/CameraInfo',
    '/camera/depth/image': 'sensor_msgs/msg/Image',
    '/camera/detections': 'vision_msgs/msg/Detection2DArray',
}
OBJECTS = 'xmem_ros/msg/TrackedObjectArray'


def test_a_remapped_objects_topic_among_those_of_a_camera_does_not_exclude_them():
    topics = {**CAMERA, '/camera/objects': OBJECTS}
    assert list(recorded_outputs(topics, '/xmem')) == ['/camera/objects']
    assert list(excluded_topics(topics, '/xmem', clock=False)) == ['/camera/objects']
    assert recorded_remaps(BagTopics('/camera/image_raw', False, topics), '/xmem')[0] == (
        '/camera/objects:=/recorded/camera/objects'
    )


def test_images_beside_a_remapped_objects_topic_are_chosen_by_default(tmp_path):
    objects = messages.objects_message(messages.header(stamp_of(0), ''), [])
    bag = write_bag(tmp_path / 'bag', [('/camera/objects', stamp_of(0), objects), *image_items(scene(2))])
    assert topics_of(bag).image == TOPIC


def test_remapped_labels_among_the_topics_of_a_camera_do_not_exclude_them():
    outputs = {'/camera/objects': OBJECTS, '/camera/labels': 'sensor_msgs/msg/Image'}
    found = recorded_outputs(CAMERA | outputs, '/xmem')
    assert {'/camera/image_raw', '/camera/camera_info', '/camera/depth/image'}.isdisjoint(found)
    assert set(outputs) <= set(found)
    assert 'beside /camera/objects' in found['/camera/labels']


def test_recorded_outputs_of_a_node_of_any_name_are_recognised_by_its_objects_topic():
    image = 'sensor_msgs/msg/Image'
    below = ('labels', 'labels/compressed', 'overlay', 'object_12/mask', 'detections', 'transition_event')
    outputs = {f'/arm/watch/{name}': image for name in below} | {'/arm/watch/objects': OBJECTS}
    others = {'/arm/watch/object_x/mask': image, '/arm/labels': image, '/watch/labels': image}
    assert set(recorded_outputs(outputs | others, '/xmem')) == set(outputs)


def test_all_topics_below_the_name_of_the_node_and_the_default_name_are_outputs():
    topics = {'/a/xmem/what/ever': '', '/b/node/what': '', '/b/node_2/what': '', '/xmem/x': '', '/xmem_2/x': ''}
    assert set(recorded_outputs(topics, '/b/node')) == {'/a/xmem/what/ever', '/b/node/what', '/xmem/x'}


def test_types_of_service_events_are_found_if_ros_has_them():
    from std_srvs.srv import SetBool

    topics = {'/arm/_service_event': 'std_srvs/srv/SetBool_Event', '/leg/_service_event': 'moon_srvs/srv/Hop_Event'}
    if not hasattr(SetBool, 'Event'):
        assert set(foreign_topics(topics)) == set(topics)
        return
    assert message_class(topics['/arm/_service_event']) is SetBool.Event
    assert foreign_topics(topics) == {'/leg/_service_event': 'moon_srvs/srv/Hop_Event is not installed'}


INTERFACES = """
class Support(type):
    _TYPE_SUPPORT = None
class Message(metaclass=Support):
    SLOT_TYPES = ()
class Hop:
    class Impl:
        FeedbackMessage = Message
        class SendGoalService:
            Event = Message
        GetResultService = 'no message'
not_a_message = Support
"""


@pytest.fixture
def place_package(tmp_path, monkeypatch):
    """Write an interface package to sys.path and, optionally, the ament index."""

    def place(name: str, *, listed: bool, code: str = INTERFACES) -> None:
        prefix = tmp_path / 'prefix'
        site = prefix / 'site' if listed else tmp_path / 'elsewhere'
        for kind in ('msg', 'action'):
            (site / name / kind).mkdir(parents=True)
            (site / name / kind / '__init__.py').write_text(code)
        (site / name / '__init__.py').write_text('')
        if listed:
            marker = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages' / name
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
        monkeypatch.setenv('AMENT_PREFIX_PATH', f'{prefix}{os.pathsep}{os.environ["AMENT_PREFIX_PATH"]}')
        monkeypatch.syspath_prepend(site)

    yield place
    for name in [name for name in sys.modules if name.startswith('moon_')]:
        del sys.modules[name]


def test_types_of_action_messages_are_found(place_package):
    """The package is a stand-in named like rosidl's, since no package on PyPI has an action."""
    place_package('moon_msgs', listed=True)
    assert message_class('moon_msgs/action/Hop_FeedbackMessage').__name__ == 'Message'
    assert message_class('moon_msgs/action/Hop_SendGoal_Event').__name__ == 'Message'
    assert message_class('moon_msgs/action/Hop_GetResult_Event') is None
    assert message_class('moon_msgs/action/Jump_FeedbackMessage') is None
    assert message_class('moon_msgs/msg/Message').__name__ == 'Message'
    assert message_class('moon_msgs/msg/not_a_message') is None


def test_a_type_name_does_not_import_code_outside_installed_interfaces(place_package, tmp_path):
    """Type names come from the bag, and the working directory is not trusted."""
    place_package('moon_evil', listed=False, code=f'open({str(tmp_path / "ran")!r}, "w")')
    for msgtype in ('moon_evil/msg/X', 'moon_evil/action/X_FeedbackMessage', 'venv/__main__/X', 'antigravity/msg/X'):
        assert message_class(msgtype) is None
        assert foreign_topics({'/a': msgtype}) == {'/a': f'{msgtype} is not installed'}
    assert not (tmp_path / 'ran').exists()
    assert 'moon_evil' not in sys.modules


def test_a_folder_with_the_name_of_an_installed_package_is_not_imported(place_package, tmp_path):
    place_package('moon_msgs', listed=True)
    place_package('moon_msgs', listed=False, code=f'open({str(tmp_path / "ran")!r}, "w")')  # earlier in sys.path
    assert message_class('moon_msgs/msg/Message') is None
    assert not (tmp_path / 'ran').exists()


def test_topics_with_invalid_names_are_not_published():
    topics = {'/a b': 'std_msgs/msg/Empty', '/a\0b': 'std_msgs/msg/Empty', f'/{"a" * 300}': 'std_msgs/msg/Empty'}
    assert set(excluded_topics(topics, '/xmem', clock=False).values()) == {'its name is not a valid ROS topic'}


def test_the_recorded_depth_is_limited():
    offered = SimpleNamespace(
        depth=9_999, durability=SimpleNamespace(name='TRANSIENT_LOCAL'), history=SimpleNamespace(name='KEEP_LAST')
    )
    assert publisher_qos([offered] * 50).depth == 1000


@pytest.mark.parametrize('name', ['', '/', 'msg', 'std_msgs', 'std_msgs/msg', 'std_msgs/msg/', 'std_msgs/msg/No', '..'])
def test_an_invalid_message_type_has_no_class(name):
    assert message_class(name) is None


def read_ahead(messages, handed_out):
    """Return how many messages are read before the first ones are yielded."""
    read = []

    def stream():
        for message in messages:
            read.append(message)
            yield message

    ordered = companions_first(stream(), '/image')
    for _ in range(handed_out):
        next(ordered)
    return len(read)


def test_a_step_back_of_time_limits_the_read_ahead():
    """100 images at 30 Hz, and 3000 with a clock one hour behind; 0.5 s is 15 images."""
    messages = [image(4_000_000 + at) for at in range(0, 3300, 33)] + [image(at) for at in range(0, 99_000, 33)]
    assert read_ahead(messages, 90) <= 90 + 20
    assert read_ahead(messages, 110) <= 110 + 20


def test_companions_are_not_moved_across_a_step_back_of_time():
    """The camera info's stamp precedes the image's, but it belongs to the second round."""
    messages = [image(9000), info(9010, 9000), info(1010, 1000), image(1000)]
    assert [(item.topic, item.stamp_ns // MS) for item in companions_first(messages, '/image')] == [
        ('/info', 9000),
        ('/image', 9000),
        ('/info', 1000),
        ('/image', 1000),
    ]


def test_the_read_ahead_is_limited_if_all_times_are_equal(monkeypatch):
    assert read_ahead([image(0) for _ in range(7000)], 1) <= replay_topics.MAX_AHEAD + 1
    monkeypatch.setattr(replay_topics, 'MAX_AHEAD_BYTES', 10_000)
    assert read_ahead([image(0, bytes(1000)) for _ in range(100)], 50) <= 50 + 10 + 1


def test_a_message_larger_than_the_limit_of_the_read_ahead_is_published(monkeypatch):
    monkeypatch.setattr(replay_topics, 'MAX_AHEAD_BYTES', 10)
    messages = [image(0, bytes(1000)), info(1, 0), image(30, bytes(1000))]
    assert len(list(companions_first(messages, '/image'))) == 3


def test_bag_time_ignores_messages_out_of_order_and_follows_a_large_step_back():
    bag = ReplayClock()
    assert [bag.wait_until(at * MS) // MS for at in (5000, 5040, 5030, 5050)] == [5000, 5040, 5040, 5050]
    assert [bag.wait_until(at * MS) // MS for at in (1000, 1010)] == [1000, 1010]


def test_a_rate_limits_the_speed_again_after_a_step_back():
    """A bag of 100 ms at a fifth of its speed, twice: each takes half a second."""
    bag = ReplayClock(0.2)
    begun = time.monotonic()
    for at in (5000, 5050, 5100, 1000, 1050, 1100):
        bag.wait_until(at * MS)
    assert time.monotonic() - begun >= 2 * 0.1 / 0.2
