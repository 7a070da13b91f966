# SPDX-License-Identifier: MIT
"""Recordings: bags, videos, folders of frames and seed files. Works without rclpy."""
