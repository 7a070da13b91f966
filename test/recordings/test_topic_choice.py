# SPDX-License-Identifier: MIT
"""Default image topic: the same in `track`, `replay` and replay.launch.py."""

from __future__ import annotations

import pytest
from needs import require

require('rosbags.rosbag2')

from bag_files import TOPIC, image_items, scene, write_bag

from xmem_ros.errors import BagError, ParameterError
from xmem_ros.recordings.recording import open_recording
from xmem_ros.replay.ros2_bag_play import topics_of


def bag_of(path, *topics: str):
    frames = scene(2)
    items = [item for topic in topics for item in image_items(frames, topic, compressed='ompressed' in topic)]
    return write_bag(path / 'bag', items)


def chosen(bag) -> set[str]:
    """Return the topic that the commands choose."""
    with open_recording(bag) as recording:
        return {recording.image_topic, topics_of(bag).image}


@pytest.mark.parametrize(
    'topic', [TOPIC, '/depthai/rgb/image_raw', '/indepth/colour', '/masks/image', '/overlaid/image_raw/compressed']
)
@pytest.mark.parametrize(
    'other',
    [
        '/camera/depth/image_raw',
        '/camera/aligned_depth_to_color/image_raw',
        '/camera/image_raw/compressedDepth',
        '/stereo/disparity',
        '/zed/depth0',
        '/truth/labels',
        '/robot/xmem/overlay/compressed',
        '/robot/xmem/object_1/mask',
    ],
)
def test_topics_are_excluded_by_whole_parts_of_their_names(tmp_path, topic, other):
    assert chosen(bag_of(tmp_path, other, topic)) == {topic}


def test_excluded_topics_are_named_if_none_is_left(tmp_path):
    bag = bag_of(tmp_path, '/camera/depth/image_raw', '/xmem/labels')
    expected = r'/camera/depth/image_raw \(depth\).*; to use it: '
    with pytest.raises(BagError, match=expected + 'name /camera/depth/image_raw'):
        open_recording(bag)
    with pytest.raises(ParameterError, match=expected + 'image:=/camera/depth/image_raw'):
        topics_of(bag)
    with open_recording(bag, '/camera/depth/image_raw') as recording:
        assert recording.image_topic == '/camera/depth/image_raw'
    assert topics_of(bag, '/camera/depth/image_raw').image == '/camera/depth/image_raw'


def test_candidate_topics_are_named_before_excluded_ones(tmp_path):
    bag = bag_of(tmp_path, '/camera/depth/image_raw', TOPIC, '/rear/image')
    expected = rf'{TOPIC} \(2\), /rear/image \(2\); .*depth.*name one image topic, such as {TOPIC}'
    with pytest.raises(BagError, match=expected):
        open_recording(bag)
    with pytest.raises(ParameterError, match=rf'one of: {TOPIC}, /rear/image; .*\(depth\)'):
        topics_of(bag)
