# SPDX-License-Identifier: MIT
"""The node from a script or a notebook; needs ROS, not torch.

from xmem_ros.client import XMemClient

client = XMemClient('/xmem')
ids = client.seed({'cup': mask})
frame = client.wait_tracked(ids)
"""

from xmem_ros.client.calls import LoadedMemory, SavedMemory
from xmem_ros.client.client import XMemClient
from xmem_ros.client.seeds import Box, Points
from xmem_ros.client.seen import Frame, SeenObject

__all__ = ['Box', 'Frame', 'LoadedMemory', 'Points', 'SavedMemory', 'SeenObject', 'XMemClient']
