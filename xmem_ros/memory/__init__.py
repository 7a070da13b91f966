# SPDX-License-Identifier: MIT
"""Working and long-term memory: stores, matching, consolidation, usage."""
