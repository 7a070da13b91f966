# SPDX-License-Identifier: MIT
"""Robustness trials: killed processes, a camera that is too fast, malformed requests and images."""
