# SPDX-License-Identifier: MIT
"""Output formats of tracking results. Every sink gets the tracked images in order."""
