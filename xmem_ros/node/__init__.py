# SPDX-License-Identifier: MIT
"""The ROS 2 node."""
