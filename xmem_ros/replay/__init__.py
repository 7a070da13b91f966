# SPDX-License-Identifier: MIT
"""Replay of a recording into a live node, image by image."""
