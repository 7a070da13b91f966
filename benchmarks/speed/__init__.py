# SPDX-License-Identifier: MIT
"""Benchmark of a tracker's step, beside the authors' implementation and the machine's floor."""
