# SPDX-License-Identifier: MIT
"""What all tests share."""

from __future__ import annotations

import os
import random

import pytest

# Before anything imports rclpy. Other graphs, on this machine or beyond, are none of a test's business; processes that
# a test starts inherit both, and so meet the test and nobody else. Up to 101 every port lies below the ephemeral ones.
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
if os.environ.get('ROS_DISTRO') == 'humble':  # which does not know the variable above
    os.environ['ROS_LOCALHOST_ONLY'] = '1'
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')  # as xmem_ros.threads does, for the trackers in this process
os.environ['ROS_DOMAIN_ID'] = str(random.SystemRandom().randint(1, 101))


@pytest.fixture(scope='session')
def network():
    """The bundled network, on the CPU. Tests do not change it."""
    from xmem_ros.weights.checkpoint import find_weights, load_network

    return load_network(find_weights('compact'))
