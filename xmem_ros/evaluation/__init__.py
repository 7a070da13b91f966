# SPDX-License-Identifier: MIT
"""Track the sequences of a data set and score the masks."""
