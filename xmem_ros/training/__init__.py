# SPDX-License-Identifier: MIT
"""Training: footage, clips, losses and the loop."""
