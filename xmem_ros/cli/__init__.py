# SPDX-License-Identifier: MIT
"""The command line `xmem-ros`."""
