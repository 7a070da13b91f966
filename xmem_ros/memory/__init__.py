# SPDX-License-Identifier: MIT
"""Working and long-term memory: stores, matching, consolidation and the policy between them."""
