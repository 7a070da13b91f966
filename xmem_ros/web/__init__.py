# SPDX-License-Identifier: MIT
"""A page on which a person shows the tracker objects: `xmem-ros web`. Needs ROS and aiohttp."""
