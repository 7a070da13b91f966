# SPDX-License-Identifier: MIT
"""XMem's neural network: encoders, fuser, decoder, sensory updates. No files, no memory policy."""
