# SPDX-License-Identifier: MIT
"""The node's parameters as one table. Imports no rclpy."""
