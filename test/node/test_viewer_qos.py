# SPDX-License-Identifier: MIT
"""RViz with config/xmem.rviz gets every image, over real DDS."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import yaml
from needs import require

require('rclpy', 'xmem_ros.msg')

import node_harness as robots
from node_harness import wait_until
from rclpy.qos import QoSProfile, ReliabilityPolicy
from scene_files import rendered_scene
from sensor_msgs.msg import Image

IMAGES = 12
FRAME = cv2.resize(rendered_scene()[0][0], (756, 420))  # its overlay has 0.95 MB
POLICIES = {'Reliable': ReliabilityPolicy.RELIABLE, 'Best Effort': ReliabilityPolicy.BEST_EFFORT}
DISPLAYS = yaml.safe_load((Path(__file__).parents[2] / 'config' / 'xmem.rviz').read_text())['Visualization Manager'][
    'Displays'
]


def test_every_large_overlay_arrives_with_the_qos_of_the_rviz_file():
    (topic,) = (display['Topic'] for display in DISPLAYS if display['Name'] == 'Overlay')
    profile = QoSProfile(depth=topic['Depth'], reliability=POLICIES[topic['Reliability Policy']])
    with robots.running({'queue': 'all', 'queue_depth': IMAGES}) as robot:
        overlays = robot.listen(Image, topic['Value'].replace('/xmem', '~'), profile)
        robot.wait_matched('~/overlay')
        labels = robot.listen(Image, '~/labels')
        robot.wait_matched('~/labels')
        for _ in range(IMAGES):
            robot.show_and_wait(FRAME, labels)
        wait_until(lambda: len(overlays) == IMAGES, f'{IMAGES} overlays, {len(overlays)} so far')


@pytest.mark.parametrize('display', DISPLAYS, ids=lambda display: display['Name'])
def test_displays_subscribe_reliably(display):
    assert display['Topic']['Reliability Policy'] == 'Reliable'
