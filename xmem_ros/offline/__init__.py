# SPDX-License-Identifier: MIT
"""Offline tracking of a recording to files. Imports no rclpy."""
