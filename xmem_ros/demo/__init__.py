# SPDX-License-Identifier: MIT
"""A clip of our own, a camera that plays it, and the demonstration that runs the real node on it."""
