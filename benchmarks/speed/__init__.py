# SPDX-License-Identifier: MIT
"""Speed of a tracker's step, beside the authors' implementation and the machine's floor."""
