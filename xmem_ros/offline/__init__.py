# SPDX-License-Identifier: MIT
"""OfflineTracker tracking of a recording to files. Imports no rclpy."""
