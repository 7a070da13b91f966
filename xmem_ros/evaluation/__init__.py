# SPDX-License-Identifier: MIT
"""Evaluation: track the sequences of a data set and score the masks."""
