# SPDX-License-Identifier: MIT
"""Tracker: frames and seeds in, masks out. Imports torch, not ROS.

from xmem_ros.tracker import Tracker
"""

from xmem_ros.objects import ObjectState, TrackedObject
from xmem_ros.tracker.config import TrackerConfig, pick_device
from xmem_ros.tracker.frame_processor import StepResult
from xmem_ros.tracker.seed_validation import SeedMask
from xmem_ros.tracker.tracker import Tracker

__all__ = ['ObjectState', 'SeedMask', 'StepResult', 'TrackedObject', 'Tracker', 'TrackerConfig', 'pick_device']
