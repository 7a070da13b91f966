# SPDX-License-Identifier: MIT
"""The tracker on a stream of stamped images: queue, worker, history. No rclpy."""
