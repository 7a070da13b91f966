# SPDX-License-Identifier: MIT
"""The ROS 2 node. Only this package imports rclpy."""
