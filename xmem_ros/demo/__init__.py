# SPDX-License-Identifier: MIT
"""Demonstration: a rendered clip, a camera process that plays it, and the real node."""
