# SPDX-License-Identifier: MIT
"""Bundled weights, and functions that find, download and read weights."""
