# SPDX-License-Identifier: MIT
"""Python client of the node, for scripts and notebooks; needs ROS, not torch.

from xmem_ros.client import XMemClient

client = XMemClient('/xmem')
ids = client.seed({'cup': mask})
frame = client.wait_tracked(ids)
"""

from xmem_ros.client.calls import Candidate, LoadedMemory, SavedMemory
from xmem_ros.client.client import XMemClient
from xmem_ros.client.frames import Frame, SeenObject
from xmem_ros.client.seeds import Box, Points

__all__ = ['Box', 'Candidate', 'Frame', 'LoadedMemory', 'Points', 'SavedMemory', 'SeenObject', 'XMemClient']
