# SPDX-License-Identifier: MIT
"""The layouts for RViz and Foxglove use topics that the node publishes. Neither program runs."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from needs import require

require('rclpy', 'xmem_ros.msg')

import node_harness as robots
from node_harness import mask_seed, wait_until
from sensor_msgs.msg import Image

CONFIG = Path(__file__).resolve().parents[2] / 'config'


@pytest.fixture(scope='module')
def topics():
    """Topic → type of the node /xmem with one object."""
    with robots.running({'size': 64}) as robot:
        robot.show_and_wait(np.full((64, 96, 3), 90, np.uint8), robot.listen(Image, '~/labels'))
        robot.seed(mask_seed(np.eye(64, 96, dtype=bool) | np.eye(64, 96, 1, dtype=bool)))

        def found():
            names = dict(robot.node.get_topic_names_and_types())
            return f'{robot.prefix}/object_1/mask' in names and names

        names = wait_until(found, 'the topics of the object')
        return {name.removeprefix(robot.namespace): kinds[0] for name, kinds in names.items()}


def test_rviz_shows_images_of_the_node(topics):
    displays = yaml.safe_load((CONFIG / 'xmem.rviz').read_text())['Visualization Manager']['Displays']
    shown = [display['Topic']['Value'] for display in displays if display['Class'] == 'rviz_default_plugins/Image']
    assert shown[:2] == ['/xmem/overlay', '/xmem/labels']
    assert {topics.get(topic) for topic in shown} == {'sensor_msgs/msg/Image'}


def test_foxglove_shows_images_objects_and_diagnostics(topics):
    layout = json.loads((CONFIG / 'foxglove.json').read_text())
    panels = layout['configById']
    assert sorted(leaves(layout['layout'])) == sorted(panels)
    images = [panel['imageMode']['imageTopic'] for panel in panels.values() if 'imageMode' in panel]
    assert sorted(images) == ['/xmem/labels', '/xmem/overlay']
    assert {topics.get(topic) for topic in images} == {'sensor_msgs/msg/Image'}
    assert topics[panels['Table!objects']['topicPath'].partition('.')[0]] == 'xmem_ros/msg/TrackedObjectArray'
    shown = {panel['topicToRender'] for panel in panels.values() if 'topicToRender' in panel}
    assert [topics.get(topic) for topic in shown] == ['diagnostic_msgs/msg/DiagnosticArray']


def leaves(part):
    """Return the panels of a layout."""
    return [part] if isinstance(part, str) else leaves(part['first']) + leaves(part['second'])
