# SPDX-License-Identifier: MIT
"""The neural network: encoders, fuser, decoder, sensory updates, checkpoints. No file or memory policy lives here."""
