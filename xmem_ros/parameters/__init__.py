# SPDX-License-Identifier: MIT
"""The node's parameters: one table, its documentation, parameter files. No rclpy."""
