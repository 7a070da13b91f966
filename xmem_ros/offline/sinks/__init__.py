# SPDX-License-Identifier: MIT
"""What results are written as. Every sink gets each tracked image in order."""
