# SPDX-License-Identifier: MIT
"""Conversions between ROS messages and arrays. Imports no rclpy."""
