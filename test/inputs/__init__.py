# SPDX-License-Identifier: MIT
"""Inputs of every class: what is read, what is said of the rest; see docs/inputs.md.

`python -m inputs.damage 60` in `test/` prints the table of damaged inputs.
"""
