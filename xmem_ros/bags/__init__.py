# SPDX-License-Identifier: MIT
"""Recordings tracked without a ROS graph: bags, videos and folders of frames. Only lockstep and live_* import rclpy."""
