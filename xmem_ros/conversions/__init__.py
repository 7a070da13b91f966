# SPDX-License-Identifier: MIT
"""Conversion of ROS messages ↔ arrays. No rclpy."""
