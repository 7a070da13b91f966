# SPDX-License-Identifier: MIT
"""Command line `xmem-ros`: one module for each sub-command."""
