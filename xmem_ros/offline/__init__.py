# SPDX-License-Identifier: MIT
"""Offline tracking of a recording, with results in files. Imports no rclpy."""
