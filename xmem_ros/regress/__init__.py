# SPDX-License-Identifier: MIT
"""Regression tests on recordings with reference masks."""
