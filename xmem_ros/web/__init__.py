# SPDX-License-Identifier: MIT
"""Web page for seeding and watching objects: `xmem-ros web`. Needs ROS and aiohttp."""
