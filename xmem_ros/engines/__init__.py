# SPDX-License-Identifier: MIT
"""What runs a network: ONNX Runtime, CUDA graphs, and folded or low-precision torch."""
