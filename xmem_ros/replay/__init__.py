# SPDX-License-Identifier: MIT
"""Replay of a recording into the live node, image by image."""
