# SPDX-License-Identifier: MIT
"""Engines that run a network: ONNX Runtime, CUDA graphs, folded or low-precision torch."""
