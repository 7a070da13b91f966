# SPDX-License-Identifier: MIT
"""Trials of the node under faults: killed processes, a camera that is too fast, malformed requests and images."""
